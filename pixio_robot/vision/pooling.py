"""Pool the features of a frame into one vector.

Every pooling is an `nn.Module` from Features of n frames, cls (n, k, d) and patches (n, h, w, d), to (n, out_dim). If
features should be standardised, the caller does so first: a spatial softmax over raw features of a frozen transformer
mostly sees the position embeddings.

Shapes: n frames, k class tokens, h/w rows and columns of the patch map, d feature width, m keypoints, q queries.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.errors import unknown_name
from pixio_robot.types import Features
from pixio_robot.vision.config import POOLINGS, PoolingConfig


class Pooling(nn.Module):
    out_dim: int


class ClassMean(Pooling):
    """Mean of the class tokens, the global embedding used in the paper."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.out_dim = feature_dim

    def forward(self, features: Features) -> Tensor:
        return features.cls.mean(dim=1)


class ClassConcat(Pooling):
    def __init__(self, feature_dim: int, class_tokens: int) -> None:
        super().__init__()
        self.out_dim = feature_dim * class_tokens

    def forward(self, features: Features) -> Tensor:
        return features.cls.flatten(1)


class PatchMean(Pooling):
    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.out_dim = feature_dim

    def forward(self, features: Features) -> Tensor:
        return features.patches.mean(dim=(1, 2))


class SpatialSoftmax(Pooling):
    """Expected coordinates of m keypoints (arXiv 1504.00702), x and y in [-1, 1] with the edges of the map at +-1.

    Each keypoint is a linear map of the patch features, with a softmax temperature that is learned or 1. With
    `activations`, the expected activation of each keypoint is appended, which tells whether it is present at all.
    `project`: dimension of a linear layer with ReLU at the end, as in robomimic and diffusion policy; 0: none.
    """

    xy: Tensor

    def __init__(
        self,
        feature_dim: int,
        grid: tuple[int, int],
        keypoints: int,
        activations: bool,
        learn_sharpness: bool = True,
        project: int = 0,
    ) -> None:
        super().__init__()
        self.activations = activations
        num_values = keypoints * (3 if activations else 2)
        self.out_dim = project or num_values
        self.score = nn.Linear(feature_dim, keypoints)
        nn.init.normal_(self.score.weight, std=feature_dim**-0.5)
        nn.init.zeros_(self.score.bias)
        self.log_sharpness = nn.Parameter(torch.zeros(keypoints)) if learn_sharpness else None
        self.out = nn.Sequential(nn.Linear(num_values, project), nn.ReLU()) if project else nn.Identity()
        rows, columns = (torch.linspace(-1 + 1 / side, 1 - 1 / side, side) for side in grid)
        y_hw, x_hw = torch.meshgrid(rows, columns, indexing="ij")
        self.register_buffer("xy", torch.stack([x_hw.flatten(), y_hw.flatten()], dim=1), persistent=False)

    def forward(self, features: Features) -> Tensor:
        score_nsm = self.score(features.patches).flatten(1, 2)
        precise_nsm = score_nsm.to(torch.promote_types(score_nsm.dtype, torch.float32))
        sharp_nsm = precise_nsm if self.log_sharpness is None else precise_nsm * self.log_sharpness.exp()
        weight_nsm = sharp_nsm.softmax(dim=1)
        with torch.autocast(weight_nsm.device.type, enabled=False):  # half precision would round to about a pixel
            values = [torch.einsum("nsm,sc->nmc", weight_nsm, self.xy.to(weight_nsm.dtype)).flatten(1)]
        if self.activations:
            values.append((weight_nsm * score_nsm).sum(dim=1))
        return self.out(torch.cat(values, dim=1).to(self.score.weight.dtype))


class PatchMlp(Pooling):
    """Reduce each patch to a few channels, flatten the map and apply an MLP; keeps spatial information."""

    def __init__(self, feature_dim: int, grid: tuple[int, int], channels: int, width: int) -> None:
        super().__init__()
        self.out_dim = width
        flat = grid[0] * grid[1] * channels
        self.reduce = nn.Linear(feature_dim, channels)
        self.norm = nn.LayerNorm(flat)
        self.out = nn.Linear(flat, width)

    def forward(self, features: Features) -> Tensor:
        return functional.gelu(self.out(functional.gelu(self.norm(self.reduce(features.patches).flatten(1)))))


class AttentionPooling(Pooling):
    """Learned queries attend to all tokens, with learned positions, since frozen features may have lost theirs."""

    def __init__(self, feature_dim: int, class_tokens: int, grid: tuple[int, int], queries: int, width: int) -> None:
        super().__init__()
        self.out_dim = queries * width
        self.query = nn.Parameter(torch.randn(queries, width))
        self.positions = nn.Parameter(0.02 * torch.randn(class_tokens + grid[0] * grid[1], width))
        self.key = nn.Linear(feature_dim, width)
        self.value = nn.Linear(feature_dim, width)

    def forward(self, features: Features) -> Tensor:
        tokens_nsd = torch.cat([features.cls, features.patches.flatten(1, 2)], dim=1)
        key_nsd = self.key(tokens_nsd) + self.positions
        value_nsd = self.value(tokens_nsd) + self.positions
        query_nqd = self.query.to(key_nsd.dtype).expand(len(tokens_nsd), -1, -1)
        return functional.scaled_dot_product_attention(query_nqd, key_nsd, value_nsd).flatten(1)


def build_pooling(config: PoolingConfig, feature_dim: int, class_tokens: int, grid: tuple[int, int]) -> Pooling:
    """Build the configured pooling for an encoder's feature dimension, number of class tokens and patch grid (h, w)."""
    match config.name:
        case "class_mean":
            return ClassMean(feature_dim)
        case "class_concat":
            return ClassConcat(feature_dim, class_tokens)
        case "patch_mean":
            return PatchMean(feature_dim)
        case "spatial_softmax":
            return SpatialSoftmax(
                feature_dim, grid, config.keypoints, config.activations, config.learn_sharpness, config.project
            )
        case "patch_mlp":
            return PatchMlp(feature_dim, grid, config.channels, config.width)
        case "attention":
            return AttentionPooling(feature_dim, class_tokens, grid, config.queries, config.width)
    raise unknown_name("pooling", config.name, POOLINGS)
