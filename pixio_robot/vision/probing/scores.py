"""How far predictions are from the truth: the numbers of a report card. Shapes: n frames, h w pixels, c outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixio_robot.student_t import t_half_width
from pixio_robot.vision.probing.rotations import rotation_angles, rotation_from_6d

DELTA_THRESHOLD = 1.25
"""Threshold of delta1 (Eigen et al. 2014, NYUv2)."""

Predictions = dict[str, np.ndarray]
"""Predictions {method: (n, c)} of a per-frame target; `mean` is the baseline without features."""


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


def dense_scores(
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


def position_errors(predictions: Predictions, position_n3: np.ndarray, episode: np.ndarray) -> PositionErrors:
    errors = {
        method: 100 * np.linalg.norm(predicted - position_n3, axis=-1) for method, predicted in predictions.items()
    }
    means = [float(errors["patches"][episode == name].mean()) for name in np.unique(episode)]
    margin = t_half_width(means) if len(means) > 1 else None
    return PositionErrors(patches_half_width=margin, **_means(errors))


def angle_errors(predictions: Predictions, axes_n33: np.ndarray) -> AngleErrors:
    return AngleErrors(
        **_means({method: rotation_angles(rotation_from_6d(six), axes_n33) for method, six in predictions.items()})
    )


def contact_scores(predictions: Predictions, contact_n: np.ndarray) -> ContactScores | None:
    if not 0 < contact_n.mean() < 1:
        return None
    areas = {method: roc_area(predictions[method][:, 0], contact_n) for method in ("knn", "class_tokens", "patches")}
    return ContactScores(share=float(contact_n.mean()), **areas)


def roc_area(scores_n: np.ndarray, positive_n: np.ndarray) -> float:
    """Area under the ROC curve: fraction of positive-negative pairs ranked correctly; ties count half."""
    above = scores_n[positive_n][:, None] - scores_n[~positive_n][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


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
