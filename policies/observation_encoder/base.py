"""The base of observation encoders: from images or cached features to standardised features of each camera.

Shapes: b batch, t frames, n = b t flattened frames, k class tokens, h rows, w columns, d feature.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec, Features, Observation
from policies.config import ConditioningConfig
from policies.normalisation import Normaliser
from policies.observation_encoder.augmentation import add_feature_noise, centre_crop, random_crop, shift_and_jitter
from policies.observation_encoder.standardisation import RunningMoments, Standardiser
from policies.relative_poses import RELATIVE, RelativePoses, require_relative_range


@dataclasses.dataclass(frozen=True)
class FeatureShape:
    """Shape of the features of one frame of one camera."""

    class_tokens: int
    rows: int
    columns: int
    dim: int


class ObservationEncoder(nn.Module):
    """Features of every camera, and the normalised state. Images and features cached from them give the same result.

    An encoder with no parameter that requires a gradient is frozen: it stays in evaluation mode and runs without
    autograd. `pixio_robot.vision.adapt` decides which parameters require a gradient.
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
        if not (config.cameras or config.use_state):
            raise UserError(
                "The policy has no input, neither cameras nor state: give it an encoder, or set use_state to true."
            )
        for camera in config.cameras:
            if camera not in spec.cameras:
                raise unknown_name("camera", camera, spec.cameras)
        if config.cameras and encoder is None:
            raise UserError(f"A policy with cameras = {list(config.cameras)} needs an encoder, but none was given.")
        self.config = config
        self.observation_steps = observation_steps
        self.encoder = encoder if config.cameras else None
        # The first camera uses `encoder`, the others those below `further`: names that saved policies contain.
        self.further = nn.ModuleDict({"encoder": nn.ModuleList()})
        if self.encoder is not None and not config.share_encoder:
            copies = [copy.deepcopy(self.encoder) for _ in config.cameras[1:]]
            self.further["encoder"] = nn.ModuleList(copies)
        self.state = None
        self.relative_state = RelativePoses.of_state(spec) if config.obs_pose_repr == RELATIVE else None
        if config.use_state:
            state_range = (
                statistics.state if self.relative_state is None else require_relative_range(statistics.relative_state)
            )
            self.state = Normaliser(config.state_normalisation, state_range, spec.state_names, config.state_min_std)
        self.state_dim = spec.state_dim if config.use_state else 0
        self.goal = nn.Linear(config.goal_dim, self.goal_width) if config.goal_dim else None
        # The standardisers of class tokens and patches, under names that saved policies contain. They are in the order
        # of `cameras`, because camera names may contain dots, which module names must not.
        self.cls = nn.ModuleList()
        self.patches = nn.ModuleList()
        self.shapes: list[FeatureShape] = []
        device = next((weight.device for encoder in self.encoders for weight in encoder.parameters()), None)
        for index, camera in enumerate(config.cameras):
            size = spec.cameras[camera]
            blank = torch.zeros(1, 1, size.height, size.width, 3, dtype=torch.uint8, device=device)
            sample = self._encode_sample(self._crop_and_augment(blank, augment=False).flatten(0, 1), index)
            shape = FeatureShape(sample.cls.shape[1], *sample.patches.shape[1:])
            self.shapes.append(shape)
            self.cls.append(Standardiser((shape.class_tokens, shape.dim)))
            self.patches.append(Standardiser((shape.rows, shape.columns, shape.dim)))

    @property
    def goal_width(self) -> int:
        """Dimension of the projected goal; 0 for a policy that is not goal-conditioned."""
        return self.config.goal_width if self.config.goal_dim else 0

    def project_goal(self, observation: Observation) -> Tensor | None:
        """The projected goal (b, goal_width); None if not goal-conditioned. Raises UserError for a wrong length."""
        if self.goal is None:
            return None
        shape = (len(observation.state), self.config.goal_dim)
        if observation.goal is None or observation.goal.shape != shape:
            given = "none" if observation.goal is None else f"one of shape {tuple(observation.goal.shape)}"
            raise UserError(f"The policy needs a goal of shape {shape}, but the observation has {given}.")
        return self.goal(observation.goal.float())

    @property
    def encoder_is_frozen(self) -> bool:
        return not any(parameter.requires_grad for encoder in self.encoders for parameter in encoder.parameters())

    def train(self, mode: bool = True) -> ObservationEncoder:
        super().train(mode)
        # Frozen parts stay in evaluation mode: BatchNorm in a frozen part of an encoder keeps its statistics.
        for part in (part for encoder in self.encoders for part in encoder.modules()):
            weights = list(part.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                part.eval()
        return self

    def freeze_encoder(self) -> None:
        for encoder in self.encoders:
            encoder.requires_grad_(False).eval()

    def normalised_state(self, observation: Observation) -> Tensor | None:
        """(b, t, s); None for a policy that does not use the state. Raises UserError for a wrong number of frames."""
        steps = observation.state.shape[1]
        if steps != self.observation_steps:
            raise UserError(f"The observation has {steps} frames, but the policy needs {self.observation_steps}.")
        if self.state is None:
            return None
        state_bts = observation.state.float()
        if self.relative_state is not None:
            state_bts = self.relative_state.to_frame(state_bts, state_bts[:, -1])
        return self.state(state_bts)

    def features(self, observation: Observation, augment: bool = False) -> list[Features]:
        """The features of each camera, with leading axis n. `augment`: augment images and features as configured."""
        noise, frames = self.config.feature_noise if augment else 0.0, observation.state.shape[1]
        features = []
        for index in range(len(self.config.cameras)):
            raw = self._features(observation, index, augment)
            if self.config.standardise:
                seen = Features(self.cls[index](raw.cls), self.patches[index](raw.patches))
            else:
                seen = raw.map(Tensor.float)
            features.append(seen.map(lambda x: add_feature_noise(x, noise, frames)) if noise else seen)
        return features

    @torch.no_grad()
    def prepare(self, observations: Iterable[Observation]) -> None:
        """Fit the standardisation of features; does nothing for a policy without cameras or with `standardise` off."""
        if not self.config.cameras or not self.config.standardise:
            return
        moments = [
            (RunningMoments(tuple(cls.mean.shape)), RunningMoments(tuple(patches.mean.shape)))
            for cls, patches in self._standardisers()
        ]
        for observation in observations:
            for index, (cls, patches) in enumerate(moments):
                features = self._features(observation, index, augment=False)
                cls.add(features.cls)
                patches.add(features.patches)
        if not moments[0][0].count:
            raise UserError("There are no observations on which to fit the standardisation of features.")
        for (cls, patches), (of_cls, of_patches) in zip(self._standardisers(), moments, strict=True):
            cls.fit(of_cls)
            patches.fit(of_patches)

    def _standardisers(self) -> Iterable[tuple[Standardiser, Standardiser]]:
        return zip(self.cls, self.patches, strict=True)  # pyright: ignore[reportReturnType]

    @property
    def encoders(self) -> list[nn.Module]:
        """One encoder for all cameras, or one for each; empty for a policy without cameras."""
        first = [] if self.encoder is None else [self.encoder]
        return first + list(self.further["encoder"].children())

    def _features(self, observation: Observation, index: int, augment: bool) -> Features:
        camera = self.config.cameras[index]
        if camera in observation.features:
            if not self.encoder_is_frozen:
                raise UserError(
                    f"Cached features of {camera!r} cannot be used to train the encoder: use images, or freeze it."
                )
            cached = observation.features[camera].map(lambda x: x.flatten(0, 1))
            crop_shape = self.config.crop_shape
            if cached.crop != (None if crop_shape is None else tuple(crop_shape)):
                raise UserError(
                    f"Cached features of {camera!r} are of {_describe_crop(cached.crop)}, but the policy uses "
                    f"{_describe_crop(crop_shape)}: cache them with Views(crop=...) of that size, or use images."
                )
            grid = tuple(cached.patches.shape[1:3])
            shape = self.shapes[index]
            if grid != (shape.rows, shape.columns):
                raise UserError(
                    f"Cached features of {camera!r} are maps of {grid} cells, but the policy uses "
                    f"{shape.rows} x {shape.columns}: cache them with this policy's encoder, or use images."
                )
            return cached
        if camera not in observation.images:
            raise UserError(
                f"The observation has no camera {camera!r}; it has images of {sorted(observation.images)} and features "
                f"of {sorted(observation.features)}."
            )
        return self._encode(self._crop_and_augment(observation.images[camera], augment).flatten(0, 1), index)

    def _crop_and_augment(self, images: Tensor, augment: bool) -> Tensor:
        """The input of the encoder: with `augment` a random crop and the other augmentations, else the centre crop."""
        if self.config.crop_shape is not None:
            images = (random_crop if augment else centre_crop)(images, *self.config.crop_shape)
        return shift_and_jitter(images, self.config.random_shift, self.config.color_jitter) if augment else images

    @torch.no_grad()
    def _encode_sample(self, images: Tensor, index: int) -> Features:
        """The features of one image, to find their shape. Computed in evaluation mode, to keep BatchNorm statistics."""
        training = [encoder.training for encoder in self.encoders]
        try:
            for encoder in self.encoders:
                encoder.eval()
            return self._encode(images, index)
        finally:
            for encoder, mode in zip(self.encoders, training, strict=True):
                encoder.train(mode)

    def _encode(self, images: Tensor, index: int) -> Features:
        encoder = self.encoders[0 if self.config.share_encoder else index]
        if self.encoder_is_frozen:
            encoder.eval()  # it may have been frozen after the last call of `train`
            with torch.no_grad():
                return encoder(images)
        return encoder(images)


def _describe_crop(crop: Sequence[int] | None) -> str:
    return "whole images" if crop is None else f"crops of {crop[0]} x {crop[1]} pixels"
