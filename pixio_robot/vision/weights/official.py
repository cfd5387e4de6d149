"""Official Pixio weights: `.pth` files that contain the encoder only, as a plain state dict.

Shapes: q class tokens, n patches, d width, p patch side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.errors import UserError, format_names
from pixio_robot.vision.config import SIZES, EncoderConfig
from pixio_robot.vision.lora import merged_state_dict
from pixio_robot.vision.pixio import PixioEncoder, TrainedEncoder
from pixio_robot.vision.torch_files import read_state_dict

VIT_PREFIX = "vit."
_REQUIRED_KEYS = ("cls_token", "pos_embed", "patch_embed.proj.weight")


def read_official(path: str | Path) -> TrainedEncoder:
    """Read an official `.pth` file without executing anything in it. Raises UserError naming keys that do not fit."""
    path = Path(path)
    return from_official(read_state_dict(path), path)


def from_official(weights: Mapping[str, Tensor], where: str | Path) -> TrainedEncoder:
    """Convert official weights; the size is inferred from the tensors. Raises UserError."""
    absent = [key for key in _REQUIRED_KEYS if key not in weights]
    if absent:
        raise UserError(
            f"{where} is not an official Pixio encoder. Missing: {', '.join(absent)}; it has: "
            f"{format_names(list(weights))}."
        )
    cls_1qd, pos_1nd, proj_d3pp = (weights[key] for key in _REQUIRED_KEYS)
    if cls_1qd.ndim != 3 or pos_1nd.ndim != 3 or proj_d3pp.ndim != 4:
        shapes = ", ".join(f"{key} {tuple(weights[key].shape)}" for key in _REQUIRED_KEYS)
        raise UserError(f"{where} is not an official Pixio encoder; the shapes are {shapes}.")
    class_tokens, width = cls_1qd.shape[1:]
    depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    patch = proj_d3pp.shape[-1]
    side = round(max(pos_1nd.shape[1] - class_tokens, 0) ** 0.5)
    if side == 0 or side**2 + class_tokens != pos_1nd.shape[1]:
        raise UserError(f"{where}: pos_embed has {pos_1nd.shape[1]} positions, not {class_tokens} + a square number.")
    config = EncoderConfig(
        size=_model_size_name(width, depth, where), patch=patch, image_size=side * patch, class_tokens=class_tokens
    )
    converted = {
        VIT_PREFIX + key: value
        for key, value in weights.items()
        if key not in _REQUIRED_KEYS and key != "patch_embed.proj.bias"
    }
    converted[VIT_PREFIX + "cls_token"] = cls_1qd[0]
    converted[VIT_PREFIX + "cls_pos"] = pos_1nd[0, :class_tokens]
    converted[VIT_PREFIX + "patch_pos"] = pos_1nd[0, class_tokens:]
    converted[VIT_PREFIX + "patch_embed.weight"] = proj_d3pp.flatten(1)
    if "patch_embed.proj.bias" in weights:
        converted[VIT_PREFIX + "patch_embed.bias"] = weights["patch_embed.proj.bias"]
    return TrainedEncoder(config, converted, where)


def to_official(encoder: PixioEncoder) -> dict[str, Tensor]:
    """The encoder's weights with the official names, float32 on the CPU."""
    weights = {key.removeprefix(VIT_PREFIX): value.detach().cpu() for key, value in merged_state_dict(encoder).items()}
    patch = encoder.config.patch
    weights["cls_token"] = weights["cls_token"][None]
    weights["pos_embed"] = torch.cat([weights.pop("cls_pos"), weights.pop("patch_pos")])[None]
    weights["patch_embed.proj.weight"] = weights.pop("patch_embed.weight").unflatten(1, (3, patch, patch))
    weights["patch_embed.proj.bias"] = weights.pop("patch_embed.bias")
    return weights


def _model_size_name(width: int, depth: int, where: str | Path) -> str:
    for name, size in SIZES.items():
        if (size.width, size.depth) == (width, depth):
            return name
    sizes = ", ".join(f"{name} {size.width}x{size.depth}" for name, size in SIZES.items())
    raise UserError(f"{where} has width {width} and depth {depth}, which is not a known size (width x depth): {sizes}.")
