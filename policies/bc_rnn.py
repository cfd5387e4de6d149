"""Recurrent behaviour cloning, LSTM with a Gaussian mixture (robomimic's BC-RNN-GMM, Mandlekar et al. 2021).

robomimic carries the LSTM's state from step to step and resets it every 10 steps. Here the state is recomputed from
the last `observation_steps` frames at every call. This makes `act` a pure function of its input: slots, worker
restarts, batches and servers need not keep a hidden state, and the network always sees a history of the length it was
trained on instead of one that is reset every tenth step. The cost is small with frozen features: they may be cached,
and the LSTM runs over 10 vectors. Training uses only the action at the newest frame, since that is the one executed;
every other step of a demonstration is the newest frame of another window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.errors import UserError
from pixio_robot.fields import number
from pixio_robot.types import DemoSpec, Observation
from policies.base import ChunkPolicy
from policies.bc_gmm import require_bounded_actions
from policies.config import PolicyConfig
from policies.networks.mixture import MixtureConfig, MixtureHead
from policies.noise import RowNoise
from policies.observation_encoder.conditioning import Conditioning


@dataclasses.dataclass(kw_only=True)
class BCRNNConfig(PolicyConfig):
    """An LSTM over the frames; its last output parametrises a Gaussian mixture over actions."""

    observation_steps: int = 10
    """Length of the observation history in frames, including the newest: robomimic's `seq_length` and `rnn.horizon`."""
    horizon: int = 1
    rnn_hidden_dim: int = number(1000, at_least=1)
    """Width of the LSTM."""
    rnn_num_layers: int = number(2, at_least=1)
    """Number of LSTM layers."""
    mixture: MixtureConfig = dataclasses.field(default_factory=MixtureConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bounded_actions(self.action_normalisation)
        if self.conditioning.fusion != "concat":
            raise UserError("A recurrent policy reads frames one by one: set conditioning.fusion to concat.")


class BCRNNPolicy(ChunkPolicy):
    """An LSTM over the frames; its last output parametrises the mixture."""

    config_class = BCRNNConfig
    conditioning: Conditioning
    draws = True

    def __init__(self, config: BCRNNConfig, spec: DemoSpec, statistics: Statistics, encoder: nn.Module | None):
        super().__init__(config, spec, statistics, encoder)
        frame_dim = self.conditioning.frame_dim
        self.lstm = nn.LSTM(frame_dim, config.rnn_hidden_dim, config.rnn_num_layers, batch_first=True)
        self.head = MixtureHead(config.mixture, config.rnn_hidden_dim, config.horizon, spec.action_dim)

    def encode_observation(self, observation: Observation, augment: bool) -> Tensor:
        return self.conditioning.frames(observation, augment)

    def errors(self, seen: Tensor, actions_bna: Tensor, ignored_bn: Tensor) -> Tensor:
        return self.head.negative_log_likelihood(self.head(self._run_lstm(seen)), actions_bna, ignored_bn)

    def sample(self, seen: Tensor, seeds: Sequence[int] | None) -> Tensor:
        return self.head.sample(self.head(self._run_lstm(seen)), RowNoise(seeds, seen))

    def _run_lstm(self, frames_btp: Tensor) -> Tensor:
        # Under autocast to any type, cuDNN's LSTM computes in float16 (torch 2.11, AutocastRNN.cpp), where gradients
        # overflow without loss scaling; on a CPU it fails.
        with torch.autocast(frames_btp.device.type, enabled=False):
            return self.lstm(frames_btp.float())[0][:, -1]
