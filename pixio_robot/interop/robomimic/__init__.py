"""HDF5 files of robomimic and of robosuite's data recorder: `data/demo_N` with states, actions and images."""

from pixio_robot.interop.robomimic.exporter import export_demos
from pixio_robot.interop.robomimic.hdf5_file import recognises
from pixio_robot.interop.robomimic.importer import import_demos
from pixio_robot.interop.robomimic.settings import ExportConfig, ImportConfig

__all__ = ["NAME", "SUMMARY", "ExportConfig", "ImportConfig", "export_demos", "import_demos", "recognises"]

NAME = "robomimic"
SUMMARY = "HDF5 files of robomimic and robosuite; cameras without stored images are rendered from the recorded states"
