"""Export of a demonstration store to a LeRobotDataset v3."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixio_robot.data.demos.editing.rewrite import open_for_streaming
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.interop.demo_formats import Conversion, write_atomically
from pixio_robot.interop.lerobot.extra_metadata import FILE
from pixio_robot.interop.lerobot.features import IMAGES, choose_columns
from pixio_robot.interop.lerobot.reader import LeRobotFiles
from pixio_robot.interop.lerobot.settings import ExportConfig, Images, ImportConfig
from pixio_robot.interop.lerobot.writer import write_lerobot


def export_demos(store: Path, out: Path, config: ExportConfig) -> Conversion:
    demos = open_for_streaming(store)
    video = config.images is Images.VIDEO and bool(demos.spec.cameras)
    encoder = {"vcodec": config.codec, "crf": config.crf, "pix_fmt": config.pix_fmt, "g": config.gop}
    notes = [f"the DemoSpec, seeds and infos are kept in {FILE}, which only pixio-robot reads"]
    with write_atomically(out) as built:
        write_lerobot(demos, built, repo_id=config.repo_id or f"local/{out.name}", encoder=encoder if video else None)
        if video:
            notes += _compression_errors(demos, built, config)
    return Conversion(len(demos), int(demos.lengths.sum()), notes)


def _compression_errors(store: DemoStore, root: Path, config: ExportConfig) -> list[str]:
    """Notes on how much the codec changed the first episode."""
    files = LeRobotFiles(root)
    settings = ImportConfig()
    record = next(files.records(choose_columns(files.features, settings), settings.tolerance_s))
    notes = []
    for camera, frames in record.images.items():
        error = np.abs(frames.astype(np.int16) - store.images(0, camera))
        notes.append(
            f"{IMAGES}{camera}: {config.codec}, crf {config.crf}, {config.pix_fmt} changes pixels by "
            f"{error.mean():.1f} of 255 on average, {error.max()} at most (in episode 0)"
        )
    return notes
