"""Probe frozen features with linear maps (ridge regression; softmax regression for classes) and nearest neighbours.

Every target is fitted on some episodes and tested on others, of the same data set or of another level of visual
variation. Everything is closed-form or convex, so the results do not depend on how well a head was tuned.
Shapes: n frames, h w the patch map or pixels, d features, c outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.types import Features, GroundTruth
from pixio_robot.vision.probing.dense import fit_dense, predict_dense
from pixio_robot.vision.probing.regressors import fit_knn, fit_ridge, split_episodes
from pixio_robot.vision.probing.rotations import rotation_to_6d, rotation_varies
from pixio_robot.vision.probing.scores import (
    Predictions,
    ProbeResult,
    angle_errors,
    contact_scores,
    dense_scores,
    position_errors,
)

VERSION = 3
"""Increase whenever equal features would give other numbers: results of different versions are not compared."""
TEST_SHARE = 0.25
MIN_EPISODES = 3
POSITION_PREFIX, CAMERA, CONTACT = "at ", "camera axes", "contact"
"""Names of the per-frame targets; that of a position is POSITION_PREFIX and its name."""


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
        self._dense = fit_dense(features, truth, train)
        kept, contact_share = torch.from_numpy(train), truth.contact[train].mean()
        targets = {f"{POSITION_PREFIX}{name}": position for name, position in truth.positions.items()}
        if rotation_varies(truth.camera_axes[train]):
            targets[CAMERA] = rotation_to_6d(truth.camera_axes)
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
        linear, knn = (predict_dense(predict, features, depth.shape[1:]) for predict in self._dense)
        result = ProbeResult(
            linear=dense_scores(*linear, depth, classes, self._class_names),
            knn=dense_scores(*knn, depth, classes, self._class_names),
            no_features=dense_scores(
                np.broadcast_to(self._mean_depth_hw, depth.shape),
                np.broadcast_to(self._most_frequent_class_hw, classes.shape),
                depth,
                classes,
                self._class_names,
            ),
            positions={
                name: position_errors(predictions[f"{POSITION_PREFIX}{name}"], position[test], episode)
                for name, position in truth.positions.items()
                if f"{POSITION_PREFIX}{name}" in predictions
            },
            camera_angle=angle_errors(predictions[CAMERA], truth.camera_axes[test]) if CAMERA in predictions else None,
            contact=contact_scores(predictions[CONTACT], truth.contact[test]) if CONTACT in predictions else None,
            train_frames=self._train_frames,
            test_frames=int(test.sum()),
        )
        return result, DensePredictions(truth.images[test], depth, linear[0], classes, linear[1])


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
