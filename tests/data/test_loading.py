"""Batches hold what the store holds, each window once an epoch, and a restored loader goes on exactly."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import make_episode, make_store
from torch import Tensor, nn

from pixio_robot.data.demos import DemoStore
from pixio_robot.data.features import cache_features
from pixio_robot.data.loading import DemoBatches
from pixio_robot.errors import UserError
from pixio_robot.types import Batch, Features


class Encoder(nn.Module):
    """A small real encoder: 4x4 patches of a random linear map, and their mean as the class token."""

    feature_dim = 5

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 5, 4, stride=4)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.patch.weight, generator=generator)
        self.seen = 0

    def forward(self, images: Tensor) -> Features:
        self.seen += len(images)
        patches = self.patch(images.permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
        return Features(patches.mean((1, 2))[:, None], patches)

    def fingerprint(self) -> str:
        return f"{self.patch.weight.sum().item():.6f}"


def batches(store: DemoStore, **settings) -> DemoBatches:
    defaults = {"observation_steps": 2, "horizon": 3, "cameras": ["front", "hand"], "batch_size": 4, "seed": 0}
    return DemoBatches(store, **(defaults | settings))


def equal(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.actions, other.actions)
        and torch.equal(one.observation.state, other.observation.state)
        and torch.equal(one.is_pad, other.is_pad)
        and all(torch.equal(one.observation.images[n], other.observation.images[n]) for n in one.observation.images)
    )


def test_a_window_holds_what_the_episode_holds(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    episode = make_episode(0)
    batch = batches(store).gather(np.array([0, 2, len(episode) - 1]))
    assert batch.observation.images["front"].shape == (3, 2, 12, 10, 3)
    assert np.array_equal(batch.observation.images["hand"][1].numpy(), episode.images["hand"][1:3])
    assert np.array_equal(batch.observation.state[0].numpy(), episode.state[[0, 0]])
    assert np.array_equal(batch.actions[2].numpy(), episode.actions[[-1, -1, -1]])
    assert batch.is_pad[2].tolist() == [False, True, True]


def test_an_epoch_is_a_permutation_and_the_next_another(tmp_path: Path) -> None:
    loader = batches(make_store(tmp_path / "s"), batch_size=1, observation_steps=1)
    epochs = [[next(loader).actions.numpy().tobytes() for _ in range(loader.windows)] for _ in range(2)]
    loader.close()
    assert len(set(epochs[0])) == loader.windows
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("consumed", [0, 1, 5, 11])
def test_a_restored_loader_goes_on_exactly(tmp_path: Path, consumed: int) -> None:
    store = make_store(tmp_path / "s")
    first = batches(store)
    for _ in range(consumed):
        next(first)
    state = first.state_dict()
    expected = [next(first) for _ in range(4)]
    second = batches(store)
    second.load_state_dict(state)
    assert all(equal(next(second), batch) for batch in expected)
    first.close()
    second.close()


def test_a_state_of_other_data_is_refused(tmp_path: Path) -> None:
    state = batches(make_store(tmp_path / "a", episodes=2)).state_dict()
    with pytest.raises(UserError, match="windows"):
        batches(make_store(tmp_path / "b", episodes=3)).load_state_dict(state)


def test_closing_ends_the_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    loader = batches(make_store(tmp_path / "s"))
    next(loader)
    loader.close()
    assert threading.active_count() == before


def test_an_error_of_the_thread_reaches_the_consumer(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    with pytest.raises(UserError, match="not a readable Zarr array"):
        next(batches(store, cameras=["side"]))


def test_cached_features_are_those_of_the_images(tmp_path: Path) -> None:
    store, encoder = make_store(tmp_path / "s"), Encoder(0)
    cache = cache_features(store, encoder, ["front", "hand"], batch_size=3, progress=False)
    index = np.arange(6)
    with_images = batches(store).gather(index).observation
    with_features = batches(store, features=cache).gather(index).observation
    assert not with_features.images
    for camera, images in with_images.images.items():
        with torch.no_grad():
            expected = encoder(images.flatten(0, 1))
        found = with_features.features[camera]
        torch.testing.assert_close(found.patches.flatten(0, 1).float(), expected.patches, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(found.cls.flatten(0, 1).float(), expected.cls, rtol=2e-3, atol=2e-3)


def test_features_are_computed_once_and_grow_with_the_store(tmp_path: Path) -> None:
    store, encoder = make_store(tmp_path / "s", episodes=2), Encoder(0)
    cache_features(store, encoder, ["front"], progress=False)
    assert encoder.seen == store.lengths.sum()
    store.append(make_episode(9, length=6))
    encoder.seen = 0
    cache_features(store, encoder, ["front"], progress=False)
    assert encoder.seen == 6


def test_other_weights_never_meet_old_features(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    one = cache_features(store, Encoder(0), ["front"], progress=False).features(0, "front")
    two = cache_features(store, Encoder(1), ["front"], progress=False).features(0, "front")
    assert not torch.equal(one.patches, two.patches)
    with pytest.raises(UserError, match="not cached"):
        cache_features(store, Encoder(0), ["front"], progress=False).features(0, "hand")
