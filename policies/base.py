"""The base class of all chunk policies: conditioning, normalisation both ways, and the mean of the loss.

Shapes: b batch, n steps of the chunk, a action, c condition. `seen` is the encoded observation: a vector (b, c), or
for some policies frames (b, t, p) or tokens (b, m, e).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError
from pixio_robot.types import Batch, DemoSpec, Observation
from policies.config import PolicyConfig
from policies.normalisation import Normaliser
from policies.observation_encoder.base import ObservationEncoder
from policies.observation_encoder.conditioning import Conditioning
from policies.relative_poses import RELATIVE, RelativePoses, require_relative_range
from policies.rotations import find_quaternions, normalize_columns


class ChunkPolicy(nn.Module, abc.ABC):
    """Predicts the next `horizon` actions at once; action 0 belongs to the step of the newest frame.

    It learns chunks of `chunk` actions. The first `past_actions` of them lie before that step and are not executed; at
    most the last `max_padding` may be padding, which then is learned (None: any number, which the loss ignores).
    `goals` maps each task's name to its goal vector, for a goal-conditioned policy (`Observation.goal`).

    `draws`: whether the policy samples its actions with random noise instead of being deterministic.

    A subclass defines the training error of an action chunk (`errors`) and how to generate one (`sample`), both in
    normalised units and given `seen`; `config_class` is the dataclass of its settings, which no other policy shares.
    """

    draws = False
    config_class: ClassVar[type[PolicyConfig]]

    def __init__(self, config: PolicyConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__()
        self.config = config
        self.spec = spec
        self.statistics = statistics
        self.observation_steps = config.observation_steps
        self.chunk, self.past_actions = config.horizon, config.past_actions
        self.horizon = self.chunk - self.past_actions
        self.max_padding = config.max_padding
        self.uses_cuda_graphs = False
        """Whether it was compiled into CUDA graphs (policies/acceleration.py)."""
        self.goals: Mapping[str, Sequence[float]] = {}
        self.cameras: Sequence[str] = list(config.conditioning.cameras)
        self.conditioning: ObservationEncoder = self.build_observation_encoder(encoder)
        self.relative_actions = None
        action_range = statistics.actions
        if config.action_pose_repr == RELATIVE:
            self.relative_actions = RelativePoses.of_actions(spec, statistics.actions)
            action_range = require_relative_range(statistics.relative_actions)
        self._quaternions = find_quaternions(spec.action_names, statistics.actions)
        self.actions = Normaliser(config.action_normalisation, action_range, spec.action_names, config.action_min_std)

    @property
    def state_range(self) -> tuple[list[float], list[float]] | None:
        """Lowest and highest state (s,) of the demonstrations; None for a policy that does not need the state."""
        of = self.statistics.state
        return (of.minimum.tolist(), of.maximum.tolist()) if self.config.reads_state else None

    @property
    def encoders(self) -> list[nn.Module]:
        """One encoder for all cameras, or one for each; empty for a policy without cameras."""
        return self.conditioning.encoders

    def build_observation_encoder(self, encoder: nn.Module | None) -> ObservationEncoder:
        config = self.config
        return Conditioning(config.conditioning, config.observation_steps, self.spec, self.statistics, encoder)

    @abc.abstractmethod
    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        """The error of every action step and dimension, (b, n, a), or of every step, (b, n, 1); `loss` averages it over
        the steps that are not ignored, bool (b, n)."""

    @abc.abstractmethod
    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        """Generate a normalised action chunk for every row, (b, n, a)."""

    def encode_observation(self, observation: Observation, augment: bool) -> Tensor:
        """Encode the observation for `errors` and `sample`. The encoder runs here, once per observation."""
        return self.conditioning(observation, augment)

    def prepare(self, observations: Iterable[Observation]) -> None:
        """Fit the feature statistics before training, on a few hundred windows."""
        self.conditioning.prepare(observations)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean error over the action steps that are not `ignored`. (A denoiser still sees the others, noised, as part
        of the chunk.)"""
        if batch.actions.shape[1:] != (self.chunk, self.spec.action_dim):
            raise UserError(
                f"The batch holds actions of shape {tuple(batch.actions.shape[1:])} (steps, dimensions), but the "
                f"policy was built for {(self.chunk, self.spec.action_dim)}."
            )
        seen = self.encode_observation(batch.observation, augment=self.training)
        actions_bna = batch.actions.float()
        if self.relative_actions is not None:
            actions_bna = self.relative_actions.to_frame(actions_bna, batch.observation.state[:, -1].float())
        errors_bna = self.errors(seen, self.actions(actions_bna), batch.ignored)
        of_steps = (*batch.ignored.shape, 1)
        if errors_bna.shape not in (of_steps, batch.actions.shape):
            raise self._shape_error("errors", errors_bna, f"{of_steps} or {tuple(batch.actions.shape)}")
        real_bn1 = (~batch.ignored)[:, :, None].to(errors_bna.dtype)
        count = (real_bn1.sum() * errors_bna.shape[2]).clamp(min=1)
        loss = (errors_bna * real_bn1).sum() / count
        return loss, {"loss": loss.detach()}

    def real_share(self, batch: Batch) -> Tensor:
        """The share of the batch's action steps over which `loss` averages; training weights batches by it."""
        return (~batch.ignored).float().mean()

    def act(self, observation: Observation, seeds: Sequence[int] | None = None) -> Tensor:
        """Actions (b, n, a) in physical units; with `min_max` normalisation, clamped to the demonstrations' range, and
        with relative poses to the range of these. Quaternions have length 1 if those of the demonstrations have.

        The noise of row i depends on seeds[i] alone; None uses torch's global generator.
        """
        if self.uses_cuda_graphs:
            # From here on, outputs of earlier CUDA graph replays may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            seen = self.encode_observation(observation, augment=False)
            if seeds is not None and len(seeds) != len(seen):
                raise UserError(f"There are {len(seeds)} seeds for {len(seen)} observations.")
            chunk_bna = self.sample(seen, seeds)
            if chunk_bna.shape != (expected := (len(seen), self.chunk, self.spec.action_dim)):
                raise self._shape_error("sample", chunk_bna, str(expected))
            actions_bna = self.actions.bounded_inverse(chunk_bna)[:, self.past_actions :]
            if self.relative_actions is not None:
                actions_bna = self.relative_actions.from_frame(actions_bna, observation.state[:, -1].float())
            return normalize_columns(actions_bna, self._quaternions)

    def _shape_error(self, method: str, actual: Tensor, expected: str) -> UserError:
        return UserError(
            f"`{method}` of {type(self).__name__} returned shape {tuple(actual.shape)}, but it must be {expected}: "
            "windows, steps, dimensions."
        )
