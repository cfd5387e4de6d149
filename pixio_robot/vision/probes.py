"""What can be read off frozen features by the simplest means: ridge regression and nearest neighbours.

Every target is fitted on whole episodes and measured on other ones. Everything is closed-form, so an encoder's card
does not depend on how well somebody tuned a head. Shapes: n frames, h w the patch map, d features, c outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.errors import UserError
from pixio_robot.types import Features, GroundTruth

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Ridge penalties tried, each times the number of rows, on standardised features."""
TEST_SHARE = 0.25
CHOICE_SHARE = 0.2
"""Of the training episodes, to choose the penalty by."""
PATCHES_PER_FRAME = 64
NEIGHBOURS = 5
DELTA = 1.25
"""Threshold of delta1 (Eigen et al. 2014, NYUv2)."""

Predict = Callable[[Tensor], Tensor]


@dataclasses.dataclass(kw_only=True)
class PositionErrors:
    """Mean distance between read and true position, cm, with the half width of a 95 % interval over episodes."""

    mean: float
    """Without any features: the mean of the training frames."""
    knn: float
    class_tokens: float
    patches: float
    patches_half_width: float


@dataclasses.dataclass(kw_only=True)
class ProbeResult:
    """One encoder's report card on one set of frames."""

    depth_rmse_m: float
    depth_rmse_mean_m: float
    """Of a constant depth, for scale."""
    depth_delta1: float
    """Share of pixels within a factor of 1.25."""
    miou: float
    iou: dict[str, float]
    positions: dict[str, PositionErrors]
    train_frames: int
    test_frames: int


def split_episodes(episode: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Which frames (n,) are held out: those of a random `share` of the episodes, at least one of each kind.

    Raises UserError when there is a single episode.
    """
    names = np.unique(episode)
    if len(names) < 2:
        raise UserError("Probing needs frames of at least two episodes: one to fit, one to measure.")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    return np.isin(episode, np.random.default_rng(seed).permutation(names)[:count])


def extract(encoder: nn.Module, images: np.ndarray, device: torch.device, batch: int = 64) -> Features:
    """Features of all frames, float32 on the CPU."""
    encoder.eval().to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            found = encoder(torch.from_numpy(images[start : start + batch]).to(device))
            parts.append(found.map(lambda tensor: tensor.float().cpu()))
    return Features(torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts]))


def ridge(inputs_nf: Tensor, targets_nc: Tensor, groups: np.ndarray) -> Predict:
    """Ridge regression on standardised inputs; the penalty is chosen on held-out groups."""
    choice = torch.from_numpy(split_episodes(groups, CHOICE_SHARE, seed=1))
    errors = {}
    fit = Ridge(inputs_nf[~choice], targets_nc[~choice])
    for strength in STRENGTHS:
        errors[strength] = float((fit.solve(strength)(inputs_nf[choice]) - targets_nc[choice]).square().mean())
    return Ridge(inputs_nf, targets_nc).solve(min(errors, key=lambda strength: errors[strength]))


class Ridge:
    """One decomposition serves all penalties; of whichever of X'X and XX' is the smaller."""

    def __init__(self, inputs_nf: Tensor, targets_nc: Tensor) -> None:
        self._mean, self._std = inputs_nf.mean(0), inputs_nf.std(0).clamp_min(1e-6)
        self._offset = targets_nc.mean(0)
        x, y = (inputs_nf - self._mean) / self._std, targets_nc - self._offset
        self._rows = len(x)
        self._dual = x.shape[1] > len(x)
        gram = x @ x.T if self._dual else x.T @ x
        self._values, self._vectors = torch.linalg.eigh(gram.double())
        self._right = self._vectors.T @ (y if self._dual else x.T @ y).double()
        self._x = x

    def solve(self, strength: float) -> Predict:
        inner = self._vectors @ (self._right / (self._values.clamp_min(0) + strength * self._rows)[:, None])
        weights = (self._x.T @ inner.float()) if self._dual else inner.float()
        return lambda inputs_nf: ((inputs_nf - self._mean) / self._std) @ weights + self._offset


def nearest(inputs_nf: Tensor, targets_nc: Tensor, k: int = NEIGHBOURS) -> Predict:
    """Mean target of the k nearest training frames, by cosine."""
    known = functional.normalize(inputs_nf, dim=-1)

    def predict(inputs_mf: Tensor) -> Tensor:
        similarity = functional.normalize(inputs_mf, dim=-1) @ known.T
        return targets_nc[similarity.topk(min(k, len(known)), dim=-1).indices].mean(1)

    return predict


def probe(features: Features, truth: GroundTruth) -> tuple[ProbeResult, DensePictures]:
    """Fit and measure every probe on the features of the truth's frames."""
    held = split_episodes(truth.episode, TEST_SHARE)
    depth_nhw, classes_nhw, dense = _dense(features, truth, held)
    true_depth, true_classes = truth.depth[held], truth.classes[held]
    ratio = np.maximum(depth_nhw / true_depth, true_depth / np.maximum(depth_nhw, 1e-3))
    iou = _iou(classes_nhw, true_classes, truth.class_names)
    result = ProbeResult(
        depth_rmse_m=_rms(depth_nhw - true_depth),
        depth_rmse_mean_m=_rms(truth.depth[~held].mean() - true_depth),
        depth_delta1=float((ratio < DELTA).mean()),
        miou=float(np.mean(list(iou.values()))),
        iou=iou,
        positions={name: _position(features, at, truth.episode, held) for name, at in truth.positions.items()},
        train_frames=int((~held).sum()),
        test_frames=int(held.sum()),
    )
    return result, dense


@dataclasses.dataclass
class DensePictures:
    """Held-out frames with what was read off them; depth (n, h, w), classes (n, h, w)."""

    images: np.ndarray
    depth: np.ndarray
    read_depth: np.ndarray
    classes: np.ndarray
    read_classes: np.ndarray


def _dense(features: Features, truth: GroundTruth, held: np.ndarray) -> tuple[np.ndarray, np.ndarray, DensePictures]:
    """Depth and class shares of each patch by ridge, enlarged bilinearly to pixels."""
    n, rows, columns, d = features.patches.shape
    size = truth.depth.shape[1:]
    depth_n1hw = torch.from_numpy(truth.depth)[:, None]
    shares = torch.stack([torch.from_numpy(truth.classes == index) for index in range(len(truth.class_names))], 1)
    targets = torch.cat([depth_n1hw, shares.float()], 1)
    targets_nhwc = functional.adaptive_avg_pool2d(targets, (rows, columns)).permute(0, 2, 3, 1)
    chosen = _some_patches(n, rows * columns)
    train = torch.from_numpy(~held)
    inputs = features.patches.reshape(n, -1, d).gather(1, chosen[..., None].expand(-1, -1, d))[train]
    wanted = targets_nhwc.reshape(n, rows * columns, -1)
    wanted = wanted.gather(1, chosen[..., None].expand(-1, -1, wanted.shape[-1]))[train]
    groups = np.repeat(truth.episode[~held], chosen.shape[1])
    predict = ridge(inputs.reshape(-1, d), wanted.reshape(len(groups), -1), groups)
    read_nhwc = predict(features.patches[~train].reshape(-1, d)).reshape(-1, rows, columns, targets.shape[1])
    read = functional.interpolate(read_nhwc.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False).numpy()
    depth, classes = read[:, 0], read[:, 1:].argmax(1).astype(np.int32)
    pictures = DensePictures(truth.images[held], truth.depth[held], depth, truth.classes[held], classes)
    return depth, classes, pictures


def _some_patches(frames: int, patches: int) -> Tensor:
    """Indices (frames, at most PATCHES_PER_FRAME) of the patches to fit on, other ones in every frame."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(frames, patches, generator=generator).argsort(1)[:, :PATCHES_PER_FRAME]


def _position(features: Features, position_n3: np.ndarray, episode: np.ndarray, held: np.ndarray) -> PositionErrors:
    train, test = torch.from_numpy(~held), torch.from_numpy(held)
    targets = torch.from_numpy(position_n3)
    groups = episode[~held]

    def errors(inputs_nf: Tensor, fit: Callable[[Tensor, Tensor], Predict]) -> np.ndarray:
        read = fit(inputs_nf[train], targets[train])(inputs_nf[test])
        return 100 * (read - targets[test]).norm(dim=-1).numpy()

    def linear(inputs: Tensor, wanted: Tensor) -> Predict:
        return ridge(inputs, wanted, groups)

    by_patches = errors(features.patches.flatten(1), linear)
    means = [by_patches[episode[held] == name].mean() for name in np.unique(episode[held])]
    half = 1.96 * float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    constant = 100 * (targets[train].mean(0) - targets[test]).norm(dim=-1).numpy()
    return PositionErrors(
        mean=float(constant.mean()),
        knn=float(errors(features.cls.mean(1), nearest).mean()),
        class_tokens=float(errors(features.cls.flatten(1), linear).mean()),
        patches=float(by_patches.mean()),
        patches_half_width=half,
    )


def _iou(read: np.ndarray, true: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Intersection over union of each class that occurs, over all pixels of all frames."""
    found = {}
    for index, name in enumerate(names):
        here, there = read == index, true == index
        if there.any():
            found[name] = float((here & there).sum() / (here | there).sum())
    return found


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.square(difference, dtype=np.float64).mean()))
