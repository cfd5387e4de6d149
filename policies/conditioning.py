"""What a policy sees, as one vector: pooled features of every camera beside the state, over all frames of the window.

Shapes: b batch, t frames, h rows, w columns, k class tokens, d feature, p pooled, s state, c condition.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec, Features, Observation
from pixio_robot.vision.pooling import build_pooling
from policies.augmentation import random_shift
from policies.config import ConditioningConfig
from policies.normalisation import Normaliser
from policies.standardisation import Moments, Standardiser


class Conditioning(nn.Module):
    """Observation -> (b, c). Images and cached features of them give the same.

    An encoder none of whose parameters requires a gradient is frozen: it stays in evaluation mode and no graph is
    kept of it. `pixio_robot.vision.adapt` decides what requires one.
    """

    def __init__(
        self,
        config: ConditioningConfig,
        observation_steps: int,
        spec: DemoSpec,
        statistics: Statistics,
        encoder: nn.Module | None,
    ):
        super().__init__()
        for camera in config.cameras:
            if camera not in spec.cameras:
                raise unknown_name("camera", camera, spec.cameras)
        if config.cameras and encoder is None:
            raise UserError(f"A policy with cameras = {list(config.cameras)} needs an encoder, and there is none.")
        self.config = config
        self.observation_steps = observation_steps
        self.encoder = encoder if config.cameras else None
        self.state = Normaliser.of_state(config.state_normalisation, statistics) if config.use_state else None
        # Lists in the order of `cameras`, because names of cameras may hold dots, which module names may not.
        self.cls = nn.ModuleList()
        self.patches = nn.ModuleList()
        self.poolings = nn.ModuleList()
        width = spec.state_dim if config.use_state else 0
        for camera in config.cameras:
            size = spec.cameras[camera]
            with torch.no_grad():
                sample = self._encode(torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8))
            class_tokens, rows, columns, dim = sample.cls.shape[1], *sample.patches.shape[1:]
            self.cls.append(Standardiser((class_tokens, dim)))
            self.patches.append(Standardiser((rows, columns, dim)))
            pooling = build_pooling(config.pooling, dim, class_tokens, (rows, columns))
            self.poolings.append(pooling)
            width += pooling.out_dim
        self.out_dim = observation_steps * width

    @property
    def encoder_is_frozen(self) -> bool:
        return self.encoder is None or not any(parameter.requires_grad for parameter in self.encoder.parameters())

    def train(self, mode: bool = True) -> Conditioning:
        super().train(mode)
        if self.encoder is not None and self.encoder_is_frozen:
            self.encoder.eval()
        return self

    def forward(self, observation: Observation, augment: bool = False) -> Tensor:
        """`augment`: shift images at random where the config says so."""
        batch, steps = observation.state.shape[:2]
        if steps != self.observation_steps:
            raise UserError(f"The observation holds {steps} frames, but the policy looks at {self.observation_steps}.")
        parts_btp = [] if self.state is None else [self.state(observation.state.float())]
        for index, camera in enumerate(self.config.cameras):
            features = self._features(observation, camera, augment)
            if self.config.standardise:
                features = Features(self.cls[index](features.cls), self.patches[index](features.patches))
            else:
                features = features.map(Tensor.float)
            pooled = self.poolings[index](features)
            parts_btp.append(pooled.view(batch, steps, -1))
        return torch.cat([part.flatten(1) for part in parts_btp], dim=1)

    @torch.no_grad()
    def prepare(self, observations: Iterable[Observation]) -> None:
        """Fit the standardisation of features; does nothing for a blind policy or with `standardise` off."""
        if not self.config.cameras or not self.config.standardise:
            return
        moments = [
            (Moments(tuple(cls.mean.shape)), Moments(tuple(patches.mean.shape)))
            for cls, patches in self._standardisers()
        ]
        for observation in observations:
            for camera, (cls, patches) in zip(self.config.cameras, moments, strict=True):
                features = self._features(observation, camera, augment=False)
                cls.add(features.cls)
                patches.add(features.patches)
        if not moments[0][0].count:
            raise UserError("There is no observation to fit the standardisation of features on.")
        for (cls, patches), (of_cls, of_patches) in zip(self._standardisers(), moments, strict=True):
            cls.fit(of_cls)
            patches.fit(of_patches)

    def _standardisers(self) -> Iterable[tuple[Standardiser, Standardiser]]:
        return zip(self.cls, self.patches, strict=True)  # pyright: ignore[reportReturnType]

    def _features(self, observation: Observation, camera: str, augment: bool) -> Features:
        """Features of one camera with the leading axis (b t)."""
        if camera in observation.features:
            if not self.encoder_is_frozen:
                raise UserError(f"Cached features of {camera!r} cannot train the encoder: use images, or freeze it.")
            return observation.features[camera].map(lambda x: x.flatten(0, 1))
        if camera not in observation.images:
            raise UserError(
                f"The observation has no camera {camera!r}; it has images of {sorted(observation.images)} and features "
                f"of {sorted(observation.features)}."
            )
        images = observation.images[camera]
        if augment and self.config.random_shift:
            images = random_shift(images, self.config.random_shift)
        return self._encode(images.flatten(0, 1))

    def _encode(self, images: Tensor) -> Features:
        if self.encoder is None:
            raise UserError("A blind policy has no encoder.")
        if self.encoder_is_frozen:
            self.encoder.eval()  # also if it was frozen after the last call of `train`
            with torch.no_grad():
                return self.encoder(images)
        return self.encoder(images)
