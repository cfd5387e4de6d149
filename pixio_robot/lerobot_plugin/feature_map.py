"""Map LeRobot's observations to a policy's inputs, and check that they match."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.lerobot.features import IMAGES, camera_name
from pixio_robot.observation_checks import check_observation
from pixio_robot.types import DemoSpec, Frame

if TYPE_CHECKING:
    from pixio_robot.lerobot_plugin.policy import PixioRobotConfig

TOLERANCE = 0.1
"""How far images may go beyond 0 and 1, as bicubic resizing makes them; they are clipped."""


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """`cameras[name]`: the feature with the images of a camera; `state`: the features that form the state vector."""

    spec: DemoSpec
    cameras: Mapping[str, str]
    state: Sequence[str]

    @classmethod
    def of(cls, config: PixioRobotConfig, spec: DemoSpec) -> FeatureMap:
        """Match features to cameras by the names that `data import` uses, unless `config` names them. Raises UserError
        for a camera that the policy does not have."""
        for camera in config.cameras:
            if camera not in spec.cameras:
                raise unknown_name("camera of the policy (--policy.cameras)", camera, spec.cameras)
        called = {camera_name(key): key for key in config.image_features}
        cameras = {name: config.cameras.get(name) or called.get(name) or f"{IMAGES}{name}" for name in spec.cameras}
        return cls(spec, cameras, list(config.state) if spec.state_names else [])

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """shapes: feature -> shape without the batch axis. Raises UserError for a mismatch."""
        for camera, key in self.cameras.items():
            size = self.spec.cameras[camera]
            wanted = (3, size.height, size.width)
            if key not in shapes:
                raise UserError(
                    f"There is no feature {key} for the policy's camera {camera!r}, only {', '.join(shapes)}: name "
                    f'its feature with --policy.cameras=\'{{"{camera}": "FEATURE"}}\'.'
                )
            if tuple(shapes[key]) != wanted:
                raise UserError(
                    f"{key} has shape {tuple(shapes[key])}, but the policy's camera {camera!r} needs {wanted}."
                )
        missing = [key for key in self.state if key not in shapes]
        if missing:
            raise UserError(
                f"There is no feature {missing[0]} for the policy's state, only {', '.join(shapes)}: name its "
                "features with --policy.state='[FEATURE, FEATURE]'."
            )
        count = sum(int(np.prod(shapes[key])) for key in self.state)
        if count != self.spec.state_dim:
            raise UserError(
                f"{' and '.join(self.state)} hold {count} numbers, but the policy's state has {self.spec.state_dim}: "
                f"{', '.join(self.spec.state_names)}."
            )

    def batch_size(self, batch: Mapping[str, Tensor]) -> int:
        """The batch size. Raises UserError if the observations do not match the policy."""
        known = {key: tensor for key, tensor in batch.items() if isinstance(tensor, Tensor) and tensor.ndim > 1}
        self.check({key: tensor.shape[1:] for key, tensor in known.items()})
        return len(known[[*self.cameras.values(), *self.state][0]])

    def to_arrays(self, batch: Mapping[str, Tensor], with_images: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Images of each camera uint8 (b, h, w, 3), empty unless `with_images`; state float32 (b, s). They share no
        memory with the batch. Raises UserError for images that are neither uint8 nor from 0 to 1, and for a state that
        is not finite."""
        images = {camera: _pixels(key, batch[key]) for camera, key in self.cameras.items()} if with_images else {}
        parts = [batch[key].float().flatten(1).cpu().numpy() for key in self.state]
        state = np.concatenate(parts, axis=1) if parts else np.zeros((self.batch_size(batch), 0), np.float32)
        check_observation(self.spec, {}, state, (len(state),))
        return images, state

    def to_frames(self, batch: Mapping[str, Tensor], with_images: bool) -> list[Frame]:
        """One frame per row."""
        images, state = self.to_arrays(batch, with_images)
        return [
            Frame({camera: pixels[row] for camera, pixels in images.items()}, state[row]) for row in range(len(state))
        ]


def _pixels(key: str, images: Tensor) -> np.ndarray:
    """Images (b, 3, h, w), uint8 or from 0 to 1 as LeRobot's, as uint8 (b, h, w, 3)."""
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise UserError(f"{key} has dtype {images.dtype}: give uint8 images, or floating-point ones from 0 to 1.")
        images = images.float()
        low, high = (value.item() for value in images.aminmax())
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            raise UserError(
                f"{key} ranges from {low:.4g} to {high:.4g}: give floating-point images from 0 to 1, not normalised "
                "by mean and standard deviation, or uint8 ones."
            )
        images = (images * 255).round().clamp(0, 255).byte()
    # A copy: a policy may look back at them when the caller has filled the same tensor again.
    return images.permute(0, 2, 3, 1).cpu().numpy().copy()
