"""Probes recover what is in the features, find nothing where nothing is, and never fit on what they measure."""

import numpy as np
import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.types import Features, GroundTruth
from pixio_robot.vision.probes import Ridge, nearest, probe, split_episodes

EPISODES, FRAMES, GRID, D, PIXELS = 24, 5, 4, 12, 16


@pytest.fixture
def truth() -> GroundTruth:
    rng = np.random.default_rng(0)
    n = EPISODES * FRAMES
    coarse = rng.uniform(0.5, 2.0, (n, GRID, GRID)).astype(np.float32)
    depth = np.kron(coarse, np.ones((PIXELS // GRID,) * 2, np.float32))
    return GroundTruth(
        images=rng.integers(0, 256, (n, PIXELS, PIXELS, 3), np.uint8),
        depth=depth,
        classes=(depth > 1.25).astype(np.int32),
        class_names=["near", "far", "absent"],
        positions={"cube": rng.normal(size=(n, 3)).astype(np.float32)},
        episode=np.repeat(np.arange(EPISODES), FRAMES),
    )


def features_of(truth: GroundTruth, informed: bool) -> Features:
    """Patch tokens that hold depth and class, class tokens that hold the position, in a random basis; or noise."""
    generator = torch.Generator().manual_seed(0)
    n = len(truth.images)
    cls, patches = torch.randn(n, 2, D, generator=generator), torch.randn(n, GRID, GRID, D, generator=generator)
    if informed:
        step = PIXELS // GRID
        patches[..., 0] = torch.from_numpy(truth.depth[:, ::step, ::step])
        patches[..., 1] = torch.from_numpy(truth.classes[:, ::step, ::step]).float()
        cls[:, 0, :3] = torch.from_numpy(truth.positions["cube"])
        basis = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
        cls, patches = cls @ basis, patches @ basis
    return Features(cls, patches)


def test_what_is_there_is_found(truth: GroundTruth) -> None:
    result, pictures = probe(features_of(truth, informed=True), truth)
    nothing, _ = probe(features_of(truth, informed=False), truth)
    assert result.depth_rmse_m < 0.5 * result.depth_rmse_mean_m
    assert nothing.depth_rmse_m > 0.95 * nothing.depth_rmse_mean_m
    assert result.miou > 0.8 > nothing.miou
    assert set(result.iou) == {"near", "far"}
    assert result.positions["cube"].class_tokens < 5 < 50 < nothing.positions["cube"].class_tokens
    assert result.train_frames + result.test_frames == len(truth.images)
    assert pictures.read_depth.shape == pictures.depth.shape == (result.test_frames, PIXELS, PIXELS)


def test_nothing_of_an_episode_is_on_both_sides(truth: GroundTruth) -> None:
    held = split_episodes(truth.episode, 0.25)
    assert not set(truth.episode[held]) & set(truth.episode[~held])
    assert held.sum() == 6 * FRAMES
    np.testing.assert_array_equal(held, split_episodes(truth.episode, 0.25))
    with pytest.raises(UserError, match="two episodes"):
        split_episodes(np.zeros(5), 0.25)


@pytest.mark.parametrize(("rows", "width"), [(60, 5), (40, 90)])
@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_ridge_is_the_textbook_solution_on_either_side_of_square(rows: int, width: int, strength: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(width, 2, generator=generator, dtype=torch.float64) + 3
    z = (x - x.mean(0)) / x.std(0)
    weights = torch.linalg.solve(z.T @ z + strength * rows * torch.eye(width), z.T @ (y - y.mean(0)))
    read = Ridge(x.float(), y.float()).solve(strength)(x.float())
    torch.testing.assert_close(read, (z @ weights + y.mean(0)).float(), atol=2e-3, rtol=1e-3)


def test_nearest_of_a_known_frame_is_itself() -> None:
    x, y = torch.eye(6), torch.arange(6.0)[:, None]
    torch.testing.assert_close(nearest(x, y, k=1)(x), y)


def test_same_features_same_card(truth: GroundTruth) -> None:
    features = features_of(truth, informed=True)
    assert probe(features, truth)[0] == probe(features, truth)[0]
