"""Batches of crops: a function of the seed alone, whatever the threads, interruptions and broken images."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from demo_data import SPEC
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.images.batches import PixelBatches
from pixio_robot.data.images.codec import CorruptImage
from pixio_robot.data.images.crops import crop_and_resize, crop_draws, decode_reduction, random_crop_box, reduced_box
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.images.sources import DemoFrames, ImageSource, open_image_source
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest
from pixio_robot.errors import UserError
from pixio_robot.types import CameraSpec, Episode


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """37 photographs as shards, each of a colour of its own."""
    root = tmp_path_factory.mktemp("frames")
    (root / "in").mkdir()
    random = np.random.default_rng(0)
    for number in range(37):
        image = cv2.resize(random.integers(0, 255, (5, 7, 3), np.uint8), (70, 50), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "in" / f"{number:02d}.png"), image)
    config = IngestConfig(source=str(root / "in"), out=str(root / "out"), workers=1, shard_bytes=50_000)
    ingest(config)
    return root / "out"


def take(batches: PixelBatches, count: int) -> list[tuple[list[str], torch.Tensor]]:
    return [(batch.ids, batch.images) for batch, _ in zip(batches, range(count), strict=False)]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True)
    )


def test_shapes_and_every_image_once_an_epoch(folder: Path) -> None:
    source = FrameShards.open(folder)
    assert isinstance(source, ImageSource)
    with PixelBatches(source, batch_size=10, image_size=32, seed=0) as batches:
        taken = take(batches, 37)
    ids = [identity for batch, _ in taken for identity in batch]
    for epoch in range(10):
        assert len(set(ids[37 * epoch : 37 * (epoch + 1)])) == 37
    assert ids[:37] != ids[37:74]
    assert all(images.shape == (10, 32, 32, 3) and images.dtype == torch.uint8 for _, images in taken)


def test_an_image_is_cropped_anew_in_every_epoch(folder: Path) -> None:
    with PixelBatches(FrameShards.open(folder), batch_size=37, image_size=32, seed=0) as batches:
        first, second = (dict(zip(ids, images, strict=True)) for ids, images in take(batches, 2))
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[identity], second[identity]) for identity in first)


def test_threads_do_not_matter_and_seeds_do(folder: Path) -> None:
    source = FrameShards.open(folder)
    taken = []
    for workers, seed in ((1, 3), (4, 3), (1, 4)):
        with PixelBatches(source, 20, 32, seed=seed, workers=workers) as batches:
            taken.append(take(batches, 6))
    assert same(taken[0], taken[1])
    assert not same(taken[0], taken[2])


@pytest.mark.parametrize(
    ("batch_size", "count", "stops"),
    [(4, 15, (0, 1, 7, 9)), (50, 4, (0, 1, 3))],  # also more than the images there are
)
def test_resume_is_exact(folder: Path, batch_size: int, count: int, stops: tuple[int, ...]) -> None:
    source = FrameShards.open(folder)
    with PixelBatches(source, batch_size, 24, seed=1) as batches:
        whole = take(batches, count)
    for stop in stops:
        with PixelBatches(source, batch_size, 24, seed=1) as batches:
            for _ in range(stop):
                next(batches)
            state = batches.state_dict()
        with PixelBatches(source, batch_size, 24, seed=1, workers=3) as batches:
            next(batches)
            batches.load_state_dict(state)
            assert same(take(batches, count - stop), whole[stop:])
    with PixelBatches(source, batch_size, 24, seed=2) as batches, pytest.raises(UserError, match="seed was 1"):
        batches.load_state_dict(state)


class Colours:
    """n images; those in `broken` cannot be read."""

    def __init__(self, count: int, broken: set[int]) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def image(self, i: int) -> np.ndarray:
        if i in self.broken:
            raise CorruptImage(f"{i}")
        return np.full((20, 20, 3), i, np.uint8)

    def id(self, i: int) -> str:
        return str(i)


def test_corrupt_images_are_replaced_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    broken = {3, 4, 17}
    runs = []
    for workers in (1, 3):
        with PixelBatches(Colours(20, broken), 10, 8, seed=0, workers=workers) as batches:
            runs.append(take(batches, 4))
            assert batches.corrupt == {"3", "4", "17"}
            assert batches.state_dict()["corrupt"] == ["17", "3", "4"]
    with PixelBatches(Colours(20, broken), 5, 8, seed=0, rank=1, world_size=2) as batches:
        state = batches.state_dict()
        merged = batches.merge_states([state | {"corrupt": ["17"]}, state | {"corrupt": ["3", "17"]}])
        assert merged == state | {"corrupt": ["17", "3"]}
        batches.load_state_dict(merged)
        take(batches, 8)
        assert batches.corrupt == {"3", "4", "17"}  # those met before count once, whichever rank meets them again
    assert same(*runs)
    for ids, images in runs[0]:
        assert [int(identity) for identity in ids] == images[:, 0, 0, 0].tolist()
        assert not {int(identity) for identity in ids} & broken
    assert caplog.text.count("unreadable image") == 7  # once an image and run


def test_nothing_readable_is_an_error() -> None:
    message = "5 consecutive images"
    with PixelBatches(Colours(5, set(range(5))), 4, 8, seed=0) as batches, pytest.raises(UserError, match=message):
        next(batches)


def test_errors_of_threads_reach_the_consumer_and_close_ends_the_threads() -> None:
    class Broken(Colours):
        def image(self, i: int) -> np.ndarray:
            raise ZeroDivisionError("a bug")

    before = threading.active_count()
    batches = PixelBatches(Broken(5, set()), 4, 8, seed=0)
    with pytest.raises(ZeroDivisionError):
        next(batches)
    batches.close()
    assert threading.active_count() == before


def test_ranks_together_see_what_one_rank_sees_and_their_number_may_change(folder: Path) -> None:
    source = FrameShards.open(folder)
    with PixelBatches(source, 12, 24, seed=1) as batches:
        whole = take(batches, 8)
    for world_size in (2, 3):
        ranks = [
            PixelBatches(source, 12 // world_size, 24, seed=1, rank=r, world_size=world_size) for r in range(world_size)
        ]
        for step in range(5):
            parts = [next(batches) for batches in ranks]
            assert [identity for part in parts for identity in part.ids] == whole[step][0]
            assert torch.equal(torch.cat([part.images for part in parts]), whole[step][1])
        states = [batches.state_dict() for batches in ranks]
        assert all(state == states[0] for state in states)
        for batches in ranks:
            batches.close()
        with PixelBatches(source, 12, 24, seed=1) as batches:
            batches.load_state_dict(states[0])
            assert same(take(batches, 3), whole[5:])
    with pytest.raises(UserError, match="rank must be"):
        PixelBatches(source, 4, 8, seed=0, rank=2, world_size=2)


class SomeOf:
    """A different number of images in every epoch."""

    def __init__(self, count: int) -> None:
        self.count = count

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        return np.flatnonzero(np.random.default_rng((seed, epoch)).random(self.count) < 0.6)


@pytest.mark.parametrize(("batch_size", "count", "stops"), [(4, 30, (1, 6, 17)), (40, 3, (1, 2))])
def test_a_selection_decides_what_an_epoch_shows(
    folder: Path, batch_size: int, count: int, stops: tuple[int, ...]
) -> None:
    source, selection = FrameShards.open(folder), SomeOf(37)
    with PixelBatches(source, batch_size, 16, seed=5, selection=selection) as batches:
        whole = take(batches, count)
        assert batches.state_dict()["epoch"] > 0
    ids = [identity for batch, _ in whole for identity in batch]
    for epoch in range(3):
        expected = [source.id(int(i)) for i in selection.epoch(5, epoch)]
        shown, ids = ids[: len(expected)], ids[len(expected) :]
        assert sorted(shown) == sorted(expected)
        assert shown != expected
    for stop in stops:
        with PixelBatches(source, batch_size, 16, seed=5, selection=selection) as batches:
            for _ in range(stop):
                next(batches)
            state = batches.state_dict()
        with PixelBatches(source, batch_size, 16, seed=5, selection=selection, workers=3) as batches:
            batches.load_state_dict(state)
            assert same(take(batches, count - stop), whole[stop:])


def test_a_selection_of_nothing_is_explained(folder: Path) -> None:
    class Nothing:
        def epoch(self, seed: int, epoch: int) -> np.ndarray:
            return np.zeros(0, np.int64)

    source = FrameShards.open(folder)
    with (
        PixelBatches(source, 4, 8, seed=0, selection=Nothing()) as batches,
        pytest.raises(UserError, match="accepts no image at all in 101 epochs"),
    ):
        next(batches)


def test_crops_of_reduced_images_are_as_good(tmp_path: Path) -> None:
    """Decoding smaller and area averaging are two low-pass filters: both must come near antialiased bicubic."""
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0)
    # Like photographs: the finer, the fainter.
    layers = [random.normal(0, cell, (999 // cell, 1333 // cell, 3)) for cell in (4, 8, 16, 32, 64)]
    image = sum(cv2.resize(layer, (1333, 999), interpolation=cv2.INTER_CUBIC) for layer in layers)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.clip(128 + image, 0, 255))
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"), workers=1, short_side=0)
    ingest(config)
    source = FrameShards.open(tmp_path / "out")
    whole, errors = source.image(0), {}
    for seed in range(40):
        box = random_crop_box(999, 1333, np.random.default_rng(seed).random((10, 4)), (0.2, 1.0), (3 / 4, 4 / 3))
        size = 96 + 40 * (seed % 6)
        by = decode_reduction(box, size)
        top, left, height, width = reduced_box(box, by)
        crops = np.empty((2, size, size, 3), np.uint8)
        crop_and_resize(source.reduced(0, by), (top, left, height, width), size, crops[0])
        crop_and_resize(whole, (top * by, left * by, height * by, width * by), size, crops[1])
        corners = (left * by, top * by, (left + width) * by, (top + height) * by)
        reference = Image.fromarray(whole).resize((size, size), Image.Resampling.BICUBIC, box=corners)
        errors.setdefault(by, []).append(np.square(crops - np.asarray(reference, float)).mean((1, 2, 3)))
    for found in errors.values():
        reduced, full = 10 * np.log10(255**2 / np.mean(found, axis=0))
        assert full > 40  # dB
        assert reduced > 36
    assert errors.keys() >= {1, 2, 4}
    for by in (1, 2, 4, 8):
        assert source.reduced(0, by).shape == (-(-999 // by), -(-1333 // by), 3)


@given(size=st.integers(1, 200), side=st.integers(1, 1000), top=st.integers(0, 500), left=st.integers(0, 500))
def test_reduced_boxes_stay_inside_and_large_enough(size: int, side: int, top: int, left: int) -> None:
    by = decode_reduction((top, left, side, side + 3), size)
    assert by == 1 or side >= by * size
    new_top, new_left, height, width = reduced_box((top, left, side, side + 3), by)
    assert new_top + height <= -(-(top + side) // by)
    assert new_left + width <= -(-(left + side + 3) // by)
    assert min(height, width) >= min(size, side)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"image_size": 0}, {"workers": 0}, {"seed": -1}])
def test_bad_settings(settings: dict) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        PixelBatches(Colours(5, set()), **{"batch_size": 2, "image_size": 8, "seed": 0} | settings)


def test_sources_are_told_apart_and_joined(folder: Path, tmp_path: Path) -> None:
    one = open_image_source(str(folder))
    shutil.copytree(folder, tmp_path / "copy")
    both = open_image_source([str(folder), str(tmp_path / "copy")])
    assert len(both) == 2 * len(one)
    assert np.array_equal(both.image(len(one) + 5), one.image(5))
    assert len({both.id(i) for i in (5, len(one) - 1, len(one))}) == 3
    for path, message in [(tmp_path, "is neither"), (tmp_path / "no", "does not exist")]:
        with pytest.raises(UserError, match=f"{message}; expected a folder of frame shards"):
            open_image_source(str(path))
    with pytest.raises(UserError, match="No images were given"):
        open_image_source([])
    with pytest.raises(UserError, match=r"twice\. List it once; use data_weights"):
        open_image_source([str(folder), str(folder)])
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match=f"link twice, which is {folder}"):
        open_image_source([str(folder), str(tmp_path / "link")])


@pytest.fixture
def demos(tmp_path: Path) -> tuple[Path, list[Episode]]:
    """Three episodes of different lengths with two cameras of different sizes."""
    spec = dataclasses.replace(
        SPEC,
        control_hz=20.0,
        cameras={"front": CameraSpec(height=24, width=32), "hand": CameraSpec(height=16, width=16)},
        state_names=("x [m]",),
        action_names=("x [m]",),
    )
    store = DemoStore.create(tmp_path / "demos.zarr", spec)
    random, episodes = np.random.default_rng(0), []
    for seed, n in enumerate((4, 1, 7)):
        images = {
            name: random.integers(1, 255, (n, camera.height, camera.width, 3), np.uint8)
            for name, camera in spec.cameras.items()
        }
        values, rewards = np.zeros((n, 1), np.float32), np.zeros(n, np.float32)
        episodes.append(Episode(images=images, state=values, actions=values, rewards=rewards, success=True, seed=seed))
        store.append(episodes[-1])
    return tmp_path / "demos.zarr", episodes


def test_every_frame_of_demonstrations(demos, folder: Path) -> None:
    path, episodes = demos
    source = open_image_source(str(path))
    expected = [image for episode in episodes for images in episode.images.values() for image in images]
    assert len(source) == len(expected)
    assert all(np.array_equal(source.image(i), image) for i, image in enumerate(expected))
    assert source.id(0) == "0/front/0"
    assert source.id(len(source) - 1) == "2/hand/6"
    assert len({source.id(i) for i in range(len(source))}) == len(source)
    assert len(open_image_source([str(path), str(folder)])) == 24 + 37
    with PixelBatches(source, 8, 16, seed=0) as batches:
        assert next(batches).images.shape == (8, 16, 16, 3)


def test_damaged_demonstrations_are_corrupt_images(demos) -> None:
    path, _ = demos
    for chunk in (path / "episodes" / "000001" / "images" / "hand" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    with PixelBatches(DemoFrames(path), 24, 16, seed=0) as batches:
        next(batches)
        assert batches.corrupt == {"1/hand/0"}


@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 2**32))
@settings(max_examples=200)
def test_crop_boxes_lie_inside(height: int, width: int, seed: int) -> None:
    draws = np.random.default_rng(seed).random((10, 4))
    top, left, box_height, box_width = random_crop_box(height, width, draws, (0.2, 1.0), (3 / 4, 4 / 3))
    assert box_height > 0
    assert box_width > 0
    assert 0 <= top <= height - box_height
    assert 0 <= left <= width - box_width


def test_crops_come_in_every_shape_and_reach_every_edge() -> None:
    draws = crop_draws(3, 1, np.arange(4000))
    boxes = np.array([random_crop_box(900, 900, own, (0.2, 0.3), (1 / 2, 2.0)) for own in draws])
    aspects = np.sort(np.log(boxes[:, 3] / boxes[:, 2]))
    assert np.abs(aspects - np.linspace(-np.log(2), np.log(2), len(aspects))).max() < 0.06
    small = np.array([random_crop_box(4, 4, own, (0.5, 0.6), (1.0, 1.0)) for own in draws])  # 3 x 3 of 4 x 4
    assert {tuple(box) for box in small.tolist()} == {(top, left, 3, 3) for top in (0, 1) for left in (0, 1)}
    wide = random_crop_box(10, 100, np.full((10, 4), 0.5), (0.9, 1.0), (3 / 4, 4 / 3))
    assert wide == (0, 43, 10, 13), "the largest central box within the ratio"


def test_crop_areas_are_uniform_in_the_scale() -> None:
    draws = crop_draws(3, 1, np.arange(4000))
    boxes = [random_crop_box(1000, 1000, own, (0.2, 0.6), (1.0, 1.0)) for own in draws]
    shares = np.sort([height * width / 1e6 for _, _, height, width in boxes])
    assert np.abs(shares - np.linspace(0.2, 0.6, len(shares))).max() < 0.02


def test_crop_draws_are_uniform_independent_and_each_positions_own() -> None:
    draws = crop_draws(3, 1, np.arange(4000))
    assert (crop_draws(3, 1, np.array([17, 3999])) == draws[[17, 3999]]).all()
    columns = np.sort(draws.reshape(4000, 40), axis=0)
    assert np.abs(columns - np.linspace(0, 1, 4000)[:, None]).max() < 0.04  # Kolmogorov-Smirnov at 40 columns
    correlation = np.corrcoef(np.concatenate([draws[:-1].reshape(-1, 40), draws[1:].reshape(-1, 40)], axis=1).T)
    assert np.abs(correlation - np.eye(80)).max() < 0.08
    for other in (crop_draws(4, 1, np.arange(4000)), crop_draws(3, 2, np.arange(4000))):
        assert abs(np.corrcoef(draws.ravel(), other.ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("side", [(64, 64), (100, 140), (200, 130), (333, 480), (1000, 700), (64, 300), (300, 40)])
def test_resampling_is_antialiased_bicubic(side: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    smooth = cv2.resize(random.integers(0, 255, (20, 25, 3), np.uint8), side[::-1], interpolation=cv2.INTER_CUBIC)
    noise = random.integers(0, 255, (*side, 3))
    # Fine texture on smooth shapes: aliasing would keep the texture's contrast.
    image = np.clip(0.7 * smooth + 0.3 * noise, 0, 255).astype(np.uint8)
    out = np.empty((128, 128, 3), np.uint8)
    crop_and_resize(image, (0, 0, *side), 128, out)
    reference = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC)).astype(int)
    aliased = cv2.resize(image, (128, 128), interpolation=cv2.INTER_CUBIC)
    error = np.abs(out - reference).mean()
    assert error < 0.1
    assert np.abs(out - reference).max() <= 2
    if min(side) >= 200:
        assert error < 0.1 * np.abs(aliased - reference).mean()
