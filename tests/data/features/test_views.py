"""The pixels of a view: boxes of the image, moved by a little, the same for all frames of an episode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixio_robot.data.features.views import Views
from pixio_robot.errors import UserError

ROWS, COLUMNS = 9, 7
PLACES = np.stack(np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij"), -1)
FRAMES = np.concatenate([np.broadcast_to(PLACES, (3, ROWS, COLUMNS, 2)), np.zeros((3, ROWS, COLUMNS, 1))], -1).astype(
    np.uint8
)
"""Each pixel says where it is."""


@given(st.integers(1, ROWS), st.integers(1, COLUMNS), st.integers(0, 3), st.integers(0, 50), st.integers(0, 5))
def test_a_view_is_a_box_of_the_image_moved_with_edges_repeated(height, width, shift, episode, view) -> None:
    seen = Views(count=5, crop=(height, width), shift=shift).apply(FRAMES, "front", episode, view)
    assert seen.shape == (3, height, width, 3)
    assert np.array_equal(seen[0], seen[1])  # one box for all frames
    for axis, size in ((0, height), (1, width)):
        line = np.take(seen[0, ..., axis], 0, axis=1 - axis).astype(int)
        low, high = line.min(), line.max()
        assert high - low <= size - 1
        steps = np.diff(line)
        assert set(steps.tolist()) <= {0, 1}
        assert (steps == 0).sum() <= shift
        if view == 0:
            spare = (ROWS, COLUMNS)[axis] - size
            assert line.tolist() == list(range(spare // 2, spare // 2 + size))


def test_the_whole_image_is_the_view_without_settings() -> None:
    assert np.array_equal(Views().apply(FRAMES, "front", 3, 0), FRAMES)
    assert Views().name(0) == ""


def test_every_place_comes_up_equally_often() -> None:
    views = Views(count=1, crop=(ROWS - 2, COLUMNS - 1))
    tops = [int(views.apply(FRAMES, "front", episode, 1)[0, 0, 0, 0]) for episode in range(900)]
    assert np.bincount(tops, minlength=3).min() > 240


def test_cameras_episodes_views_and_seeds_differ() -> None:
    def box(camera: str = "front", episode: int = 0, view: int = 1, seed: int = 0) -> bytes:
        return Views(count=9, shift=3, seed=seed).apply(FRAMES, camera, episode, view).tobytes()

    assert box() == box()
    for others in (
        [box(episode=i) for i in range(8)],
        [box(view=i) for i in range(1, 9)],
        [box(seed=i) for i in range(8)],
        [box(camera=str(i)) for i in range(8)],
    ):
        assert len(set(others)) > 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": -1}, "negative"),
        ({"shift": -1}, "negative"),
        ({"crop": (0, 4)}, "at least 1 pixel"),
        ({"count": 2}, "useless"),
    ],
)
def test_views_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Views(**settings)


def test_a_crop_beyond_the_image() -> None:
    with pytest.raises(UserError, match="does not fit"):
        Views(crop=(ROWS + 1, 2)).apply(FRAMES, "front", 0, 0)
