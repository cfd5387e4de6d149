"""The base of policies that sample a chunk from noise, with a network that denoises it given the observation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.fields import number
from pixio_robot.types import DemoSpec, Observation
from policies.base import ChunkPolicy
from policies.config import DenoiserConfig, PolicyConfig, check_setting
from policies.networks.denoisers import build_denoiser
from policies.noise import RowNoise
from policies.observation_encoder.conditioning import Conditioning


@dataclasses.dataclass(kw_only=True)
class GenerativeConfig(PolicyConfig):
    """Settings of policies that sample a chunk from noise."""

    denoiser: DenoiserConfig = dataclasses.field(default_factory=DenoiserConfig)
    noise_scale: float = number(1.0, at_least=0, at_most=1)
    """Standard deviation of the noise that sampling draws. Below 1, chunks stay nearer to the most likely ones
    (low-temperature sampling, Ajay et al., ICLR 2023, whose alpha is its square)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting(
            self.denoiser.name != "transformer" or self.conditioning.fusion == "concat",
            "The transformer reads frames one by one: set conditioning.fusion to concat.",
        )


class GenerativePolicy(ChunkPolicy):
    """The encoder runs once per observation; only the denoiser runs once per step.

    A transformer gets the frames as a sequence, other denoisers get one vector for all frames.
    """

    config: GenerativeConfig
    conditioning: Conditioning
    draws = True

    def __init__(
        self,
        config: GenerativeConfig,
        spec: DemoSpec,
        statistics: Statistics,
        encoder: nn.Module | None,
        extra_dim: int = 0,
    ):
        """`extra_dim`: number of dimensions that the subclass appends to the condition."""
        super().__init__(config, spec, statistics, encoder)
        self.reads_frames = config.denoiser.name == "transformer"
        condition_dim = (self.conditioning.frame_dim if self.reads_frames else self.conditioning.out_dim) + extra_dim
        self.denoiser = build_denoiser(config.denoiser, config.horizon, spec.action_dim, condition_dim)

    def draw_noise(self, seen: Tensor, seeds: Sequence[int] | None) -> RowNoise:
        """The noise that sampling draws for every row."""
        return RowNoise(seeds, seen, self.config.noise_scale)

    def encode_observation(self, observation: Observation, augment: bool) -> Tensor:
        return (self.conditioning.frames if self.reads_frames else self.conditioning)(observation, augment)
