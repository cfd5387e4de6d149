"""Vision models from transformers as encoders: ViT, ViTMAE, DINOv2, DINOv3, CLIP, SigLIP, ConvNeXt and so on.

Shapes: b batch, h/w pixels, n tokens, d width.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.types import Features
from pixio_robot.vision.encoders.foreign import (
    ForeignConfig,
    ForeignEncoder,
    features_from_map,
    no_patch_map_error,
    split_tokens,
)

FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""PIL's filter ids, as stored by image processors."""
PROCESSOR = "preprocessor_config.json"
POOLED_ONLY = ("clip_vision_model", "chinese_clip_vision_model", "metaclip_2_vision_model", "mlcd", "mlcd_vision_model")
"""Models that apply their last normalisation, `post_layernorm`, to the pooled class token but not to the tokens that
they return. Here it is part of the features, as in timm."""

_NO_FOREIGN_CODE: Any = {"trust_remote_code": False, "attn_implementation": None}
"""Otherwise transformers asks whether to run the code that `auto_map` names, and downloads a compiled kernel if the
implementation of attention is the name of a repository."""


@dataclasses.dataclass(kw_only=True)
class TransformersConfig(ForeignConfig):
    pass


class TransformersEncoder(ForeignEncoder):
    """A model with fresh weights drawn from `seed`, or an existing `model`."""

    config: TransformersConfig

    def __init__(self, config: TransformersConfig, seed: int = 0, model: nn.Module | None = None) -> None:
        super().__init__(config)
        if model is None:
            transformers = _import_transformers()
            try:
                architecture = _checked_config(transformers, json.loads(config.architecture))
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    model = transformers.AutoModel.from_config(architecture, **_NO_FOREIGN_CODE)
            except UserError:
                raise
            except Exception as error:  # transformers raises errors of many kinds for a damaged description
                raise UserError(
                    f"transformers cannot build an encoder from {config.architecture[:200]}: "
                    f"{next(iter(str(error).splitlines()), repr(error))}"
                ) from error
        assert model is not None
        pooler, self._unnormed = getattr(model, "pooler", None), model.config.model_type in POOLED_ONLY  # type: ignore
        if isinstance(norm := getattr(pooler, "layernorm", None), nn.LayerNorm):  # BEiT, Data2Vec
            model.post_layernorm, self._unnormed = norm, True
        if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
            model.pooler = None  # type: ignore[assignment]  # an unused head on the class token
        self.model: Any = model
        architecture = self.model.config
        width = getattr(architecture, "hidden_size", None) or (getattr(architecture, "hidden_sizes", None) or [0])[-1]
        if not width:
            raise UserError(
                f"transformers' {architecture.model_type} does not say how wide its features are: use timm's."
            )
        self.feature_dim = width
        arguments = inspect.signature(model.forward).parameters
        needed = [name for name, a in arguments.items() if a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD]
        if len(needed) > 1:
            raise UserError(
                f"transformers' {architecture.model_type} takes more than images ({', '.join(needed)}): use timm's."
            )
        if (taken := self.model.main_input_name) != "pixel_values":
            raise UserError(
                f"transformers' {architecture.model_type} takes {taken}, not images: use dinov2, for example."
            )
        self._arguments = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in arguments else {}
        self._patch = _patch_size(model.config)

    def represent(self, pixels_b3hw: Tensor) -> Features:
        config = self.model.config
        height, width = pixels_b3hw.shape[2:]
        arguments: dict[str, Any] = dict(self._arguments)
        if config.model_type == "vit_mae":
            # It shuffles patches by this noise even if none is masked.
            patches = (height // self._patch) * (width // self._patch)
            order_n = torch.arange(patches, device=pixels_b3hw.device, dtype=torch.float32)
            arguments["noise"] = order_n.expand(pixels_b3hw.shape[0], -1)
        out = self.model(pixels_b3hw, **arguments).last_hidden_state
        if self._unnormed:
            out = self.model.post_layernorm(out)
        if out.ndim == 4:
            return features_from_map(out.permute(0, 2, 3, 1))
        rows, columns = height // self._patch, width // self._patch
        if out.shape[1] < rows * columns:
            # Swin merges patches from stage to stage, DINOv3's ConvNeXt has none; the images are square.
            rows = columns = math.isqrt(out.shape[1])
            if out.shape[1] - rows * columns not in (0, 1):  # without or with a class token
                raise no_patch_map_error(f"transformers' {config.model_type}", "vit, dinov2, siglip")
        return split_tokens(out, (rows, columns), registers=getattr(config, "num_register_tokens", 0))


def open_transformers(source: str, resize: int | None, pretrained: bool, seed: int) -> TransformersEncoder:
    """A model from a local directory or a hub name, with the mean, std, filter and size of its image processor.

    For a vision-language model, its vision tower. Code in the directory is never executed. Raises UserError.
    """
    transformers = _import_transformers()
    try:
        architecture = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        architecture = getattr(architecture, "vision_config", architecture)
        processor = transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
        if architecture.model_type == "vit_mae":
            architecture.mask_ratio = 0.0
        architecture = _checked_config(transformers, _describe(architecture))
        model = None
        if pretrained:
            model, info = transformers.AutoModel.from_pretrained(
                source, config=architecture, output_loading_info=True, **_NO_FOREIGN_CODE
            )
            missing = [key for key in info["missing_keys"] if "pooler." not in key]
            if missing:
                raise UserError(f"The weights of {source} lack {', '.join(sorted(missing))}.")
    except (OSError, ValueError) as error:
        where = f" (it needs config.json, weights and {PROCESSOR})" if Path(source).is_dir() else ""
        raise UserError(
            f"transformers cannot open {source} as a vision model{where}: {str(error).splitlines()[0]}"
        ) from error
    config = TransformersConfig(
        architecture=json.dumps(_describe(architecture)),
        resize=resize or _image_side(processor, source),
        mean=list(processor.image_mean if processor.do_normalize else (0.0, 0.0, 0.0)),
        std=list(processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0)),
        interpolation=_interpolation(processor, source),
    )
    return TransformersEncoder(config, seed, model)


def _describe(architecture: Any) -> dict[str, Any]:
    return architecture.to_diff_dict() | {"model_type": architecture.model_type}


def _checked_config(transformers: ModuleType, description: Any) -> Any:
    """The configuration that `description` (JSON) states. Raises UserError if building it could look up a repository
    that the description names."""
    return transformers.AutoConfig.for_model(**_without_foreign_names(description))


def _without_foreign_names(item: Any) -> Any:
    if isinstance(item, list):
        return [_without_foreign_names(each) for each in item]
    if not isinstance(item, dict):
        return item
    if item.get("backbone") or str(item.get("model_type")).startswith("timm_"):
        raise UserError(
            f"This encoder of transformers is built from another library's or repository's model "
            f"({item.get('backbone') or item['model_type']}), which may be downloaded: use timm's."
        )
    # Models that transformers knows need no `auto_map`; parts of a model would ask about theirs.
    return {key: _without_foreign_names(value) for key, value in item.items() if key != "auto_map"}


def _patch_size(architecture: Any) -> int:
    size = getattr(architecture, "patch_size", 1)
    return size if isinstance(size, int) else size[0]


def _image_side(processor: Any, source: str) -> int:
    size = dict((processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size) or {})
    sides = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key)}
    if len(sides) != 1:
        raise UserError(f"The image processor of {source} has no square size ({size}); set encoder.resize.")
    return sides.pop()


def _interpolation(processor: Any, source: str) -> str:
    number = int(processor.resample)
    if number not in FILTERS:
        raise UserError(f"The image processor of {source} resizes with PIL's filter {number}; supported: {FILTERS}.")
    return FILTERS[number]


def _import_transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise UserError("transformers encoders require transformers: pip install 'pixio-robot[encoders]'.") from None
    return transformers
