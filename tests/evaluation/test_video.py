"""Captions say what happened and what was done, and leave the image alone."""

import imageio.v3 as iio
import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.video import ACTION_HEIGHT, CAPTION_HEIGHT, caption_frames, write_grid, write_video

STRIPS = CAPTION_HEIGHT + ACTION_HEIGHT
GREY = np.full((48, 48, 3), 128, np.uint8)


@pytest.mark.parametrize("shape", [(48, 48), (33, 47), (301, 517), (480, 640)])
def test_captions_leave_the_image_alone_and_sides_even(shape, tmp_path):
    image = np.full((*shape, 3), (10, 200, 90), np.uint8)
    captioned = list(caption_frames([image, image], [np.zeros(7)], 100_123, success=False))
    height, width, _ = captioned[0].shape
    assert height % 2 == width % 2 == 0
    assert width >= 256
    assert (captioned[0][:-STRIPS] == image[0, 0]).all()
    write_video(tmp_path / "a.mp4", captioned, 20.0)
    decoded = iio.imread(tmp_path / "a.mp4", plugin="pyav")
    assert np.abs(decoded[0, : height - STRIPS - 8].astype(int) - image[0, 0]).mean() < 6


def bars(action, largest=1.0):
    """Pixels of bar above and below the line, by thirds of the strip, for an action of three numbers."""
    actions = [np.asarray(action, float), np.full(3, largest)]
    strip = next(caption_frames([GREY] * 3, actions, 1, success=True))[-ACTION_HEIGHT:, 52:-6]
    bright = strip[..., 2] > 200
    above, below = bright[: ACTION_HEIGHT // 2], bright[ACTION_HEIGHT // 2 + 1 :]
    return [[int(part.any(1).sum()) for part in np.array_split(half, 3, axis=1)] for half in (above, below)]


def test_the_action_is_drawn_up_and_down_in_proportion():
    above, below = bars([1.0, -1.0, 0.5])
    assert above[0] == below[1] > 10
    assert above[1] == below[0] == 0
    assert above[2] == pytest.approx(above[0] / 2, abs=1)


def test_large_actions_are_scaled_by_their_largest():
    above, _ = bars([4.0, 2.0, 0.0], largest=4.0)
    assert above[1] == pytest.approx(above[0] / 2, abs=1)
    assert above[2] == 0


def test_after_the_last_action_only_the_line_is_left():
    *_, last = caption_frames([GREY] * 2, [np.ones(3)], 1, success=True)
    last = last[-ACTION_HEIGHT:, 52:-6]
    assert not (last[..., 2] > 200).any()


def test_the_outcome_has_a_colour():
    strips = [next(caption_frames([GREY], [], 1, success=success))[-STRIPS + 1, -2] for success in (True, False)]
    assert strips[0][1] > strips[0][0]
    assert strips[1][0] > strips[1][1]


def test_a_grid_lasts_as_long_as_its_longest_and_holds_what_ended(tmp_path):
    for name, length, level in (("short", 3, 40), ("long", 9, 200), ("middle", 5, 120)):
        write_video(tmp_path / f"{name}.mp4", [np.full((64, 64, 3), level, np.uint8)] * length, 10.0)
    write_grid(tmp_path / "grid.mp4", [tmp_path / f"{name}.mp4" for name in ("short", "long", "middle")], 10.0)
    grid = iio.imread(tmp_path / "grid.mp4", plugin="pyav")
    assert grid.shape == (9, 320, 320, 3)
    for tile, level in (((80, 80), 40), ((80, 240), 200), ((240, 80), 120)):
        assert grid[-1][tile].mean() == pytest.approx(level, abs=6)


def test_a_broken_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"a\.mp4 is not a readable video"):
        write_grid(tmp_path / "grid.mp4", [tmp_path / "a.mp4"], 10.0)
    assert not (tmp_path / "grid.mp4").exists()
