"""Shortcut model (Frans et al. 2024): a flow conditioned on the step size, so that a single step can be enough.

Trained from scratch in one phase, without a teacher. Time t runs from 0 (noise) to 1 (the chunk), d is the step size.
Shapes: b batch, n steps of the chunk, a action, e embedding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError
from pixio_robot.fields import number
from pixio_robot.types import DemoSpec
from policies.flow import TIME_SCALE
from policies.generative import GenerativeConfig, GenerativePolicy
from policies.networks.embeddings import StepEmbeddingMLP


@dataclasses.dataclass(kw_only=True)
class ShortcutConfig(GenerativeConfig):
    """Shortcut model: a flow conditioned on the step size, so that a single step can be enough."""

    inference_steps: int = number(1, at_least=1)
    """Sampling steps; a power of two, at most `finest_steps`."""
    finest_steps: int = number(128, at_least=2)
    """Largest possible number of sampling steps; a power of two."""
    consistency_share: float = number(0.25, above=0, below=1)
    """Fraction of each batch that trains long steps to match two half steps, at the cost of two extra network calls;
    the rest trains the flow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("inference_steps", "finest_steps"):
            value = getattr(self, name)
            if value & (value - 1):
                raise UserError(f"{name} = {value} must be a power of two.")
        if self.inference_steps > self.finest_steps:
            raise UserError(
                f"inference_steps = {self.inference_steps} must be at most finest_steps = {self.finest_steps}."
            )


class ShortcutPolicy(GenerativePolicy):
    """Targets of long steps come from the current weights, without gradient; the paper uses an EMA of the weights."""

    config_class = ShortcutConfig
    config: ShortcutConfig

    def __init__(self, config: ShortcutConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        width = config.denoiser.step_dim
        super().__init__(config, spec, statistics, encoder, extra_dim=width)
        self.stride_embedding = StepEmbeddingMLP(width)

    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        batch, device = len(actions_bna), actions_bna.device
        noise_bna = torch.randn_like(actions_bna)
        time_b, stride_b = torch.rand(batch, device=device), torch.zeros(batch, device=device)
        # Random rows, because the rows of a batch may be ordered by store.
        count = min(max(round(self.config.consistency_share * batch), 1), batch - 1)
        long = torch.randperm(batch, device=device)[:count]
        # Strides 1, 1/2, ... 2/finest, log-uniform; a step of stride d begins at a multiple of d.
        pieces = 2.0 ** torch.randint(round(math.log2(self.config.finest_steps)), (count,), device=device)
        time_b[long], stride_b[long] = (time_b[long] * pieces).floor() / pieces, 1 / pieces
        point_bna = noise_bna.lerp(actions_bna, time_b[:, None, None])
        target_bna = actions_bna - noise_bna
        if count:
            halves_bna = self._mean_half_step_velocity(point_bna[long], time_b[long], stride_b[long], seen[long])
            target_bna[long] = halves_bna.to(target_bna.dtype)  # bfloat16 under autocast
        return (self._velocity(point_bna, time_b, stride_b, seen) - target_bna) ** 2

    @torch.no_grad()
    def _mean_half_step_velocity(self, point_bna: Tensor, time_b: Tensor, stride_b: Tensor, seen: Tensor) -> Tensor:
        """The mean velocity of two steps of half the stride; the shortest are steps of the flow, d = 0."""
        half_b = stride_b / 2
        conditioned_stride_b = torch.where(half_b <= 1 / self.config.finest_steps, torch.zeros_like(half_b), half_b)
        first_bna = self._velocity(point_bna, time_b, conditioned_stride_b, seen)
        middle_bna = point_bna + half_b[:, None, None] * first_bna
        return (first_bna + self._velocity(middle_bna, time_b + half_b, conditioned_stride_b, seen)) / 2

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        point_bna = self.draw_noise(seen, seeds).normal(self.chunk, self.spec.action_dim)
        count = self.config.inference_steps
        conditioned_stride = 0.0 if count == self.config.finest_steps else 1 / count
        stride_b = torch.full((len(seen),), conditioned_stride, device=seen.device)
        for index in range(count):
            time_b = torch.full_like(stride_b, index / count)
            point_bna = point_bna + self._velocity(point_bna, time_b, stride_b, seen) / count
        return point_bna

    def _velocity(self, point_bna: Tensor, time_b: Tensor, stride_b: Tensor, seen: Tensor) -> Tensor:
        stride_be = self.stride_embedding(TIME_SCALE * stride_b)
        if self.reads_frames:
            stride_be = stride_be[:, None].expand(-1, seen.shape[1], -1)
        return self.denoiser(point_bna, TIME_SCALE * time_b, torch.cat([seen, stride_be], dim=-1))
