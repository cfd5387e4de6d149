"""One piece of footage to one tar of JPEG frames: the job of an ingest's worker processes.

What it commits is a directory with `frames-000000.tar`, `frames.npy` and `result.json`, all or nothing. Footage that
cannot be used commits a `result.json` with its reason alone, so that a restarted ingest does not try it again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pixio_robot.data.footage import Footage
from pixio_robot.data.images import CorruptImage, decode_photo, encode_jpeg, shrink_short_side
from pixio_robot.data.shards import ShardWriter
from pixio_robot.data.video import Sampling, VideoError, decode_frames, probe
from pixio_robot.files import atomic_directory, write_json

RESULT, FRAMES = "result.json", "frames"

THUMBNAIL = 64
READ_BYTES = 16 * 2**20
NO_SHARD_LIMIT = 2**62


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """Everything that decides the frames of one piece of footage; see `IngestConfig` for the units."""

    sampling: Sampling
    frames_per_second: float
    every: int
    max_frames_per_video: int
    short_side: int
    jpeg_quality: int
    min_change: float

    def key(self, footage: Footage) -> str:
        """Equal keys mean equal frames."""
        settings = dataclasses.asdict(self) | {"sampling": self.sampling.value}
        text = repr((footage.id, footage.stamp, sorted(settings.items())))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class ExtractJob:
    footage: Footage
    extraction: Extraction
    target: Path


def extract(job: ExtractJob, report: Callable[[float], None]) -> None:
    """Decode, sample, drop what stands still, shrink, encode; commit at `job.target`. Reports seconds of video."""
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"sha256": "", "frames": 0, "seconds": 0.0, "static": 0, "over_limit": 0}
    result |= {"failure": None, "bad_images": []}
    with atomic_directory(job.target) as directory:
        try:
            result["sha256"] = _sha256(job.footage, report)
            _write_frames(job, directory, result, report)
        except (VideoError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                raise  # not the source's fault: the disk is full, or the parent is gone
            for written in directory.iterdir():
                written.unlink()
            result |= {"failure": str(error), "frames": 0, "static": 0, "over_limit": 0}
        write_json(directory / RESULT, result)


def _write_frames(job: ExtractJob, directory: Path, result: dict[str, Any], report: Callable[[float], None]) -> None:
    footage, extraction = job.footage, job.extraction
    frames = _video_frames(footage, extraction) if footage.is_video else _photos(footage, extraction, result)
    writer = ShardWriter(directory, FRAMES, NO_SHARD_LIMIT)
    last_kept, last_s = None, 0.0
    for time_s, image in frames:
        if footage.is_video:
            report(time_s - last_s)
            last_s = result["seconds"] = time_s
            if writer.frames >= extraction.max_frames_per_video:
                result["over_limit"] += 1
                continue
            thumbnail = _thumbnail(image)
            if last_kept is not None and np.abs(thumbnail - last_kept).mean() < extraction.min_change:
                result["static"] += 1
                continue
            last_kept = thumbnail
        else:
            report(0.0)
        height, width = image.shape[:2]
        record = {"video": 0, "time_s": time_s, "height": height, "width": width}
        jpeg = encode_jpeg(image, extraction.jpeg_quality)
        writer.add(jpeg, video_id=footage.id, number=writer.frames, record=record)
    writer.close()
    result["frames"] = writer.frames
    if writer.frames == 0:
        raise VideoError("no readable image")


def _video_frames(footage: Footage, extraction: Extraction) -> Iterator[tuple[float, np.ndarray]]:
    path = footage.paths[0]
    rate = extraction.frames_per_second
    duration_s = probe(path).duration_s
    if duration_s:  # spread the frames of a long video over all of it, instead of taking its beginning
        rate = min(rate, extraction.max_frames_per_video / duration_s)
    return decode_frames(
        path,
        sampling=extraction.sampling,
        frames_per_second=rate,
        every=extraction.every,
        short_side=extraction.short_side,
    )


def _photos(footage: Footage, extraction: Extraction, result: dict[str, Any]) -> Iterator[tuple[float, np.ndarray]]:
    """Photographs have no time: their number in the folder stands for it."""
    for number, path in enumerate(footage.paths):
        try:
            image = decode_photo(path.read_bytes(), path.name)
        except (CorruptImage, OSError) as error:
            result["bad_images"].append({"file": path.name, "reason": str(error)})
            continue
        yield float(number), shrink_short_side(image, extraction.short_side)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Grey levels of a small copy: averaging takes sensor and coding noise out of the comparison."""
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _sha256(footage: Footage, report: Callable[[float], None]) -> str:
    digest = hashlib.sha256()
    for path in footage.paths:
        if not footage.is_video and not path.exists():
            continue
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
                report(0.0)
    return digest.hexdigest()
