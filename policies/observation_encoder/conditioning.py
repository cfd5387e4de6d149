"""The observation as one vector: pooled features of every camera and the state, over all frames of the window.

Shapes: b batch, t frames, p features per frame, s state, c condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixio_robot.data.stats import Statistics
from pixio_robot.types import DemoSpec, Observation
from pixio_robot.vision.pooling import build_pooling
from policies.config import ConditioningConfig
from policies.observation_encoder.base import ObservationEncoder
from policies.observation_encoder.tokens import JointPooling


class Conditioning(ObservationEncoder):
    """Observation -> (b, c), or frame by frame -> (b, t, p).

    With `fusion = difference`, the pooled features become the differences between consecutive frames and the newest
    frame, [e1 - e0, e2 - e1, e2], followed by the newest state only (CortexBench, Majumdar et al. 2023).
    """

    def __init__(
        self,
        config: ConditioningConfig,
        observation_steps: int,
        spec: DemoSpec,
        statistics: Statistics,
        encoder: nn.Module | None,
    ):
        super().__init__(config, observation_steps, spec, statistics, encoder)
        self.poolings = nn.ModuleList()
        self.joint = None
        pooled = 0
        if config.joint_pooling:
            self.joint = JointPooling(self.shapes, config.pooling.queries, config.pooling.width)
            pooled = self.joint.out_dim
        else:
            for shape in self.shapes:
                pooling = build_pooling(config.pooling, shape.dim, shape.class_tokens, (shape.rows, shape.columns))
                self.poolings.append(pooling)
                pooled += pooling.out_dim
        self.frame_dim = self.state_dim + pooled + self.goal_width
        states = 1 if config.fusion == "difference" else observation_steps
        self.out_dim = states * self.state_dim + observation_steps * pooled + self.goal_width

    def forward(self, observation: Observation, augment: bool = False) -> Tensor:
        """`augment`: randomly crop, shift and colour-jitter the images as configured."""
        state_bts, parts_btp = self._pooled_features(observation, augment)
        if self.config.fusion == "difference":
            fused = [torch.cat([part.diff(dim=1), part[:, -1:]], dim=1).flatten(1) for part in parts_btp]
            inputs = fused if state_bts is None else [*fused, state_bts[:, -1]]
        else:
            inputs = [part.flatten(1) for part in ([] if state_bts is None else [state_bts]) + parts_btp]
        goal_bg = self.project_goal(observation)
        return torch.cat(inputs if goal_bg is None else [*inputs, goal_bg], dim=1)

    def frames(self, observation: Observation, augment: bool = False) -> Tensor:
        """The features of each frame, not fused, (b, t, frame_dim): for policies that read a sequence."""
        state_bts, parts_btp = self._pooled_features(observation, augment)
        inputs = parts_btp if state_bts is None else [state_bts, *parts_btp]
        goal_bg = self.project_goal(observation)
        if goal_bg is not None:
            inputs = [*inputs, goal_bg[:, None].expand(-1, self.observation_steps, -1)]
        return torch.cat(inputs, dim=2)

    def _pooled_features(self, observation: Observation, augment: bool) -> tuple[Tensor | None, list[Tensor]]:
        state_bts = self.normalised_state(observation)
        lead = observation.state.shape[:2]
        features = self.features(observation, augment)
        if self.joint is not None:
            return state_bts, [self.joint(features).unflatten(0, lead)]
        pooled = zip(self.poolings, features, strict=True)
        return state_bts, [pooling(of_camera).unflatten(0, lead) for pooling, of_camera in pooled]
