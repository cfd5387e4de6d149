"""Flow matching (Lipman et al. 2023): straight paths from noise to a chunk, integrated by Euler's or Heun's method.

Time t runs from 0 (noise) to 1 (the chunk). Shapes: b batch, n steps of the chunk, a action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pixio_robot.fields import number, one_of
from policies.generative import GenerativeConfig, GenerativePolicy

SOLVERS = ("euler", "heun")
TIME_SCALE = 100.0
"""Scales time to the range of diffusion steps: denoisers distinguish steps that differ by about one."""


@dataclasses.dataclass(kw_only=True)
class FlowConfig(GenerativeConfig):
    """Flow matching along straight paths from noise to a chunk."""

    inference_steps: int = number(10, at_least=1)
    """Steps of the solver; Heun's method calls the network twice in all but the last step."""
    solver: str = one_of("euler", SOLVERS)
    """ODE solver: euler (first order) or heun (second order, more accurate for the same number of steps)."""


class FlowPolicy(GenerativePolicy):
    """The network predicts the velocity, chunk minus noise, at a point on the line between them."""

    config_class = FlowConfig
    config: FlowConfig

    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        noise_bna = torch.randn_like(actions_bna)
        time_b = torch.rand(len(actions_bna), device=actions_bna.device)
        point_bna = noise_bna.lerp(actions_bna, time_b[:, None, None])
        return (self._velocity(point_bna, time_b, seen) - (actions_bna - noise_bna)) ** 2

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        point_bna = self.draw_noise(seen, seeds).normal(self.chunk, self.spec.action_dim)
        count = self.config.inference_steps
        for index in range(count):
            time_b = torch.full((len(seen),), index / count, device=seen.device)
            velocity_bna = self._velocity(point_bna, time_b, seen)
            # The last step is Euler's: the velocity at t = 1 is hardly trained, and it saves a call.
            if self.config.solver == "heun" and index < count - 1:
                ahead_bna = self._velocity(point_bna + velocity_bna / count, time_b + 1 / count, seen)
                velocity_bna = (velocity_bna + ahead_bna) / 2
            point_bna = point_bna + velocity_bna / count
        return point_bna

    def _velocity(self, point_bna: Tensor, time_b: Tensor, seen: Tensor) -> Tensor:
        return self.denoiser(point_bna, TIME_SCALE * time_b, seen)
