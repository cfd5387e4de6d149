"""One value for every frame of a split, computed in chunks by any number of workers; can be stopped and resumed.

scores/pixels.json          the key: everything that the values depend on
scores/pixels.npy           one value or row per frame, memory-mapped by readers
scores/pixels.footage.json  the footage of these rows, in order
scores/.pixels/             only while unfinished: the key, and one file per finished chunk

After footage was added, only its frames are scored: the rows of the rest are taken over. The division into chunks
depends on the frames alone, so the finished file does not depend on the workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.images.shards import MANIFEST, FrameShards
from pixio_robot.data.jobs.executor import Executor, Job, run_tasks
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json, remove_temporaries, write_json
from pixio_robot.progress import Progress

KEY = "key.json"
SMALLEST_CHUNK, LARGEST_CHUNK, USUAL_CHUNKS = 256, 8192, 2000
"""Frames per chunk: small enough that an interruption costs little, large enough that 1e8 frames make about ten
thousand files."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The frames [start, stop) of one split; `save` stores their values."""

    data: str
    split: str
    start: int
    stop: int
    target: str

    def save(self, values: np.ndarray) -> None:
        """Write `values` (stop - start, ...) atomically."""
        if len(values) != self.stop - self.start:
            raise ValueError(f"{len(values)} values for {self.stop - self.start} frames")
        with atomic_file(Path(self.target)) as temporary:
            np.save(temporary, values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """How to compute one score: `job(argument(chunk), report)` in a worker, which calls `chunk.save` and `report`."""

    name: str
    title: str
    """Shown in the progress bar."""
    settings: Mapping[str, Any]
    """JSON values that the scores depend on, such as a model's fingerprint."""
    job: Job
    argument: Callable[[Chunk], Any]
    local_workers: int | None = None
    """Overrides the number of processes on this machine; one where they would all share its GPU."""
    gpus: float = 0.0
    """Fraction of a GPU that each worker reserves on a Ray cluster."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workers:
    """Where to compute columns; see `executor.run_tasks`."""

    executor: Executor = Executor.PROCESSES
    workers: int = 0
    timeout_s: float = 300.0


def data_digest(shards: FrameShards) -> str:
    """Identifies the frames of one finished ingest."""
    return hashlib.sha256((shards.path / MANIFEST).read_bytes()).hexdigest()


def compute_column(column: ScoreColumn, shards: FrameShards, directory: Path, workers: Workers) -> np.ndarray:
    """The finished column (n, ...), memory-mapped; computed where `directory` does not contain it already.

    Raises UserError if a worker crashed or hung; finished chunks are kept, and the next call computes the rest.
    """
    stored, work = _Stored(directory, column.name), directory / f".{column.name}"
    footage = _footage(shards)
    key = {"footage": _digest(footage), "split": shards.split, "frames": len(shards)} | dict(column.settings)
    if not (stored.file.is_file() and stored.key == key):
        if work.is_dir() and not ((work / KEY).is_file() and read_json(work / KEY) == key):
            shutil.rmtree(work)
        if not work.is_dir():
            work.mkdir(parents=True)
            write_json(work / KEY, key)
        remove_temporaries(work)
        known = stored.known(key, footage)
        chunks = _chunks(shards, known, work)
        if chunks:
            _compute_missing(column, chunks, len(shards), workers)
        _merge(stored, chunks, known, len(shards))
        write_json(stored.footage_file, footage)
        write_json(stored.key_file, key)
    shutil.rmtree(work, ignore_errors=True)
    return np.load(stored.file, mmap_mode="r", allow_pickle=False)


def _footage(shards: FrameShards) -> list[list]:
    """[key, number of frames] of every piece of footage in the split, in the order of their frames. Equal keys mean
    equal frames (`extract.Extraction.key`)."""
    return [
        [video["key"], video["frames"]]
        for video in shards.manifest["videos"]
        if video["split"] == shards.split and video["frames"]
    ]


def _digest(footage: list[list]) -> str:
    return hashlib.sha256(json.dumps(footage).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Known:
    """Rows that an earlier column has: [old, old + frames) of it are [new, new + frames) now."""

    old: int
    new: int
    frames: int


class _Stored:
    """A column on disk. Without a key, `file` counts as unfinished."""

    def __init__(self, directory: Path, name: str) -> None:
        self.file, self.key_file, self.footage_file = (
            directory / f"{name}{suffix}" for suffix in (".npy", ".json", ".footage.json")
        )

    @property
    def key(self) -> dict[str, Any] | None:
        return read_json(self.key_file) if self.key_file.is_file() else None

    def known(self, key: dict[str, Any], footage: list[list]) -> list[_Known]:
        """The rows that can be taken over, in the order of the new frames: those of unchanged footage, if the column
        was computed with the same settings."""
        then, may_differ = self.key or {}, {"footage": None, "frames": None}
        if then | may_differ != key | may_differ or not (self.file.is_file() and self.footage_file.is_file()):
            return []
        earlier = read_json(self.footage_file)
        if _digest(earlier) != then["footage"]:
            return []
        ends = itertools.accumulate(frames for _, frames in earlier)
        places = {identity: end - frames for (identity, frames), end in zip(earlier, ends, strict=True)}
        ends = itertools.accumulate(frames for _, frames in footage)
        return [
            _Known(places[identity], end - frames, frames)
            for (identity, frames), end in zip(footage, ends, strict=True)
            if identity in places
        ]


def _chunks(shards: FrameShards, known: list[_Known], work: Path) -> list[Chunk]:
    """Chunks of all frames but the known ones."""
    frames = len(shards)
    size = min(max(frames // USUAL_CHUNKS, SMALLEST_CHUNK), LARGEST_CHUNK)
    data = str(shards.path.absolute())
    gaps = zip([0, *(part.new + part.frames for part in known)], [*(part.new for part in known), frames], strict=True)
    spans = [(start, min(start + size, end)) for begin, end in gaps for start in range(begin, end, size)]
    return [
        Chunk(data, shards.split, start, stop, str((work / f"{start:012d}-{stop:012d}.npy").absolute()))
        for start, stop in spans
    ]


def _compute_missing(column: ScoreColumn, chunks: list[Chunk], frames: int, workers: Workers) -> None:
    missing = [chunk for chunk in chunks if not Path(chunk.target).is_file()]
    done = frames - sum(chunk.stop - chunk.start for chunk in missing)
    shared = column.local_workers is not None and workers.executor is Executor.PROCESSES
    with Progress(column.title, frames, done) as progress:
        outcomes = run_tasks(
            column.job,
            [column.argument(chunk) for chunk in missing],
            executor=workers.executor,
            workers=column.local_workers if shared and column.local_workers else workers.workers,
            timeout_s=workers.timeout_s,
            on_progress=progress.advance,
            gpus=column.gpus,
        )
        failures = [outcome for outcome in outcomes if outcome.failure is not None]
    if failures:
        first = missing[failures[0].index]
        raise UserError(
            f"{len(failures)} of {len(chunks)} chunks of the score {column.name!r} failed; frames {first.start} to "
            f"{first.stop - 1}: {failures[0].failure}. The others are kept; run the same command again to finish."
        )


def _merge(stored: _Stored, chunks: list[Chunk], known: list[_Known], frames: int) -> None:
    source = np.load(stored.file if known else chunks[0].target, mmap_mode="r", allow_pickle=False)
    with atomic_file(stored.file) as temporary:
        merged = np.lib.format.open_memmap(temporary, "w+", source.dtype, (frames, *source.shape[1:]))
        for chunk in chunks:
            merged[chunk.start : chunk.stop] = np.load(chunk.target, allow_pickle=False)
        for part in known:
            merged[part.new : part.new + part.frames] = source[part.old : part.old + part.frames]
        merged.flush()
        stored.key_file.unlink(missing_ok=True)
