"""Probe frozen features with linear maps (ridge regression; softmax regression for classes) and nearest neighbours.

Every target is fitted on some episodes and tested on others, of the same data set or of another level of visual
variation. Everything is closed-form or convex, so the results do not depend on how well a head was tuned.
Shapes: n frames, h w the patch map or pixels, d features, c outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.errors import UserError
from pixio_robot.student_t import t_half_width
from pixio_robot.types import Features, GroundTruth
from pixio_robot.vision.probing.regressors import Predict, fit_knn, fit_patch_knn, fit_ridge, split_episodes
from pixio_robot.vision.probing.softmax_regression import fit_softmax_regression

VERSION = 3
"""Increase whenever equal features would give other numbers: results of different versions are not compared."""
TEST_SHARE = 0.25
MIN_EPISODES = 3
PATCHES_PER_FRAME = 64
POSITION_PREFIX, CAMERA, CONTACT = "at ", "camera axes", "contact"
"""Names of the per-frame targets; that of a position is POSITION_PREFIX and its name."""
DELTA_THRESHOLD = 1.25
"""Threshold of delta1 (Eigen et al. 2014, NYUv2)."""


@dataclasses.dataclass(kw_only=True)
class PositionErrors:
    """Mean distance between predicted and true position [cm]."""

    mean: float
    """Without features: predict the mean of the training frames."""
    knn: float
    class_tokens: float
    patches: float
    patches_half_width: float | None
    """Half width of a 95 % interval of `patches` over held-out episodes; None with only one."""


@dataclasses.dataclass(kw_only=True)
class AngleErrors:
    """Mean angle between predicted and true orientation [degrees]."""

    mean: float
    knn: float
    class_tokens: float
    patches: float


@dataclasses.dataclass(kw_only=True)
class ContactScores:
    """Area under the ROC curve for detecting frames with contact; 0.5 is chance."""

    share: float
    """Fraction of test frames with contact."""
    knn: float
    class_tokens: float
    patches: float


@dataclasses.dataclass(kw_only=True)
class DenseScores:
    """Depth and segmentation metrics over all pixels of the test frames."""

    depth_rmse_m: float
    depth_delta1: float
    """Fraction of pixels within a factor of 1.25."""
    miou: float
    iou: dict[str, float]


@dataclasses.dataclass(kw_only=True)
class ProbeResult:
    """Results of one encoder on one set of frames."""

    linear: DenseScores
    knn: DenseScores
    no_features: DenseScores
    """Baseline that ignores the image: predicts, for each pixel, the mean depth and most frequent class of the training
    frames. A class that is nowhere the most frequent has an IoU of 0."""
    positions: dict[str, PositionErrors]
    camera_angle: AngleErrors | None
    """None if the camera's orientation does not vary."""
    contact: ContactScores | None
    """None if contact always or never occurs in the training or the test frames."""
    train_frames: int
    test_frames: int


@dataclasses.dataclass
class DensePredictions:
    """Test frames with the predictions of the linear probe; depth (n, h, w), classes (n, h, w)."""

    images: np.ndarray
    depth: np.ndarray
    predicted_depth: np.ndarray
    classes: np.ndarray
    predicted_classes: np.ndarray


def extract_features(encoder: nn.Module, images: np.ndarray, device: torch.device, batch: int = 64) -> Features:
    """Features of all frames, float32 on the CPU."""
    encoder.eval().to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            features = encoder(torch.from_numpy(images[start : start + batch]).to(device))
            parts.append(features.map(lambda tensor: tensor.float().cpu()))
    return Features(torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts]))


class Probes:
    """Probes fitted on the training episodes of some frames, to be tested on held-out episodes of these or others."""

    def __init__(self, features: Features, truth: GroundTruth) -> None:
        """Raises UserError for fewer than three episodes."""
        if (episodes := len(np.unique(truth.episode))) < MIN_EPISODES:
            raise UserError(
                f"Probing needs frames from at least {MIN_EPISODES} episodes, not {episodes}: for fitting, for "
                "selecting the penalty and for testing."
            )
        train = ~split_episodes(truth.episode, TEST_SHARE)
        self._train_frames = int(train.sum())
        self._class_names = list(truth.class_names)
        self._mean_depth_hw = truth.depth[train].mean(0, dtype=np.float64)
        counts = [(truth.classes[train] == index).sum(0) for index in range(len(truth.class_names))]
        self._most_frequent_class_hw = np.argmax(counts, axis=0)
        self._dense = _fit_dense(features, truth, train)
        kept, contact_share = torch.from_numpy(train), truth.contact[train].mean()
        targets = {f"{POSITION_PREFIX}{name}": position for name, position in truth.positions.items()}
        if _rotation_varies(truth.camera_axes[train]):
            targets[CAMERA] = _rotation_to_6d(truth.camera_axes)
        if 0 < contact_share < 1:
            targets[CONTACT] = truth.contact[:, None].astype(np.float32)
        train_targets = {name: torch.from_numpy(values[train]) for name, values in targets.items()}
        train_features = features.map(lambda tensor: tensor[kept])
        self._frame_probes = (
            _FrameProbes(train_features, train_targets, truth.episode[train]) if train_targets else None
        )

    def evaluate(self, features: Features, truth: GroundTruth) -> tuple[ProbeResult, DensePredictions]:
        """Test on the held-out episodes of these frames, which must have the same classes as the fitted ones."""
        test = split_episodes(truth.episode, TEST_SHARE)
        kept = torch.from_numpy(test)
        features = features.map(lambda tensor: tensor[kept])
        depth, classes, episode = truth.depth[test], truth.classes[test], truth.episode[test]
        predictions = {} if self._frame_probes is None else self._frame_probes.predict(features)
        linear, knn = (_predict_dense(predict, features, depth.shape[1:]) for predict in self._dense)
        result = ProbeResult(
            linear=_dense_scores(*linear, depth, classes, self._class_names),
            knn=_dense_scores(*knn, depth, classes, self._class_names),
            no_features=_dense_scores(
                np.broadcast_to(self._mean_depth_hw, depth.shape),
                np.broadcast_to(self._most_frequent_class_hw, classes.shape),
                depth,
                classes,
                self._class_names,
            ),
            positions={
                name: _position_errors(predictions[f"{POSITION_PREFIX}{name}"], position[test], episode)
                for name, position in truth.positions.items()
                if f"{POSITION_PREFIX}{name}" in predictions
            },
            camera_angle=_angle_errors(predictions[CAMERA], truth.camera_axes[test]) if CAMERA in predictions else None,
            contact=_contact_scores(predictions[CONTACT], truth.contact[test]) if CONTACT in predictions else None,
            train_frames=self._train_frames,
            test_frames=int(test.sum()),
        )
        return result, DensePredictions(truth.images[test], depth, linear[0], classes, linear[1])


Predictions = dict[str, np.ndarray]
"""Predictions {method: (n, c)} of a per-frame target; `mean` is the baseline without features."""


class _FrameProbes:
    """Per-frame targets, predicted from the patch map, from the class tokens, and by nearest neighbours."""

    def __init__(self, features: Features, targets: Mapping[str, Tensor], groups: np.ndarray) -> None:
        self._widths = {name: target.shape[1] for name, target in targets.items()}
        targets_nc = torch.cat(list(targets.values()), 1)
        self._mean_c = targets_nc.mean(0)
        self._patches = fit_ridge(features.patches.flatten(1), list(targets.values()), groups)
        self._class_tokens = fit_ridge(features.cls.flatten(1), list(targets.values()), groups)
        self._knn = fit_knn(features.cls.mean(1), targets_nc)

    def predict(self, features: Features) -> dict[str, Predictions]:
        """Predictions of each target."""
        methods = {
            "mean": self._mean_c.expand(len(features.cls), -1),
            "knn": self._knn(features.cls.mean(1)),
            "class_tokens": self._class_tokens(features.cls.flatten(1)),
            "patches": self._patches(features.patches.flatten(1)),
        }
        parts = {method: values.split(list(self._widths.values()), 1) for method, values in methods.items()}
        return {name: {method: parts[method][i].numpy() for method in methods} for i, name in enumerate(self._widths)}


def _fit_dense(features: Features, truth: GroundTruth, train: np.ndarray) -> tuple[Predict, Predict]:
    """Fit depth and class fractions per patch on some patches of every training frame: by linear maps (ridge regression
    for depth, softmax regression for classes), and by neighbours."""
    n, rows, columns, d = features.patches.shape
    shares = torch.stack([torch.from_numpy(truth.classes == index) for index in range(len(truth.class_names))], 1)
    targets = torch.cat([torch.from_numpy(truth.depth)[:, None], shares.float()], 1)
    targets_npc = functional.adaptive_avg_pool2d(targets, (rows, columns)).permute(0, 2, 3, 1).flatten(1, 2)
    chosen = _sample_patches(n, rows * columns)
    kept = torch.from_numpy(train)
    inputs = features.patches.flatten(1, 2).gather(1, chosen[..., None].expand(-1, -1, d))[kept]
    target_patches = targets_npc.gather(1, chosen[..., None].expand(-1, -1, targets_npc.shape[-1]))[kept]
    inputs, target_patches = inputs.flatten(0, 1), target_patches.flatten(0, 1)
    groups = np.repeat(truth.episode[train], chosen.shape[1])
    depth, classes = (
        fit_ridge(inputs, [target_patches[:, :1]], groups),
        fit_softmax_regression(inputs, target_patches[:, 1:], groups),
    )
    return lambda each: torch.cat([depth(each), classes(each)], 1), fit_patch_knn(inputs, target_patches)


def _predict_dense(predict: Predict, features: Features, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Depth and class of every pixel, from the patch predictions upsampled bilinearly."""
    n, rows, columns, _ = features.patches.shape
    predicted_nhwc = predict(features.patches.flatten(0, 2)).reshape(n, rows, columns, -1)
    upsampled = functional.interpolate(
        predicted_nhwc.permute(0, 3, 1, 2), tuple(size), mode="bilinear", align_corners=False
    )
    return upsampled[:, 0].numpy(), upsampled[:, 1:].argmax(1).numpy().astype(np.int32)


def _sample_patches(frames: int, patches: int) -> Tensor:
    """Random indices (frames, at most PATCHES_PER_FRAME) of the patches to fit on, different in every frame."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(frames, patches, generator=generator).argsort(1)[:, :PATCHES_PER_FRAME]


def _dense_scores(
    predicted_depth: np.ndarray,
    predicted_classes: np.ndarray,
    depth: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
) -> DenseScores:
    ratio = np.maximum(predicted_depth / depth, depth / np.maximum(predicted_depth, 1e-3))
    iou = _iou_per_class(predicted_classes, classes, names)
    return DenseScores(
        depth_rmse_m=_rms(predicted_depth - depth),
        depth_delta1=float((ratio < DELTA_THRESHOLD).mean()),
        miou=float(np.mean(list(iou.values()))),
        iou=iou,
    )


def _position_errors(predictions: Predictions, position_n3: np.ndarray, episode: np.ndarray) -> PositionErrors:
    errors = {
        method: 100 * np.linalg.norm(predicted - position_n3, axis=-1) for method, predicted in predictions.items()
    }
    means = [float(errors["patches"][episode == name].mean()) for name in np.unique(episode)]
    margin = t_half_width(means) if len(means) > 1 else None
    return PositionErrors(patches_half_width=margin, **_means(errors))


def _angle_errors(predictions: Predictions, axes_n33: np.ndarray) -> AngleErrors:
    return AngleErrors(
        **_means({method: _rotation_angles(_rotation_from_6d(six), axes_n33) for method, six in predictions.items()})
    )


def _contact_scores(predictions: Predictions, contact_n: np.ndarray) -> ContactScores | None:
    if not 0 < contact_n.mean() < 1:
        return None
    areas = {method: roc_area(predictions[method][:, 0], contact_n) for method in ("knn", "class_tokens", "patches")}
    return ContactScores(share=float(contact_n.mean()), **areas)


def roc_area(scores_n: np.ndarray, positive_n: np.ndarray) -> float:
    """Area under the ROC curve: fraction of positive-negative pairs ranked correctly; ties count half."""
    above = scores_n[positive_n][:, None] - scores_n[~positive_n][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def _rotation_to_6d(axes_n33: np.ndarray) -> np.ndarray:
    """The first two columns, float32 (n, 6): continuous in the rotation (Zhou et al. 2019, arXiv 1812.07035)."""
    return np.concatenate([axes_n33[:, :, 0], axes_n33[:, :, 1]], axis=1).astype(np.float32)


def _rotation_from_6d(six_n6: np.ndarray) -> np.ndarray:
    """Inverse of `_rotation_to_6d` for approximate values: orthonormalise the columns."""
    x = six_n6[:, :3] / np.linalg.norm(six_n6[:, :3], axis=1, keepdims=True)
    y = six_n6[:, 3:] - (six_n6[:, 3:] * x).sum(1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=2)


def _rotation_angles(first_n33: np.ndarray, second_n33: np.ndarray) -> np.ndarray:
    """Angle (n,) between rotations [degrees]."""
    trace = np.einsum("nij,nij->n", first_n33, second_n33)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def _rotation_varies(axes_n33: np.ndarray) -> bool:
    return bool(axes_n33.std(0).max() > 1e-3)


def _iou_per_class(predicted: np.ndarray, true: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Intersection over union of each class that occurs, over all pixels of all frames."""
    iou = {}
    for index, name in enumerate(names):
        in_prediction, in_truth = predicted == index, true == index
        if in_truth.any():
            iou[name] = float((in_prediction & in_truth).sum() / (in_prediction | in_truth).sum())
    return iou


def _means(errors: dict[str, np.ndarray]) -> dict[str, Any]:
    return {method: float(values.mean()) for method, values in errors.items()}


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.square(difference, dtype=np.float64).mean()))
