"""Tokens of several cameras with embeddings of their origin, for attention over all of them together.

Shapes: b batch, t frames of a window, n = b t frames, s state, k class tokens, h rows, w columns, d feature,
i tokens of one camera, m tokens of all cameras, e width, q queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.data.stats import Statistics
from pixio_robot.types import DemoSpec, Features, Observation
from policies.config import ConditioningConfig
from policies.networks.embeddings import grid_embedding, sinusoidal_embedding
from policies.observation_encoder.base import FeatureShape, ObservationEncoder


class CameraTokens(nn.Module):
    """Features of all cameras -> (n, m, e): projected, plus a camera embedding and a position embedding.

    Class tokens come first, with a learned embedding each instead of the position embedding.
    """

    def __init__(self, shapes: Sequence[FeatureShape], width: int):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(shape.dim, width) for shape in shapes)
        self.cameras = nn.Parameter(0.02 * torch.randn(len(shapes), width))
        self.classes = nn.ParameterList(0.02 * torch.randn(shape.class_tokens, width) for shape in shapes)
        for index, shape in enumerate(shapes):
            self.register_buffer(
                f"positions_{index}", grid_embedding(shape.rows, shape.columns, width), persistent=False
            )

    def forward(self, features: Sequence[Features]) -> Tensor:
        return torch.cat([self._embed_camera(index, one_camera) for index, one_camera in enumerate(features)], dim=1)

    def _embed_camera(self, index: int, features: Features) -> Tensor:
        tokens_nid = torch.cat([features.cls, features.patches.flatten(1, 2)], dim=1)
        origin_ie = torch.cat([self.classes[index], self.get_buffer(f"positions_{index}")])
        return self.projections[index](tokens_nid) + origin_ie + self.cameras[index]


class JointPooling(nn.Module):
    """Learned queries attend to the tokens of all cameras together, (n, q e): what is hidden in one view may be visible
    in another."""

    def __init__(self, shapes: Sequence[FeatureShape], queries: int, width: int):
        super().__init__()
        self.out_dim = queries * width
        self.tokens = CameraTokens(shapes, width)
        self.query = nn.Parameter(torch.randn(queries, width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, features: Sequence[Features]) -> Tensor:
        tokens_nme = self.tokens(features)
        query_nqe = self.query.to(tokens_nme.dtype).expand(len(tokens_nme), -1, -1)
        pooled_nqe = functional.scaled_dot_product_attention(query_nqe, self.key(tokens_nme), self.value(tokens_nme))
        return pooled_nqe.flatten(1)


class TokenObservationEncoder(ObservationEncoder):
    """Observation -> (b, m, e): one state token per frame, newest first, then all image tokens of all frames, then a
    goal token if there is a goal."""

    def __init__(
        self,
        config: ConditioningConfig,
        observation_steps: int,
        spec: DemoSpec,
        statistics: Statistics,
        encoder: nn.Module | None,
        width: int,
    ):
        super().__init__(config, observation_steps, spec, statistics, encoder)
        self.from_state = nn.Linear(spec.state_dim, width) if config.use_state else None
        self.state_origin = nn.Parameter(0.02 * torch.randn(width)) if config.use_state else None
        self.tokens = CameraTokens(self.shapes, width) if config.cameras else None
        self.from_goal = nn.Linear(config.goal_width, width) if config.goal_dim else None
        self.register_buffer(
            "ages", sinusoidal_embedding(torch.arange(observation_steps).float(), width), persistent=False
        )

    def forward(self, observation: Observation, augment: bool = False) -> Tensor:
        """`augment`: randomly crop, shift and colour-jitter the images as configured."""
        state_bts = self.normalised_state(observation)
        tokens = []
        ages_te = self.get_buffer("ages")
        if state_bts is not None and self.from_state is not None:
            tokens.append(self.from_state(state_bts.flip(1)) + ages_te + self.state_origin)
        if self.tokens is not None:
            tokens_btme = self.tokens(self.features(observation, augment)).unflatten(0, observation.state.shape[:2])
            tokens.append((tokens_btme.flip(1) + ages_te[:, None]).flatten(1, 2))
        goal_bg = self.project_goal(observation)
        if goal_bg is not None and self.from_goal is not None:
            tokens.append(self.from_goal(goal_bg)[:, None])
        return torch.cat(tokens, dim=1)
