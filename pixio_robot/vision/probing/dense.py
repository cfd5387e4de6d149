"""Probes of depth and class in every patch.

Shapes: n frames, h w the patch map or pixels, p patches, d features, c outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.types import Features, GroundTruth
from pixio_robot.vision.probing.regressors import Predict, fit_patch_knn, fit_ridge
from pixio_robot.vision.probing.softmax_regression import fit_softmax_regression

PATCHES_PER_FRAME = 64


def fit_dense(features: Features, truth: GroundTruth, train: np.ndarray) -> tuple[Predict, Predict]:
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


def predict_dense(predict: Predict, features: Features, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
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
