"""One value for every frame of a split, computed in chunks by any number of workers; can be stopped and resumed.

scores/pixels.json      the key: everything that the values depend on
scores/pixels.npy       one value or row per frame, memory-mapped by readers
scores/.pixels/         only while unfinished: the key, and one file per finished chunk

The division into chunks depends on the number of frames alone, so the finished file does not depend on the workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.curation.progress import scoring_progress
from pixio_robot.data.executor import Executor, Job, run_tasks
from pixio_robot.data.shards import MANIFEST, FrameShards
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json, sweep_temporaries, write_json

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
class Column:
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
    show_progress: bool = True


def data_digest(shards: FrameShards) -> str:
    """Identifies the frames of one finished ingest."""
    return hashlib.sha256((shards.path / MANIFEST).read_bytes()).hexdigest()


def compute(column: Column, shards: FrameShards, directory: Path, workers: Workers) -> np.ndarray:
    """The finished column (n, ...), memory-mapped; computed unless `directory` already contains it.

    Raises UserError if a worker crashed or hung; finished chunks are kept, and the next call computes the rest.
    """
    file, key_file, work = (
        directory / f"{column.name}.npy",
        directory / f"{column.name}.json",
        directory / _work(column),
    )
    key = {"data": data_digest(shards), "split": shards.split, "frames": len(shards)} | dict(column.settings)
    if not (file.is_file() and key_file.is_file() and read_json(key_file) == key):
        key_file.unlink(missing_ok=True)  # from here on, `file` is considered unfinished
        if work.is_dir() and not ((work / KEY).is_file() and read_json(work / KEY) == key):
            shutil.rmtree(work)
        if not work.is_dir():
            work.mkdir(parents=True)
            write_json(work / KEY, key)
        sweep_temporaries(work)
        chunks = _chunks(shards, work)
        _compute_missing(column, chunks, len(shards), workers)
        _merge(chunks, file, len(shards))
        write_json(key_file, key)
    shutil.rmtree(work, ignore_errors=True)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _work(column: Column) -> str:
    return f".{column.name}"


def _chunks(shards: FrameShards, work: Path) -> list[Chunk]:
    frames = len(shards)
    size = min(max(frames // USUAL_CHUNKS, SMALLEST_CHUNK), LARGEST_CHUNK)
    data = str(shards.path.absolute())
    return [
        Chunk(data, shards.split, start, min(start + size, frames), str((work / f"{start:012d}.npy").absolute()))
        for start in range(0, frames, size)
    ]


def _compute_missing(column: Column, chunks: list[Chunk], frames: int, workers: Workers) -> None:
    missing = [chunk for chunk in chunks if not Path(chunk.target).is_file()]
    there = frames - sum(chunk.stop - chunk.start for chunk in missing)
    shared = column.local_workers is not None and workers.executor is Executor.PROCESSES
    with scoring_progress(column.title, frames, there, workers.show_progress) as scored:
        outcomes = run_tasks(
            column.job,
            [column.argument(chunk) for chunk in missing],
            executor=workers.executor,
            workers=column.local_workers if shared and column.local_workers else workers.workers,
            timeout_s=workers.timeout_s,
            on_progress=scored,
            gpus=column.gpus,
        )
        failures = [outcome for outcome in outcomes if outcome.failure is not None]
    if failures:
        first = missing[failures[0].index]
        raise UserError(
            f"{len(failures)} of {len(chunks)} chunks of the score {column.name!r} failed; frames {first.start} to "
            f"{first.stop - 1}: {failures[0].failure}. The others are kept; run the same command again to finish."
        )


def _merge(chunks: list[Chunk], file: Path, frames: int) -> None:
    first = np.load(chunks[0].target, mmap_mode="r", allow_pickle=False)
    with atomic_file(file) as temporary:
        merged = np.lib.format.open_memmap(temporary, "w+", first.dtype, (frames, *first.shape[1:]))
        for chunk in chunks:
            merged[chunk.start : chunk.stop] = np.load(chunk.target, allow_pickle=False)
        merged.flush()
