"""Probes recover what is in the features, find nothing where nothing is, and never fit on what they measure."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pixio_robot.errors import UserError
from pixio_robot.student_t import t_half_width
from pixio_robot.types import Features, GroundTruth
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.probing.probes import DensePredictions, Probes, extract_features
from pixio_robot.vision.probing.regressors import Ridge, fit_knn, fit_patch_knn, fit_ridge, split_episodes
from pixio_robot.vision.probing.scores import ProbeResult, dense_scores, roc_area
from pixio_robot.vision.probing.softmax_regression import fit_softmax_regression

EPISODES, FRAMES, GRID, D, PIXELS = 24, 5, 4, 12, 16


def probe(features: Features, truth: GroundTruth) -> tuple[ProbeResult, DensePredictions]:
    return Probes(features, truth).evaluate(features, truth)


def rotations(vectors: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(vectors).as_matrix().astype(np.float32)


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
        camera_axes=rotations(rng.normal(0, 0.1, (n, 3))),
        contact=rng.random(n) < 0.3,
        episode=np.repeat(np.arange(EPISODES), FRAMES),
    )


def features_of(truth: GroundTruth, informed: bool) -> Features:
    """Patch tokens that hold depth and class, class tokens that hold all else, in a random basis; or noise."""
    generator = torch.Generator().manual_seed(0)
    n = len(truth.images)
    cls, patches = torch.randn(n, 2, D, generator=generator), torch.randn(n, GRID, GRID, D, generator=generator)
    if informed:
        step = PIXELS // GRID
        patches[..., 0] = torch.from_numpy(truth.depth[:, ::step, ::step])
        patches[..., 1] = torch.from_numpy(truth.classes[:, ::step, ::step]).float()
        cls[:, 0, :3] = torch.from_numpy(truth.positions["cube"])
        cls[:, 0, 3] = torch.from_numpy(truth.contact).float()
        cls[:, 1, :9] = torch.from_numpy(truth.camera_axes).flatten(1)
        basis = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
        cls, patches = cls @ basis, patches @ basis
    return Features(cls, patches)


def test_probes_recover_depth_classes_and_positions(truth: GroundTruth) -> None:
    result, pictures = probe(features_of(truth, informed=True), truth)
    nothing, _ = probe(features_of(truth, informed=False), truth)
    assert result.linear.depth_rmse_m < 0.5 * result.no_features.depth_rmse_m
    assert nothing.linear.depth_rmse_m > 0.95 * nothing.no_features.depth_rmse_m
    assert result.linear.miou > 0.8 > nothing.linear.miou
    assert set(result.linear.iou) == {"near", "far"}
    assert result.positions["cube"].class_tokens < 5 < 50 < nothing.positions["cube"].class_tokens
    assert result.train_frames + result.test_frames == len(truth.images)
    assert pictures.predicted_depth.shape == pictures.depth.shape == (result.test_frames, PIXELS, PIXELS)


def test_probes_recover_orientation_and_contact(truth: GroundTruth) -> None:
    result, _ = probe(features_of(truth, informed=True), truth)
    nothing, _ = probe(features_of(truth, informed=False), truth)
    assert result.camera_angle is not None
    assert nothing.camera_angle is not None
    assert result.camera_angle.class_tokens < 0.2 * result.camera_angle.mean
    assert nothing.camera_angle.class_tokens > 0.8 * nothing.camera_angle.mean
    assert result.contact is not None
    assert nothing.contact is not None
    assert result.contact.class_tokens > 0.95
    assert 0.2 < nothing.contact.class_tokens < 0.8


def test_knn_probes_follow_a_dominant_feature(truth: GroundTruth) -> None:
    features = features_of(truth, informed=True)
    features.patches *= 0.1
    step = PIXELS // GRID
    features.patches[..., 0] += 5 * torch.from_numpy(truth.depth[:, ::step, ::step]) - 6.25
    informed, nothing = probe(features, truth)[0].knn, probe(features_of(truth, informed=False), truth)[0].knn
    assert informed.miou > 0.8 > nothing.miou
    assert informed.depth_rmse_m < 0.9 * nothing.depth_rmse_m
    assert informed.depth_delta1 > nothing.depth_delta1


def test_constant_orientation_and_contact_have_no_probe(truth: GroundTruth) -> None:
    truth.camera_axes[:] = np.eye(3)
    truth.contact[:] = False
    result, _ = probe(features_of(truth, informed=True), dataclasses.replace(truth, positions={}))
    assert result.camera_angle is None
    assert result.contact is None
    assert result.positions == {}


def test_fitted_probes_are_evaluated_on_other_frames(truth: GroundTruth) -> None:
    features = features_of(truth, informed=True)
    probes = Probes(features, truth)
    own = probes.evaluate(features, truth)[0]
    turned = Features(features.cls.flip(-1), features.patches.flip(-1))
    carried = probes.evaluate(turned, truth)[0]
    assert own == probe(features, truth)[0]
    assert carried.linear.depth_rmse_m > own.linear.depth_rmse_m
    assert carried.positions["cube"].class_tokens > own.positions["cube"].class_tokens


def test_baseline_without_features_is_the_per_pixel_mean_and_mode(truth: GroundTruth) -> None:
    held = split_episodes(truth.episode, 0.25)
    rows = np.arange(PIXELS)[:, None]
    # Depth grows downwards, the same in every training frame; what is measured lies a metre deeper in its left half.
    truth.depth[:] = 1 + rows / PIXELS
    truth.depth[held, :, : PIXELS // 2] += 1
    # One training frame in five shows `absent` all over; it is nowhere the most frequent.
    truth.classes[:] = (rows >= PIXELS // 4).astype(np.int32)
    truth.classes[np.flatnonzero(~held)[::5]] = 2
    truth.classes[np.flatnonzero(held)[0]] = 2
    found = probe(features_of(truth, informed=False), truth)[0].no_features
    assert found.depth_rmse_m == pytest.approx(0.5**0.5)
    assert found.depth_delta1 == 0.5
    measured = held.sum()
    assert found.iou == pytest.approx({"near": 1 - 1 / measured, "far": 1 - 1 / measured, "absent": 0.0})
    assert found.miou == pytest.approx(sum(found.iou.values()) / 3)


def test_two_episodes_are_too_few(truth: GroundTruth) -> None:
    two = dataclasses.replace(truth, episode=truth.episode % 2)
    with pytest.raises(UserError, match="at least 3 episodes, not 2"):
        probe(features_of(two, informed=True), two)


def test_t_interval_covers_the_mean_of_few_episodes() -> None:
    # t(0.975, 2) = 4.3027, where the normal distribution would say 1.96.
    assert t_half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, abs=1e-4)
    generator = np.random.default_rng(0)
    draws = generator.normal(5, 1, (400, 4))
    covered = [abs(row.mean() - 5) <= t_half_width(row.tolist()) for row in draws]
    assert 0.92 < np.mean(covered) < 0.98


def test_the_interval_of_a_position_is_over_episodes(truth: GroundTruth) -> None:
    """Frames of an episode are alike: with four times as many of them it is not half as wide."""
    found = probe(features_of(truth, informed=False), truth)[0].positions["cube"]
    again = np.repeat(np.arange(len(truth.images)), 4)
    names = ("images", "depth", "classes", "camera_axes", "contact", "episode")
    frames = {name: getattr(truth, name)[again] for name in names}
    more = dataclasses.replace(truth, **frames, positions={"cube": truth.positions["cube"][again]})
    features = features_of(truth, informed=False).map(lambda tensor: tensor[again])
    wider = probe(features, more)[0].positions["cube"]
    assert wider.patches_half_width == pytest.approx(found.patches_half_width, rel=0.3)


def test_features_are_extracted_in_evaluation_mode() -> None:
    config = EncoderConfig(size="tiny", patch=8, image_size=16, drop_path=0.9)
    encoder, images = PixioEncoder(config).train(), np.zeros((8, 16, 16, 3), np.uint8)
    found = extract_features(encoder, images, torch.device("cpu"), batch=3)
    torch.testing.assert_close(found.cls, found.cls[:1].expand(8, -1, -1), atol=1e-4, rtol=0)


def test_delta1_counts_underestimated_depth_as_wrong() -> None:
    depth = np.full((1, 2, 2), 1.0, np.float32)
    read = np.array([[[1.0, 1.2], [1.3, 0.7]]], np.float32)
    classes = np.zeros((1, 2, 2), np.int32)
    assert dense_scores(read, classes, depth, classes, ["one"]).depth_delta1 == 0.5


def test_roc_area_counts_pairs() -> None:
    positive = np.array([True, False, True, False])
    assert roc_area(np.array([3.0, 2.0, 4.0, 1.0]), positive) == 1.0
    assert roc_area(np.array([1.0, 2.0, 0.0, 3.0]), positive) == 0.0
    assert roc_area(np.zeros(4), positive) == 0.5
    assert roc_area(np.array([2.0, 1.0, 0.0, 3.0]), positive) == 0.25


def test_episodes_are_not_split_between_training_and_test(truth: GroundTruth) -> None:
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
    read = Ridge(x.float()).solve(y.float(), torch.full((2,), strength))(x.float())
    torch.testing.assert_close(read, (z @ weights + y.mean(0)).float(), atol=2e-3, rtol=1e-3)


def test_features_that_hardly_vary_in_training_do_not_dominate() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 10, generator=generator)
    y = x[:, :4] @ torch.randn(4, 2, generator=generator)
    x[:, 8] = 0.1  # constant, but for rounding when it is averaged
    x[:, 9] = 1e-4 * torch.randn(120, generator=generator)
    read = fit_ridge(x, [y], np.repeat(np.arange(24), 5))
    elsewhere = x.clone()
    elsewhere[:, 8:] = torch.randn(120, 2, generator=generator)
    assert (read(x) - y).square().mean() < 0.01 * y.var()
    assert (read(elsewhere) - y).square().mean() < 0.5 * y.var()
    alone = elsewhere.clone()
    alone[:, 9] = x[:, 9]
    assert torch.equal(read(alone), read(x))
    assert torch.equal(fit_ridge(torch.ones(120, 3), [y], np.repeat(np.arange(24), 5))(torch.zeros(2, 3))[0], y.mean(0))


def test_each_target_has_its_own_penalty_whatever_is_fitted_beside_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 90, generator=generator)
    clear = x @ torch.randn(90, 3, generator=generator)
    noise = torch.randn(60, 1, generator=generator)
    groups = np.repeat(np.arange(12), 5)
    both = fit_ridge(x, [clear, noise], groups)(x)
    for part, target in ((both[:, :3], clear), (both[:, 3:], noise)):
        torch.testing.assert_close(part, fit_ridge(x, [target], groups)(x), atol=1e-4, rtol=1e-4)


def test_a_fitted_ridge_keeps_no_features() -> None:
    x = torch.randn(40, 5000)
    read = fit_ridge(x, [torch.randn(40, 2)], np.repeat(np.arange(8), 5))
    held = [cell.cell_contents for cell in read.__closure__ or ()]
    assert sum(each.nbytes for each in held if isinstance(each, torch.Tensor)) < 0.2 * x.nbytes
    assert not [each for each in held if isinstance(each, Ridge)]


def test_softmax_regression_is_at_its_optimum_and_the_same_again() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0, 0.0])
    classes = (x[:, 0] + x[:, 1] / 10 + torch.randn(400, generator=generator) > 0).long()
    shares = torch.nn.functional.one_hot(classes, 3).float()
    groups = np.repeat(np.arange(20), 20)
    read = fit_softmax_regression(x, shares, groups)(x)
    assert (read.argmax(1) == classes).float().mean() > 0.75
    torch.testing.assert_close(read.sum(1), torch.ones(400))
    # At the optimum the offset, which has no penalty, makes the mean prediction the mean share.
    torch.testing.assert_close(read.mean(0), shares.mean(0), atol=2e-3, rtol=0)
    assert torch.equal(read, fit_softmax_regression(x, shares, groups)(x))


def test_softmax_regression_predicts_a_small_class(truth: GroundTruth) -> None:
    """An object on a twentieth of the patches, which a linear map of the features separates."""
    generator = torch.Generator().manual_seed(0)
    n, step = len(truth.images), PIXELS // GRID
    small = torch.rand(n, GRID, GRID, generator=generator) < 0.05
    features = features_of(truth, informed=False)
    features.patches[..., :3] += 2.0 * small[..., None]
    truth.classes[:] = np.kron(small.numpy(), np.ones((step, step), bool)).astype(np.int32)
    result, _ = probe(features, truth)
    assert result.linear.iou["far"] > 0.3


def test_nearest_of_a_known_frame_is_itself() -> None:
    x, y = torch.eye(6), torch.arange(6.0)[:, None]
    torch.testing.assert_close(fit_knn(x, y, k=1)(x), y)


def test_dense_neighbours_are_weighted_by_how_near_they_are() -> None:
    known = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    values = torch.tensor([[1.0], [2.0], [30.0]])
    weights = torch.softmax(torch.tensor([1.0, 0.8, -1.0]) / 0.02, 0)
    torch.testing.assert_close(fit_patch_knn(known, values)(torch.tensor([[2.0, 0.0]]))[0], weights @ values)


def test_equal_features_give_equal_probe_results(truth: GroundTruth) -> None:
    features = features_of(truth, informed=True)
    assert probe(features, truth)[0] == probe(features, truth)[0]
