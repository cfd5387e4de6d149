"""Import and export of LeRobotDataset v3, both through the lerobot package and without network access."""

from pixio_robot.interop.lerobot.exporter import export_demos
from pixio_robot.interop.lerobot.importer import import_demos
from pixio_robot.interop.lerobot.reader import recognises
from pixio_robot.interop.lerobot.settings import ExportConfig, ImportConfig

__all__ = ["NAME", "SUMMARY", "ExportConfig", "ImportConfig", "export_demos", "import_demos", "recognises"]

NAME = "lerobot"
SUMMARY = "LeRobotDataset v3, with images or videos"
