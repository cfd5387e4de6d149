"""Cached features are those of the encoder, computed once, for the weights that were asked for."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_data import SPEC, make_episode, make_store
from torch import Tensor, nn

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.features import cache as feature_cache
from pixio_robot.data.features.cache import DEFAULT_RAM_BYTES, FeatureCache, encode_features, open_features
from pixio_robot.data.features.views import Views
from pixio_robot.data.loading import DemoBatches, DemoWindows
from pixio_robot.data.mixture import MixedBatches
from pixio_robot.data.windows import Windows
from pixio_robot.errors import UserError
from pixio_robot.types import Features

CAMERAS = ["front", "hand"]


class Encoder(nn.Module):
    """A small real encoder: 4x4 patches of a random linear map, and their mean as the class token."""

    feature_dim = 5

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 5, 4, stride=4)
        assert self.patch.bias is not None
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.patch.weight, generator=generator)
        nn.init.normal_(self.patch.bias, generator=generator)
        self.seen = 0

    def forward(self, images: Tensor) -> Features:
        self.seen += len(images)
        patches = self.patch(images.permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
        return Features(patches.mean((1, 2))[:, None], patches)

    def fingerprint(self) -> str:
        return f"{self.patch.weight.sum().item():.6f}"


def cache_features(
    store: DemoStore, encoder: nn.Module, cameras: list[str], *, ram_bytes: int = DEFAULT_RAM_BYTES, **settings: Any
) -> FeatureCache:
    return open_features(encode_features(store, encoder, cameras, **settings), ram_bytes=ram_bytes)


def windows(store: DemoStore, cache: FeatureCache | None, **settings: Any) -> DemoWindows:
    return DemoWindows(store, observation_steps=2, horizon=3, cameras=CAMERAS, features=cache, **settings)


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
def test_cached_features_are_those_of_the_images(tmp_path: Path, ram_bytes: int) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0)
    cache = cache_features(store, encoder, CAMERAS, batch_size=3, ram_bytes=ram_bytes)
    index = np.arange(int(store.lengths.sum()))[::-1].copy()
    with_images = windows(store, None).gather(index).observation
    with_features = windows(store, cache).gather(index).observation
    assert not with_features.images
    for camera, images in with_images.images.items():
        with torch.no_grad():
            expected = encoder(images.flatten(0, 1))
        found = with_features.features[camera]
        torch.testing.assert_close(found.patches.flatten(0, 1).float(), expected.patches, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(found.cls.flatten(0, 1).float(), expected.cls, rtol=2e-3, atol=2e-3)


def test_features_of_another_precision_are_kept_apart(tmp_path: Path) -> None:
    store, encoder = make_store(tmp_path / "s", episodes=2), Encoder(0)
    exact = cache_features(store, encoder, ["front"]).features(0, "front").patches.float()
    encoder.seen = 0
    rough = cache_features(store, encoder, ["front"], dtype=torch.bfloat16).features(0, "front").patches
    assert encoder.seen == store.lengths.sum()
    assert rough.dtype is torch.float16
    error = (rough.float() - exact).norm() / exact.norm()
    assert 1e-4 < error < 1e-2
    assert [path.name for path in sorted(store.path.glob(".features/*"))] == [
        encoder.fingerprint(),
        f"{encoder.fingerprint()}.bfloat16",
    ]


def test_features_are_computed_once_and_grow_with_the_store(tmp_path: Path) -> None:
    store, encoder = make_store(tmp_path / "s", episodes=2), Encoder(0)
    cache_features(store, encoder, ["front"])
    assert encoder.seen == store.lengths.sum()
    store.append(make_episode(9, length=6))
    encoder.seen = 0
    cache_features(store, encoder, ["front"])
    assert encoder.seen == 6


def test_the_next_frames_are_read_while_these_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, read, images = make_store(tmp_path / "s"), threading.Semaphore(0), DemoStore.images

    def counted(*arguments: Any) -> np.ndarray:
        found = images(*arguments)
        read.release()
        return found

    class Waiting(Encoder):
        def forward(self, images: Tensor) -> Features:
            if self.seen == 0:
                assert all(read.acquire(timeout=60) for _ in range(2))
            return super().forward(images)

    monkeypatch.setattr(DemoStore, "images", counted)
    cache_features(store, Waiting(0), CAMERAS)


def test_a_file_is_written_while_the_next_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cache_features(make_store(tmp_path / "t", episodes=2), Encoder(0), ["front"])
    store, encoded, save = make_store(tmp_path / "s", episodes=2), threading.Semaphore(0), feature_cache._save

    class Told(Encoder):
        def forward(self, images: Tensor) -> Features:
            encoded.release()
            return super().forward(images)

    def waiting(*arguments: Any) -> None:
        if arguments[0].episode == 0:
            assert all(encoded.acquire(timeout=60) for _ in range(2))
        save(*arguments)

    monkeypatch.setattr(feature_cache, "_save", waiting)
    cache = cache_features(store, Told(0), ["front"])
    for episode in range(2):
        assert torch.equal(cache.features(episode, "front").patches, expected.features(episode, "front").patches)


@pytest.mark.gpu
def test_a_gpu_gives_what_a_cpu_does(tmp_path: Path) -> None:
    stores = make_store(tmp_path / "s", episodes=6), make_store(tmp_path / "t", episodes=6)
    found, expected = (
        cache_features(store, Encoder(0), CAMERAS, batch_size=2, device=device)
        for store, device in zip(stores, ("cuda", "cpu"), strict=True)
    )
    for episode in range(6):
        for camera in CAMERAS:
            one, other = found.features(episode, camera), expected.features(episode, camera)
            torch.testing.assert_close(one.patches, other.patches, rtol=1e-2, atol=1e-2)  # TF32
            torch.testing.assert_close(one.cls, other.cls, rtol=1e-2, atol=1e-2)


def test_what_stops_the_reading_is_told_and_leaves_no_thread(tmp_path: Path) -> None:
    store, before = make_store(tmp_path / "s"), threading.active_count()
    with pytest.raises(UserError, match="does not fit"):
        cache_features(store, Encoder(0), CAMERAS, views=Views(crop=(100, 100)))
    assert threading.active_count() == before


def test_other_weights_never_meet_old_features(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    one = cache_features(store, Encoder(0), ["front"]).features(0, "front")
    two = cache_features(store, Encoder(1), ["front"]).features(0, "front")
    assert not torch.equal(one.patches, two.patches)
    with pytest.raises(UserError, match="not cached"):
        cache_features(store, Encoder(0), ["front"]).features(0, "hand")


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_they_are_the_encoders_output_rounded_to_float16(tmp_path: Path, batch_size: int) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0)
    cache = cache_features(store, encoder, CAMERAS, batch_size=batch_size)
    for episode in range(len(store)):
        for camera in CAMERAS:
            found = cache.features(episode, camera)
            expected = encoder(torch.from_numpy(make_episode(episode).images[camera]))
            assert found.patches.dtype == found.cls.dtype == torch.float16
            # One unit of the last place: the order of additions depends on the batch.
            torch.testing.assert_close(found.patches.float(), expected.patches, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.cls.float(), expected.cls, rtol=1e-3, atol=1e-4)


def test_mapped_and_held_features_are_the_same(tmp_path: Path) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0)
    held, mapped = (
        DemoBatches(windows(store, cache_features(store, encoder, CAMERAS, ram_bytes=size)), batch_size=4)
        for size in (1 << 30, 0)
    )
    with held, mapped:
        for _ in range(held.batches_per_epoch):
            one, other = next(held).observation.features, next(mapped).observation.features
            for camera in CAMERAS:
                assert torch.equal(one[camera].patches, other[camera].patches)
                assert torch.equal(one[camera].cls, other[camera].cls)


def test_the_encoder_is_left_in_its_mode_and_the_store_without_frames(tmp_path: Path) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0).train()
    cache_features(store, encoder, CAMERAS)
    assert encoder.training
    assert not store._frames


@pytest.mark.parametrize("damage", ["truncate", "empty", "other length"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0)
    expected = cache_features(store, encoder, ["front"]).features(1, "front").patches
    files = sorted((tmp_path / "s" / ".features").rglob("*.safetensors"))
    content = {"truncate": files[1].read_bytes()[:-5], "empty": b"", "other length": files[2].read_bytes()}[damage]
    files[1].write_bytes(content)
    encoder.seen = 0
    again = cache_features(store, encoder, ["front"]).features(1, "front").patches
    assert encoder.seen == store.lengths[1]
    assert torch.equal(again, expected)


def test_features_beyond_float16_are_refused(tmp_path: Path) -> None:
    encoder = Encoder(0)
    with torch.no_grad():
        encoder.patch.weight.mul_(1e6)
    with pytest.raises(UserError, match="not finite in float16"):
        cache_features(make_store(tmp_path / "s"), encoder, ["front"])
    assert not list((tmp_path / "s" / ".features").rglob("*.safetensors"))


def test_an_unknown_camera(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown camera 'side'"):
        cache_features(make_store(tmp_path / "s"), Encoder(0), ["side"])


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=6)
    code = f"""
        import sys, time
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
        from test_cache import Encoder, cache_features, DemoStore
        class Slow(Encoder):
            def forward(self, images):
                time.sleep(0.1)
                return super().forward(images)
        cache_features(DemoStore.open({str(tmp_path / "s")!r}), Slow(0), ["front", "hand"])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    features = tmp_path / "s" / ".features"
    while len(list(features.rglob("0*.safetensors"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    encoder = Encoder(0)
    cache = cache_features(store, encoder, CAMERAS)
    assert 0 < encoder.seen < 2 * store.lengths.sum()
    fresh = cache_features(make_store(tmp_path / "t", episodes=6), Encoder(0), CAMERAS)
    for episode in range(6):
        assert torch.equal(cache.features(episode, "front").patches, fresh.features(episode, "front").patches)


def replace_images(store: DemoStore, episode: int, by: int) -> None:
    shutil.rmtree(store.episode_path(episode))
    shutil.copytree(store.episode_path(by), store.episode_path(episode))


def test_other_images_never_meet_old_features(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = DemoStore.create(path, SPEC)
    for seed in range(3):
        store.append(make_episode(seed, length=5))
    cache_features(store, Encoder(0), ["front"])
    replace_images(store, episode=1, by=2)
    encoder = Encoder(0)
    cache = cache_features(DemoStore.open(path), encoder, ["front"])
    assert encoder.seen == 5
    assert torch.equal(cache.features(1, "front").patches, cache.features(2, "front").patches)


def test_a_whole_cache_is_read_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s")
    cache_features(store, Encoder(0), CAMERAS)
    monkeypatch.setattr(feature_cache, "atomic_file", None)
    encoder = Encoder(0)
    cache_features(store, encoder, CAMERAS)
    assert encoder.seen == 0


VIEWS = Views(count=3, crop=(8, 8), shift=1, seed=5)


def test_features_of_stores_that_cannot_be_written_are_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [make_store(tmp_path / name / "demos", episodes=number) for name, number in (("a", 2), ("b", 1))]
    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "demos/" not in str(path) and writable(path, mode))
    with pytest.raises(UserError, match="cannot be written; with features_dir="):
        cache_features(stores[0], Encoder(0), ["front"])
    place = tmp_path / "elsewhere" / "features"
    for store in stores:
        cached = cache_features(store, Encoder(0), ["front"], directory=place)
        assert len(cached.features(0, "front").cls) == store.lengths[0]
    assert len(list(place.iterdir())) == 2  # one for each, though their names are the same


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
def test_each_view_is_what_the_encoder_says_of_its_pixels(tmp_path: Path, ram_bytes: int) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0)
    cache = cache_features(store, encoder, CAMERAS, views=VIEWS, ram_bytes=ram_bytes)
    windows = np.arange(int(store.lengths.sum()))
    located = Windows(store.lengths, 2, 1).locate(windows)
    shown = windows % (VIEWS.count + 1)
    found = cache.gather("front", located.episode, located.frames, shown)
    for row, (episode, view) in enumerate(zip(located.episode.tolist(), shown.tolist(), strict=True)):
        pixels = VIEWS.apply(store.images(episode, "front"), "front", episode, view)[located.frames[row]]
        with torch.no_grad():
            expected = encoder(torch.from_numpy(pixels.copy()))
        torch.testing.assert_close(found.patches[row].float(), expected.patches, rtol=2e-3, atol=2e-3)
    assert found.crop == VIEWS.crop == cache.features(0, "front").crop
    plain = cache.gather("front", located.episode, located.frames)
    same = (plain.patches == found.patches).flatten(1).all(1)
    assert same[torch.from_numpy(shown == 0)].all()
    assert not same[torch.from_numpy(shown > 0)].all()


def test_more_views_of_the_same_kind_only_add(tmp_path: Path) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0)
    cache_features(store, encoder, ["front"], views=dataclasses.replace(VIEWS, count=1))
    encoder.seen = 0
    cache_features(store, encoder, ["front"], views=VIEWS)
    assert encoder.seen == 2 * store.lengths.sum()
    for other in ({"crop": (8, 4)}, {"shift": 0}, {"seed": 6}):
        encoder.seen = 0
        cache_features(store, encoder, ["front"], views=dataclasses.replace(VIEWS, **other))
        assert encoder.seen >= 3 * store.lengths.sum()


def test_training_draws_views_and_a_restored_loader_the_same_ones(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    cache = cache_features(store, Encoder(0), CAMERAS, views=VIEWS)

    source = windows(store, cache, random_views=True)
    first, again = DemoBatches(source, batch_size=4), DemoBatches(source, batch_size=4)
    with first, again:
        for _ in range(3):
            next(first)
        again.load_state_dict(first.state_dict())
        for _ in range(first.batches_per_epoch):
            one, other = next(first).observation.features, next(again).observation.features
            assert all(torch.equal(one[camera].patches, other[camera].patches) for camera in CAMERAS)
    indices = np.arange(4)
    acting = source.gather(indices).observation.features["front"].patches
    assert torch.equal(
        acting, cache.gather("front", np.zeros(4, int), np.array([[0, 0], [0, 1], [1, 2], [2, 3]])).patches
    )
    with pytest.raises(UserError, match="random_views"):
        DemoWindows(store, horizon=1, cameras=[], random_views=True)


def test_each_camera_is_shown_in_views_of_its_own_drawn_anew_in_every_epoch(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    cache = cache_features(store, Encoder(0), CAMERAS, views=VIEWS)
    source = DemoWindows(store, horizon=1, cameras=CAMERAS, features=cache, random_views=True)
    drawn, gather = [], source.gather
    source.gather = lambda indices, views=None: drawn.append(views) or gather(indices, views)
    with DemoBatches(source, batch_size=len(source)) as loader:
        next(loader), next(loader)
    first, second = drawn[:2]
    assert set(first[0].tolist()) == set(first[1].tolist()) == {1, 2, 3}
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, second)


def test_processes_together_see_the_views_that_one_sees(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / name) for name in "ab"]
    caches = [cache_features(store, Encoder(0), ["front"], views=VIEWS) for store in stores]
    parts = [
        DemoWindows(store, horizon=1, cameras=["front"], random_views=True, features=cache)
        for store, cache in zip(stores, caches, strict=True)
    ]

    def of_one(**share: int) -> DemoBatches:
        return DemoBatches(parts[0], batch_size=16, **share)

    def of_both(**share: int) -> MixedBatches:
        return MixedBatches(parts, batch_size=16, seed=0, weights=[3, 1], **share)

    for stream in (of_one, of_both):
        seen = []
        for share in ({}, {"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2}):
            with stream(**share) as batches:
                seen.append(next(batches).observation.features["front"].patches)
        assert torch.equal(torch.cat(seen[1:]), seen[0])


def test_features_of_other_crops_are_not_mixed(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / name) for name in "ab"]
    views = (VIEWS, dataclasses.replace(VIEWS, crop=(8, 4)))
    caches = [
        cache_features(store, Encoder(0), ["front"], views=each) for store, each in zip(stores, views, strict=True)
    ]
    parts = [
        DemoWindows(store, horizon=1, cameras=["front"], features=cache)
        for store, cache in zip(stores, caches, strict=True)
    ]
    with MixedBatches(parts, batch_size=16, seed=0) as batches, pytest.raises(UserError, match="different crops"):
        next(batches)


def test_a_view_that_was_not_cached(tmp_path: Path) -> None:
    cache = cache_features(make_store(tmp_path / "s"), Encoder(0), ["front"])
    with pytest.raises(UserError, match=r"views 0 to 0; there is no view 1"):
        cache.gather("front", np.array([0]), np.array([[0]]), np.array([1]))
