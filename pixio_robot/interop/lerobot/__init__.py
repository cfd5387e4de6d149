"""Import and export of LeRobotDataset v3, both through the lerobot package and without network access."""

from __future__ import annotations

import json
from pathlib import Path

from pixio_robot.interop.demo_formats import Conversion
from pixio_robot.interop.lerobot.settings import ExportConfig, ImportConfig

__all__ = ["NAME", "SUMMARY", "ExportConfig", "ImportConfig", "export_demos", "import_demos", "recognises"]

NAME = "lerobot"
SUMMARY = "LeRobotDataset v3, with images or videos"


def recognises(path: Path) -> bool:
    from pixio_robot.interop.lerobot.features import INFO

    try:
        info = json.loads((path / INFO).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(info, dict) and {"codebase_version", "features"} <= set(info)


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    from pixio_robot.interop.lerobot.importer import import_dataset

    return import_dataset(source, out, config)


def export_demos(store: Path, out: Path, config: ExportConfig) -> Conversion:
    from pixio_robot.interop.lerobot.exporter import export_dataset

    return export_dataset(store, out, config)
