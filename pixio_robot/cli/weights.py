"""`pixio-robot weights info|convert|export`: inspect, convert and export Pixio encoder weights."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixio_robot.cli.arguments import NoSettings, parse_arguments, parse_one_path
from pixio_robot.errors import UserError, unknown_name

if TYPE_CHECKING:
    from pixio_robot.vision.pixio import PixioEncoder

HELP = """\
usage: pixio-robot weights info SRC
           show format, size, parameters and fingerprint
       pixio-robot weights convert SRC DST [format=ours|huggingface|official] [overwrite=true]
           convert the encoder to another weight format; default: ours
       pixio-robot weights export SRC DST [format=onnx|torch_export] [size=HEIGHTxWIDTH] [overwrite=true]
           export a model that runs without pixio-robot, on uint8 images (batch, height, width, 3); verified after
           writing; default: onnx

SRC is a pixio-robot directory (an encoder, or a policy with one), a Hugging Face directory, an official .pth file, or a
hub name."""


@dataclass(kw_only=True)
class ConvertSettings:
    format: str = ""
    overwrite: bool = False


@dataclass(kw_only=True)
class ExportSettings:
    format: str = "onnx"
    size: str = ""
    overwrite: bool = False


def _info(words: list[str]) -> int:
    source, _ = parse_one_path("weights info", words, NoSettings)
    encoder, format_name = _load_encoder(source)
    config = encoder.config
    millions = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    print(f"{source}: format {format_name}, size {config.size}, {millions:.1f} M parameters")
    print(f"  width {config.width}, depth {config.depth}, heads {config.heads}, class tokens {config.class_tokens}")
    resize = "not resized" if config.resize is None else f"resized to {config.resize} px"
    print(f"  patch {config.patch} px, position embeddings for {config.image_size} px, images {resize}")
    print(f"  fingerprint {encoder.fingerprint()}")
    return 0


def _convert(words: list[str]) -> int:
    (source, target), settings = parse_arguments("weights convert", words, ConvertSettings, count=2)
    from pixio_robot.vision.weights.formats import WeightFormat, open_pixio_weights, save_encoder_as

    # An encoder cannot be saved as a policy.
    target_format = _parse_choice(WeightFormat, settings.format or WeightFormat.OURS.value, but=[WeightFormat.POLICY])
    if not settings.format and target.suffix.lower() in _FILE_SUFFIXES:
        raise UserError(
            f"{target} looks like a file, but our format is a directory: set format=official for a .pth file, or "
            "format=ours for a directory of that name."
        )
    _refuse_existing(target, settings.overwrite)
    encoder, format_name = _load_encoder(source)
    save_encoder_as(encoder, target, target_format)
    if open_pixio_weights(target).build().state_dict().keys() != encoder.state_dict().keys():
        raise AssertionError(f"{target} does not contain all weights after writing")
    print(f"{source} ({format_name}) -> {target} ({target_format.value})")
    return 0


def _export(words: list[str]) -> int:
    (source, target), settings = parse_arguments("weights export", words, ExportSettings, count=2)
    from pixio_robot.interop.encoder_export import ExportFormat, export_encoder

    target_format = _parse_choice(ExportFormat, settings.format)
    _refuse_existing(target, settings.overwrite)
    encoder, _ = _load_encoder(source)
    height, width = _parse_size(settings.size, encoder.config.resize or encoder.config.image_size)
    encoder.grid(height, width)  # rejects an unsuitable size before tracing
    difference = export_encoder(encoder, target, target_format, height, width)
    print(f"{source} -> {target} ({target_format.value}, images {height}x{width}); largest difference {difference:.1g}")
    return 0


def _load_encoder(source: Path) -> tuple[PixioEncoder, str]:
    """The encoder at a path or hub name, and the format it was stored in."""
    from pixio_robot.vision.weights.formats import detect_format, open_pixio_weights, resolve_weights_path

    path = resolve_weights_path(source)
    return open_pixio_weights(path).build(), detect_format(path).value


def _parse_choice[E: enum.Enum](kind: type[E], value: str, but: Sequence[E] = ()) -> E:
    names = [member.value for member in kind if member not in but]
    if value not in names:
        raise unknown_name("format", value, names)
    return kind(value)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already; overwrite=true replaces it.")
    if target.is_dir():
        from pixio_robot.vision.checkpointing import check_replaceable

        check_replaceable(target)


def _parse_size(text: str, default: int) -> tuple[int, int]:
    if not text:
        return default, default
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UserError(f"size={text} must be HEIGHTxWIDTH in pixels, such as 256x256.")
    return int(height), int(width)


_FILE_SUFFIXES = (".pth", ".pt")

ACTIONS = {"info": _info, "convert": _convert, "export": _export}


def main(arguments: list[str]) -> int:
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP)
        return 0
    action, *words = arguments
    if action not in ACTIONS:
        raise unknown_name("`weights` action", action, ACTIONS)
    return ACTIONS[action](words)
