"""timm models as encoders: ResNets, ViTs of MAE, DINOv2, DINOv3, CLIP and SigLIP, ConvNeXt, Swin and so on.

Shapes: b batch, h/w pixels, r/c rows and columns of the map, n tokens, d width.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.types import Features
from pixio_robot.vision.checkpointing import load_weights
from pixio_robot.vision.encoders.foreign import (
    ForeignConfig,
    ForeignEncoder,
    features_from_map,
    no_patch_map_error,
    split_tokens,
)
from pixio_robot.vision.encoders.published_weights import read_published_weights


@dataclasses.dataclass(kw_only=True)
class TimmConfig(ForeignConfig):
    architecture: str = "vit_base_patch16_224.mae"


class TimmEncoder(ForeignEncoder):
    """Fresh weights drawn from `seed`, or `weights` (with timm's names, for the size that they were trained at)."""

    config: TimmConfig

    def __init__(self, config: TimmConfig, seed: int = 0, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config)
        timm = _import_timm(config.architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: Any = timm.create_model(config.architecture, pretrained=False, num_classes=0)
        if weights is not None:
            load_weights(self.model, weights, config.architecture)
        self.feature_dim = self.model.num_features
        native = timm.get_pretrained_cfg_value(config.architecture, "input_size")
        if hasattr(self.model, "set_input_size") and native[1:] != (config.resize, config.resize):
            self.model.set_input_size((config.resize, config.resize))  # interpolates position embeddings

    def represent(self, pixels_b3hw: Tensor) -> Features:
        out = self.model.forward_features(pixels_b3hw)
        grid: Any = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if not isinstance(out, Tensor) or (out.ndim != 4 and grid is None):
            raise no_patch_map_error(f"timm's {self.config.architecture}", "vit, deit, beit, eva")
        if out.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return features_from_map(out if channels_last else out.permute(0, 2, 3, 1))
        # ViT families either report their registers separately or, like Eva, include them in the prefix tokens.
        prefix = getattr(self.model, "num_prefix_tokens", 0)
        has_class = getattr(self.model, "cls_token", None) is not None
        rows, columns = grid
        return split_tokens(out, (rows, columns), registers=prefix - has_class)


def open_timm(name: str, path: str | None, resize: int | None, pretrained: bool, seed: int) -> TimmEncoder:
    """A timm model by name, with weights from a local file, downloaded by timm, or random.

    The file may be a training's checkpoint; its classifier, if any, is dropped. Raises UserError for an unknown name,
    and for keys that do not fit.
    """
    timm = _import_timm(name)
    defaults = timm.get_pretrained_cfg(name)
    config = TimmConfig(
        architecture=name,
        resize=resize or defaults.input_size[-1],
        mean=list(defaults.mean),
        std=list(defaults.std),
        interpolation=defaults.interpolation,
    )
    weights: Mapping[str, Tensor] | None = None
    if path is not None:
        heads = (defaults.classifier,) if isinstance(defaults.classifier, str) else tuple(defaults.classifier or ())
        with torch.device("meta"):
            expected = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
        shapes = {key: value.shape for key, value in expected.items()}
        weights = read_published_weights(Path(path), shapes, heads)
    elif pretrained:
        try:
            weights = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"timm could not load the weights of {name} ({str(error).splitlines()[0]}); set encoder.path=FILE, or "
                "encoder.pretrained=false for random weights."
            ) from error
    return TimmEncoder(config, seed, weights)


def _import_timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError:
        raise UserError("timm encoders require timm: pip install 'pixio-robot[encoders]'.") from None
    if not timm.is_model(name):
        closest = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=5, cutoff=0.5)
        raise UserError(f"timm has no model {name!r}. Closest: {', '.join(closest) or 'none'}.")
    return timm
