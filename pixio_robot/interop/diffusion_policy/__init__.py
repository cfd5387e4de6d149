"""Replay buffers of diffusion_policy and UMI: Zarr v2, a folder or a zip archive, with all episodes concatenated."""

from pixio_robot.interop.diffusion_policy.container import recognises
from pixio_robot.interop.diffusion_policy.exporter import export_demos
from pixio_robot.interop.diffusion_policy.importer import import_demos
from pixio_robot.interop.diffusion_policy.settings import ExportConfig, ImportConfig

__all__ = ["NAME", "SUMMARY", "ExportConfig", "ImportConfig", "export_demos", "import_demos", "recognises"]

NAME = "diffusion_policy"
SUMMARY = "Zarr v2 replay buffers of diffusion_policy and UMI, folders or .zarr.zip"
