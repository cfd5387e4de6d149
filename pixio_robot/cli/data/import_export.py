"""`pixio-robot data import|export`: convert demonstrations from and to the formats of other tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from pixio_robot.cli.arguments import check_path_count, parse_settings, print_result, split_arguments
from pixio_robot.errors import UserError

if TYPE_CHECKING:
    from envs.robomimic.recorded_scene import StateRenderer
    from pixio_robot.interop.demo_formats import ImportFormat


def import_demos(arguments: list[str]) -> int:
    from pixio_robot.interop.demo_formats import detect_format, load_import_format, missing_path_error

    if _wants_help(arguments):
        return _print_help("import", "SRC out=STORE [format=NAME]", "ImportConfig")
    paths, pairs = split_arguments(arguments)
    check_path_count("data import", paths)
    out, name = _pop_out_path("import", pairs), pairs.pop("format", "")
    if not paths[0].exists():
        raise missing_path_error(paths[0])
    form = load_import_format(name) if name else detect_format(paths[0])
    config = parse_settings("data import", pairs, form.ImportConfig)
    outcome = form.import_demos(paths[0], out, config, **SIMULATORS.get(form.NAME, {}))
    return print_result(f"{paths[0]} ({form.NAME}) -> {out}", outcome.episodes, outcome.frames, outcome.notes)


def export_demos(arguments: list[str]) -> int:
    from pixio_robot.interop.demo_formats import EXPORTS, load_export_format

    if _wants_help(arguments):
        return _print_help("export", "STORE out=PATH format=NAME", "ExportConfig")
    paths, pairs = split_arguments(arguments)
    check_path_count("data export", paths)
    out, name = _pop_out_path("export", pairs), pairs.pop("format", "")
    if not name:
        raise UserError(f"`data export` needs format={'|'.join(EXPORTS)}.")
    form = load_export_format(name)
    outcome = form.export_demos(paths[0], out, parse_settings("data export", pairs, form.ExportConfig))
    return print_result(f"{paths[0]} -> {out} ({form.NAME})", outcome.episodes, outcome.frames, outcome.notes)


def _open_robosuite_scene(image_size: int, render_quality: str) -> StateRenderer:
    from envs.robomimic.recorded_scene import StateRenderer

    return StateRenderer(image_size, render_quality)


SIMULATORS: dict[str, dict[str, Any]] = {"robomimic": {"open_scene": _open_robosuite_scene}}
"""Simulator access for import formats; passed in here because `interop` does not import `envs`."""


def _pop_out_path(action: str, pairs: dict[str, str]) -> Path:
    if not pairs.get("out"):
        raise UserError(f"`data {action}` needs out=...")
    return Path(pairs.pop("out"))


def _wants_help(arguments: Iterable[str]) -> bool:
    return bool({"-h", "--help"} & set(arguments))


def _print_help(action: str, usage: str, config: str) -> int:
    from pixio_robot.interop.demo_formats import EXPORTS, MODULES, load_import_format

    print(f"usage: pixio-robot data {action} {usage} [key=value ...]")
    for form in map(load_import_format, MODULES if config == "ImportConfig" else EXPORTS):
        print(f"\nformat={form.NAME}: {form.SUMMARY}")
        _print_settings(form, getattr(form, config))
    return 0


def _print_settings(form: ImportFormat, config: Any) -> None:
    fields = dataclasses.fields(config)
    for field in fields:
        default = field.default_factory() if field.default is dataclasses.MISSING else field.default  # pyright: ignore[reportCallIssue]
        value = ",".join(default) if isinstance(default, list) else getattr(default, "value", default)
        print(f"  {field.name}=" + ("... (required)" if value == MISSING else f"{value}"))
    for line in (config.__doc__ or "").strip().splitlines() if fields else ():
        print(f"    {line.strip()}")
