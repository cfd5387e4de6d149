"""HDF5 files of robomimic and of robosuite's data recorder: `data/demo_N` with states, actions and images."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import Conversion
from pixio_robot.interop.robomimic.renderer import OpenRenderer, StateRenderer
from pixio_robot.interop.robomimic.settings import ExportConfig, ImportConfig

__all__ = ["NAME", "SUMMARY", "ExportConfig", "ImportConfig", "export_demos", "import_demos", "recognises"]

NAME = "robomimic"
SUMMARY = "HDF5 files of robomimic and robosuite; cameras without stored images are rendered from the recorded states"


def recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    from pixio_robot.interop.robomimic.hdf5_file import is_robomimic  # h5py

    return is_robomimic(path)


def import_demos(source: Path, out: Path, config: ImportConfig, open_scene: OpenRenderer | None = None) -> Conversion:
    """`open_scene` renders recorded states; without it, only what the file contains can be imported."""
    from pixio_robot.interop.robomimic.importer import import_file

    return import_file(source, out, config, open_scene or _no_renderer)


def export_demos(store: Path, out: Path, config: ExportConfig) -> Conversion:
    from pixio_robot.interop.robomimic.exporter import export_file

    return export_file(store, out, config)


def _no_renderer(image_size: int, render_quality: str) -> StateRenderer:
    raise UserError("The file lacks observations that only a simulator can compute, and no simulator was provided.")
