"""Extract one piece of footage into one tar of JPEG frames: the job of an ingest's worker processes.

It atomically writes a directory with `frames-000000.tar`, `frames.npy` and `result.json`. For footage that cannot be
used, only a `result.json` with the reason is written, so that a restarted ingest does not try it again.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pixio_robot.data.footage.frames import ReadSettings, SkippedContent, read_frames
from pixio_robot.data.footage.kinds import Footage, FootageKind
from pixio_robot.data.images.codec import encode_jpeg
from pixio_robot.data.images.perceptual_hash import perceptual_hash
from pixio_robot.data.images.shards import ShardWriter
from pixio_robot.data.ingest.frame_sampling import Sampling
from pixio_robot.data.ingest.privacy import PrivacyError, apply_privacy_hook, load_hook
from pixio_robot.data.video.container import VideoError
from pixio_robot.files import atomic_directory, read_json, write_json

RESULT, FRAMES = "result.json", "frames"

THUMBNAIL = 64
READ_BYTES = 16 * 2**20
NO_SHARD_LIMIT = 2**62
RULES, RULES_OF_KEYFRAMES, RULES_OF_STILLS = 5, 6, 7
"""Part of the key: increase them when the same footage and settings result in different frames."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction(ReadSettings):
    """All settings that affect the frames of a piece of footage."""

    jpeg_quality: int
    min_change: float
    privacy: str
    privacy_sha256: str

    def key(self, footage: Footage) -> str:
        """Equal keys mean equal frames."""
        settings = dataclasses.asdict(self) | {"sampling": self.sampling.value}
        rules = RULES_OF_KEYFRAMES if self.sampling is Sampling.KEYFRAMES else RULES
        rules = RULES_OF_STILLS if footage.kind in (FootageKind.IMAGES, FootageKind.TAR) else rules
        text = repr((rules, footage.id, footage.stamp, sorted(settings.items())))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class ExtractJob:
    footage: Footage
    extraction: Extraction
    target: Path


def empty_result(failure: str | None) -> dict[str, Any]:
    """The result for footage without any frame (yet)."""
    numbers = dict.fromkeys(("frames", "static", "over_limit", "damaged", "hidden_regions", "frames_hidden_in"), 0)
    return {"sha256": "", "seconds": 0.0, "failure": failure, "bad_images": []} | numbers


def extract_frames(job: ExtractJob, report: Callable[[float], None]) -> float:
    """Decode, sample, drop what stands still, shrink, encode; commit at `job.target`.

    Reports seconds of video as it goes, and returns how many there were.
    """
    cv2.setNumThreads(1)
    result = empty_result(None)
    with atomic_directory(job.target) as directory:
        try:
            result["sha256"] = _sha256_once(job, report)
            _write_frames(job, directory, result, report)
        except (VideoError, PrivacyError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                raise  # not caused by the source: the disk is full, or the parent process is gone
            for written in directory.iterdir():
                written.unlink()
            kept = {name: result[name] for name in ("sha256", "seconds", "bad_images")}
            result = empty_result(_failure_reason(error, job.footage)) | kept
        write_json(directory / RESULT, result)
    # PyAV's frames and side data form reference cycles: without this, a worker would keep frames of many files.
    gc.collect()
    return result["seconds"]


def _failure_reason(error: VideoError | PrivacyError | OSError, footage: Footage) -> str:
    """The reason without any path, so that it does not depend on where the footage is; its id is stored beside it."""
    if not isinstance(error, OSError):
        return str(error)
    if any(path.is_symlink() and not path.exists() for path in footage.paths):
        return "dangling link"
    return f"could not be read ({error.strerror})"


def _write_frames(job: ExtractJob, directory: Path, result: dict[str, Any], report: Callable[[float], None]) -> None:
    footage, extraction = job.footage, job.extraction
    hook = load_hook(extraction.privacy) if extraction.privacy else None
    writer = ShardWriter(directory, FRAMES, NO_SHARD_LIMIT)
    last_kept, last_s = None, 0.0
    skipped = SkippedContent(images=result["bad_images"])
    for time_s, image in read_frames(footage, extraction, skipped):
        report(time_s - last_s if footage.kind.timed else 0.0)
        last_s = time_s
        if footage.kind.timed:
            result["seconds"] = time_s
        if writer.frames >= extraction.max_frames_per_video:
            result["over_limit"] += 1
            continue
        thumbnail = _thumbnail(image)
        if footage.kind.timed:
            if last_kept is not None and np.abs(thumbnail - last_kept).mean() < extraction.min_change:
                result["static"] += 1
                continue
            last_kept = thumbnail
        if hook is not None:
            image, regions = apply_privacy_hook(image, hook)
            result["hidden_regions"] += regions
            result["frames_hidden_in"] += regions > 0
            thumbnail = _thumbnail(image)
        height, width = image.shape[:2]
        record = {"video": 0, "time_s": time_s, "height": height, "width": width, "phash": perceptual_hash(thumbnail)}
        jpeg = encode_jpeg(image, extraction.jpeg_quality)
        writer.add(jpeg, video_id=footage.id, number=writer.frames, record=record)
    writer.close()
    result["frames"], result["damaged"] = writer.frames, skipped.frames
    result["over_limit"] += skipped.over_limit
    if writer.frames == 0:
        raise VideoError("no readable image")


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Grey levels of a small copy: averaging removes sensor and compression noise from the comparison."""
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _sha256_once(job: ExtractJob, report: Callable[[float], None]) -> str:
    """Hash of the footage. As many episodes of a LeRobot data set share one file, its hash is cached beside the
    targets."""
    footage = job.footage
    if footage.segment_s is None:
        return _sha256(footage, report)
    stat = footage.paths[0].stat()
    name = hashlib.sha256(repr((str(footage.paths[0]), stat.st_size, stat.st_mtime_ns)).encode()).hexdigest()[:32]
    note = job.target.parent / f"sha256-{name}.json"
    if not note.is_file():
        write_json(note, _sha256(footage, report))
    return read_json(note)


def _sha256(footage: Footage, report: Callable[[float], None]) -> str:
    digest = hashlib.sha256()
    for path in footage.paths:
        if footage.kind is FootageKind.IMAGES and not path.exists():
            continue
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
                report(0.0)
    return digest.hexdigest()
