"""Read and write directories of Hugging Face's `PixioModel`, without transformers.

In memory, transformers (5.23) names a layer `layers.0.attention.q_proj`; on disk it uses older names such as
`encoder.layer.0.attention.attention.query`, which it renames when loading. Both are read; the older ones are written,
because every release with PixioModel can open them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.files import read_json, write_json
from pixio_robot.vision.checkpointing import (
    CONFIG,
    WEIGHTS,
    atomic_checkpoint_directory,
    check_state_dict,
    read_weights,
)
from pixio_robot.vision.config import SIZES
from pixio_robot.vision.layers import LAYER_NORM_EPS
from pixio_robot.vision.pixio import PixioEncoder, TrainedEncoder
from pixio_robot.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from pixio_robot.vision.safetensors_file import save_tensors
from pixio_robot.vision.weights.official import from_official, to_official

INDEX = "model.safetensors.index.json"
BICUBIC = 3
"""PIL's id of the filter, as stored by image processors."""

# From either naming to the one in memory; the order matters, since two different names end in `output.dense`.
_TO_MEMORY = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.", ".attention."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)
# In memory -> official, except for q, k and v.
_TO_OFFICIAL = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^layers\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"^layers\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"^layers\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.proj."),
    (r"^layers\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
)
# Official -> on disk, except for qkv.
_TO_DISK = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.", "encoder.layer."),
)


def read_huggingface(directory: str | Path) -> TrainedEncoder:
    """Read a PixioModel directory with either naming.

    Raises UserError listing keys that are missing or unexpected.
    """
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"There is no model directory {path}.")
    config = read_json(path / CONFIG)
    _check_config(config, path / CONFIG)
    weights = {_rename(key, _TO_MEMORY): value for key, value in _read_shards(path).items()}
    expected = _keys_in_memory(config["num_hidden_layers"])
    # Their shapes are checked under our own names.
    check_state_dict(dict.fromkeys(expected, torch.Size()), dict.fromkeys(weights, torch.Size()), path)
    encoder = from_official(_to_official(weights), path)
    heads = config["num_attention_heads"]
    if heads != encoder.config.heads:
        raise UserError(
            f"{path / CONFIG} has num_attention_heads={heads}; size {encoder.config.size!r} has {encoder.config.heads}."
        )
    return encoder


def save_huggingface(encoder: PixioEncoder, directory: str | Path) -> None:
    """Write a directory that `transformers.AutoModel.from_pretrained` opens as a PixioModel with the same outputs.

    It includes an image processor that resizes as the encoder does (to its native resolution if it does not). Raises
    UserError if there is anything but weights in `directory`.
    """
    weights: dict[str, Tensor] = {}
    for key, value in to_official(encoder).items():
        if ".attn.qkv." in key:
            prefix, suffix = key.replace("blocks.", "encoder.layer.").split(".attn.qkv.")
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                weights[f"{prefix}.attention.attention.{name}.{suffix}"] = part.contiguous()
        else:
            weights[_rename(key, _TO_DISK)] = value.contiguous()
    with atomic_checkpoint_directory(Path(directory)) as temporary:
        save_tensors(weights, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, _huggingface_config(encoder))
        write_json(temporary / "preprocessor_config.json", _image_processor_config(encoder))


def _huggingface_config(encoder: PixioEncoder) -> dict[str, Any]:
    config = encoder.config
    return {
        "architectures": ["PixioModel"],
        "model_type": "pixio",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "mlp_ratio": 4,
        "n_cls_tokens": config.class_tokens,
        "image_size": config.image_size,
        "patch_size": config.patch,
        "num_channels": 3,
        "layer_norm_eps": LAYER_NORM_EPS,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "drop_path_rate": 0.0,
        "dtype": "float32",
    }


def _image_processor_config(encoder: PixioEncoder) -> dict[str, Any]:
    side = encoder.config.resize or encoder.config.image_size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": BICUBIC,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }


def _check_config(config: Any, path: Path) -> None:
    if not isinstance(config, dict) or config.get("model_type") != "pixio":
        model_type = config.get("model_type") if isinstance(config, dict) else None
        raise UserError(f"{path} has model_type {model_type!r}, not 'pixio'.")
    # Missing keys have the defaults of transformers' PixioConfig.
    supported = {
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "layer_norm_eps": LAYER_NORM_EPS,
        "num_channels": 3,
    }
    for key, value in supported.items():
        if config.get(key, value) != value:
            raise UserError(f"{path} has {key}={config[key]!r}; only {value!r} is supported.")
    huge = SIZES["h"]
    config.setdefault("num_hidden_layers", huge.depth)
    config.setdefault("num_attention_heads", huge.heads)


def _read_shards(path: Path) -> dict[str, Tensor]:
    if not (path / INDEX).is_file():
        return read_weights(path / WEIGHTS)
    index = read_json(path / INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise UserError(f"{path / INDEX} holds no weight_map.")
    names = sorted(set(index["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{path / INDEX} names the file {name!r}, which is not in {path}.")
    return {key: value for name in names for key, value in read_weights(path / name).items()}


def _keys_in_memory(depth: int) -> set[str]:
    layer = ["layernorm_before", "layernorm_after", "mlp.fc1", "mlp.fc2"]
    layer += [f"attention.{name}_proj" for name in "qkvo"]
    modules = ["embeddings.patch_embeddings.projection", "layernorm"]
    modules += [f"layers.{i}.{name}" for i in range(depth) for name in layer]
    parameters = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    return parameters | {"embeddings.cls_token", "embeddings.position_embeddings"}


def _to_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    official: dict[str, Tensor] = {}
    for key, value in weights.items():
        if ".q_proj." in key:
            parts = [weights[key.replace(".q_proj.", f".{name}_proj.")] for name in "qkv"]
            layer, kind = re.fullmatch(r"layers\.(\d+)\.attention\.q_proj\.(\w+)", key).groups()  # type: ignore[union-attr]
            official[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
        elif ".k_proj." not in key and ".v_proj." not in key:
            official[_rename(key, _TO_OFFICIAL)] = value
    return official


def _rename(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
