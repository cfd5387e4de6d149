"""Replay buffers of diffusion_policy and UMI: Zarr v2, a folder or a zip archive, with all episodes concatenated."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.interop.demo_formats import Conversion
from pixio_robot.interop.diffusion_policy.settings import ExportConfig, ImportConfig

__all__ = ["NAME", "SUMMARY", "ExportConfig", "ImportConfig", "export_demos", "import_demos", "recognises"]

NAME = "diffusion_policy"
SUMMARY = "Zarr v2 replay buffers of diffusion_policy and UMI, folders or .zarr.zip"


def recognises(path: Path) -> bool:
    from pixio_robot.interop.diffusion_policy.container import is_store

    return is_store(path)


def import_demos(source: Path, out: Path, config: ImportConfig) -> Conversion:
    from pixio_robot.interop.diffusion_policy.importer import import_buffer

    return import_buffer(source, out, config)


def export_demos(store: Path, out: Path, config: ExportConfig) -> Conversion:
    from pixio_robot.interop.diffusion_policy.exporter import export_buffer

    return export_buffer(store, out, config)
