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
from pixio_robot.student_t import half_width
from pixio_robot.types import Features, GroundTruth
from pixio_robot.vision.probing.regressors import Predict, nearest, nearest_patches, ridge, split_episodes
from pixio_robot.vision.probing.softmax_regression import softmax_regression

VERSION = 3
"""Increase whenever equal features would give other numbers: results of different versions are not compared."""
TEST_SHARE = 0.25
LEAST_EPISODES = 3
PATCHES_PER_FRAME = 64
AT, CAMERA, CONTACT = "at ", "camera axes", "contact"
"""Names of the per-frame targets; a position's follows AT."""
DELTA = 1.25
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
class DensePictures:
    """Test frames with the predictions of the linear probe; depth (n, h, w), classes (n, h, w)."""

    images: np.ndarray
    depth: np.ndarray
    read_depth: np.ndarray
    classes: np.ndarray
    read_classes: np.ndarray


def extract(encoder: nn.Module, images: np.ndarray, device: torch.device, batch: int = 64) -> Features:
    """Features of all frames, float32 on the CPU."""
    encoder.eval().to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            found = encoder(torch.from_numpy(images[start : start + batch]).to(device))
            parts.append(found.map(lambda tensor: tensor.float().cpu()))
    return Features(torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts]))


class Probes:
    """Probes fitted on the training episodes of some frames, to be tested on held-out episodes of these or others."""

    def __init__(self, features: Features, truth: GroundTruth) -> None:
        """Raises UserError for fewer than three episodes."""
        if (episodes := len(np.unique(truth.episode))) < LEAST_EPISODES:
            raise UserError(
                f"Probing needs frames from at least {LEAST_EPISODES} episodes, not {episodes}: for fitting, for "
                "selecting the penalty and for testing."
            )
        train = ~split_episodes(truth.episode, TEST_SHARE)
        self._train_frames = int(train.sum())
        self._class_names = list(truth.class_names)
        self._mean_depth_hw = truth.depth[train].mean(0, dtype=np.float64)
        counts = [(truth.classes[train] == index).sum(0) for index in range(len(truth.class_names))]
        self._usual_class_hw = np.argmax(counts, axis=0)
        self._dense = _fit_dense(features, truth, train)
        kept, touching = torch.from_numpy(train), truth.contact[train].mean()
        targets = {f"{AT}{name}": at for name, at in truth.positions.items()}
        if _turns(truth.camera_axes[train]):
            targets[CAMERA] = _two_axes(truth.camera_axes)
        if 0 < touching < 1:
            targets[CONTACT] = truth.contact[:, None].astype(np.float32)
        fitted = {name: torch.from_numpy(values[train]) for name, values in targets.items()}
        known = features.map(lambda tensor: tensor[kept])
        self._readers = _Readers(known, fitted, truth.episode[train]) if fitted else None

    def measure(self, features: Features, truth: GroundTruth) -> tuple[ProbeResult, DensePictures]:
        """Test on the held-out episodes of these frames, which must have the same classes as the fitted ones."""
        held = split_episodes(truth.episode, TEST_SHARE)
        kept = torch.from_numpy(held)
        features = features.map(lambda tensor: tensor[kept])
        depth, classes, episode = truth.depth[held], truth.classes[held], truth.episode[held]
        read = {} if self._readers is None else self._readers.read(features)
        linear, knn = (_read_dense(predict, features, depth.shape[1:]) for predict in self._dense)
        result = ProbeResult(
            linear=_dense_scores(*linear, depth, classes, self._class_names),
            knn=_dense_scores(*knn, depth, classes, self._class_names),
            no_features=_dense_scores(
                np.broadcast_to(self._mean_depth_hw, depth.shape),
                np.broadcast_to(self._usual_class_hw, classes.shape),
                depth,
                classes,
                self._class_names,
            ),
            positions={
                name: _position_errors(read[f"{AT}{name}"], at[held], episode)
                for name, at in truth.positions.items()
                if f"{AT}{name}" in read
            },
            camera_angle=_angle_errors(read[CAMERA], truth.camera_axes[held]) if CAMERA in read else None,
            contact=_contact_scores(read[CONTACT], truth.contact[held]) if CONTACT in read else None,
            train_frames=self._train_frames,
            test_frames=int(held.sum()),
        )
        return result, DensePictures(truth.images[held], depth, linear[0], classes, linear[1])


Reading = dict[str, np.ndarray]
"""Predictions {way: (n, c)} of a per-frame target; `mean` is the baseline without features."""


class _Readers:
    """Per-frame targets, predicted from the patch map, from the class tokens, and by nearest neighbours."""

    def __init__(self, features: Features, targets: Mapping[str, Tensor], groups: np.ndarray) -> None:
        self._widths = {name: target.shape[1] for name, target in targets.items()}
        together_nc = torch.cat(list(targets.values()), 1)
        self._mean_c = together_nc.mean(0)
        self._patches = ridge(features.patches.flatten(1), list(targets.values()), groups)
        self._class_tokens = ridge(features.cls.flatten(1), list(targets.values()), groups)
        self._knn = nearest(features.cls.mean(1), together_nc)

    def read(self, features: Features) -> dict[str, Reading]:
        """Predictions of each target."""
        ways = {
            "mean": self._mean_c.expand(len(features.cls), -1),
            "knn": self._knn(features.cls.mean(1)),
            "class_tokens": self._class_tokens(features.cls.flatten(1)),
            "patches": self._patches(features.patches.flatten(1)),
        }
        parts = {way: values.split(list(self._widths.values()), 1) for way, values in ways.items()}
        return {name: {way: parts[way][i].numpy() for way in ways} for i, name in enumerate(self._widths)}


def _fit_dense(features: Features, truth: GroundTruth, train: np.ndarray) -> tuple[Predict, Predict]:
    """Fit depth and class fractions per patch on some patches of every training frame: by linear maps (ridge regression
    for depth, softmax regression for classes), and by neighbours."""
    n, rows, columns, d = features.patches.shape
    shares = torch.stack([torch.from_numpy(truth.classes == index) for index in range(len(truth.class_names))], 1)
    targets = torch.cat([torch.from_numpy(truth.depth)[:, None], shares.float()], 1)
    targets_npc = functional.adaptive_avg_pool2d(targets, (rows, columns)).permute(0, 2, 3, 1).flatten(1, 2)
    chosen = _some_patches(n, rows * columns)
    kept = torch.from_numpy(train)
    inputs = features.patches.flatten(1, 2).gather(1, chosen[..., None].expand(-1, -1, d))[kept]
    wanted = targets_npc.gather(1, chosen[..., None].expand(-1, -1, targets_npc.shape[-1]))[kept]
    inputs, wanted = inputs.flatten(0, 1), wanted.flatten(0, 1)
    groups = np.repeat(truth.episode[train], chosen.shape[1])
    depth, classes = ridge(inputs, [wanted[:, :1]], groups), softmax_regression(inputs, wanted[:, 1:], groups)
    return lambda each: torch.cat([depth(each), classes(each)], 1), nearest_patches(inputs, wanted)


def _read_dense(predict: Predict, features: Features, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Depth and class of every pixel, from the patch predictions upsampled bilinearly."""
    n, rows, columns, _ = features.patches.shape
    read_nhwc = predict(features.patches.flatten(0, 2)).reshape(n, rows, columns, -1)
    read = functional.interpolate(read_nhwc.permute(0, 3, 1, 2), tuple(size), mode="bilinear", align_corners=False)
    return read[:, 0].numpy(), read[:, 1:].argmax(1).numpy().astype(np.int32)


def _some_patches(frames: int, patches: int) -> Tensor:
    """Random indices (frames, at most PATCHES_PER_FRAME) of the patches to fit on, different in every frame."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(frames, patches, generator=generator).argsort(1)[:, :PATCHES_PER_FRAME]


def _dense_scores(
    read_depth: np.ndarray, read_classes: np.ndarray, depth: np.ndarray, classes: np.ndarray, names: Sequence[str]
) -> DenseScores:
    ratio = np.maximum(read_depth / depth, depth / np.maximum(read_depth, 1e-3))
    iou = _iou(read_classes, classes, names)
    return DenseScores(
        depth_rmse_m=_rms(read_depth - depth),
        depth_delta1=float((ratio < DELTA).mean()),
        miou=float(np.mean(list(iou.values()))),
        iou=iou,
    )


def _position_errors(reading: Reading, at_n3: np.ndarray, episode: np.ndarray) -> PositionErrors:
    errors = {way: 100 * np.linalg.norm(read - at_n3, axis=-1) for way, read in reading.items()}
    means = [float(errors["patches"][episode == name].mean()) for name in np.unique(episode)]
    margin = half_width(means) if len(means) > 1 else None
    return PositionErrors(patches_half_width=margin, **_means(errors))


def _angle_errors(reading: Reading, axes_n33: np.ndarray) -> AngleErrors:
    return AngleErrors(**_means({way: _angles(_rotations(six), axes_n33) for way, six in reading.items()}))


def _contact_scores(reading: Reading, contact_n: np.ndarray) -> ContactScores | None:
    if not 0 < contact_n.mean() < 1:
        return None
    areas = {way: roc_area(reading[way][:, 0], contact_n) for way in ("knn", "class_tokens", "patches")}
    return ContactScores(share=float(contact_n.mean()), **areas)


def roc_area(scores_n: np.ndarray, positive_n: np.ndarray) -> float:
    """Area under the ROC curve: fraction of positive-negative pairs ranked correctly; ties count half."""
    above = scores_n[positive_n][:, None] - scores_n[~positive_n][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def _two_axes(axes_n33: np.ndarray) -> np.ndarray:
    """The first two columns, float32 (n, 6): continuous in the rotation (Zhou et al. 2019, arXiv 1812.07035)."""
    return np.concatenate([axes_n33[:, :, 0], axes_n33[:, :, 1]], axis=1).astype(np.float32)


def _rotations(six_n6: np.ndarray) -> np.ndarray:
    """Inverse of `_two_axes` for approximate values: orthonormalise the columns."""
    x = six_n6[:, :3] / np.linalg.norm(six_n6[:, :3], axis=1, keepdims=True)
    y = six_n6[:, 3:] - (six_n6[:, 3:] * x).sum(1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=2)


def _angles(first_n33: np.ndarray, second_n33: np.ndarray) -> np.ndarray:
    """Angle (n,) between rotations [degrees]."""
    trace = np.einsum("nij,nij->n", first_n33, second_n33)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def _turns(axes_n33: np.ndarray) -> bool:
    return bool(axes_n33.std(0).max() > 1e-3)


def _iou(read: np.ndarray, true: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Intersection over union of each class that occurs, over all pixels of all frames."""
    found = {}
    for index, name in enumerate(names):
        here, there = read == index, true == index
        if there.any():
            found[name] = float((here & there).sum() / (here | there).sum())
    return found


def _means(errors: dict[str, np.ndarray]) -> dict[str, Any]:
    return {way: float(values.mean()) for way, values in errors.items()}


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.square(difference, dtype=np.float64).mean()))
