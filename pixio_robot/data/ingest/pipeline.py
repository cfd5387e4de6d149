"""Turn footage into shards of frames: decode every video in a worker process, then pack in a fixed order.

The finished folder depends on the source and the settings alone: neither the number of workers nor an interruption
changes a byte. Decoded footage is kept in `.<name>.ingest` beside `out`; packing renames the finished folder into
place. A later run reuses the unchanged frames of existing shards.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from pixio_robot.data.footage.kinds import Footage
from pixio_robot.data.footage.search import find_footage
from pixio_robot.data.images.shards import (
    MANIFEST,
    SPLITS,
    ShardReader,
    check_shard_files,
    ingest_work_directory,
    read_manifest,
)
from pixio_robot.data.ingest.extract import FRAMES, RESULT, Extraction, ExtractJob, empty_result, extract_frames
from pixio_robot.data.ingest.frame_sampling import Sampling
from pixio_robot.data.ingest.packing import Packable, pack_shards
from pixio_robot.data.ingest.privacy import PrivacyHook, hook_name, hook_sha256
from pixio_robot.data.ingest.progress import IngestProgress
from pixio_robot.data.jobs.executor import Executor, run_tasks
from pixio_robot.errors import UserError, format_names
from pixio_robot.fields import check_fields, number
from pixio_robot.files import file_lock, read_json, remove_temporaries, staging_directory

NOT_RECORDED = ("source", "out", "workers", "executor", "timeout_s", "drop_missing")
"""Settings that do not change what the shards contain."""


@dataclasses.dataclass(kw_only=True)
class IngestConfig:
    """What to extract from `source` (a folder, searched recursively) and how to store it in `out`.

    Reads videos, images, tars of images, LeRobot data sets (their videos) and Zarr demonstrations.
    """

    source: str = ""
    """Folder of footage, searched recursively: videos, images, tars of images, LeRobot data sets, Zarr
    demonstrations."""
    out: str = ""
    """Output folder for the shards."""
    sampling: Sampling = Sampling.RATE
    frames_per_second: float = number(4.0, at_least=0.001, at_most=1000)
    """With `rate`: frames to take per second of video."""
    every: int = number(1, at_least=1, at_most=10**9)
    """With `every`: take every n-th frame."""
    max_frames_per_video: int = number(2000, at_least=1, at_most=10**9)
    """Maximum frames per video, image folder or tar. With `rate`, longer videos are sampled at a lower rate over their
    whole length; otherwise the first frames are taken. Images are chosen evenly spaced."""
    short_side: int = 320
    """Shrink larger frames until their shorter side has this many pixels; 0 keeps the size."""
    jpeg_quality: int = number(92, at_least=1, at_most=100)
    """JPEG quality of the stored frames."""
    min_change: float = number(0.5, at_least=0, at_most=255)
    """Drop a frame as static if its mean absolute grey-level difference (0-255) from the last kept frame is below
    this."""
    validation_share: float = number(0.1, at_least=0, at_most=0.9)
    """Fraction of the videos (not frames) held out for validation, chosen by a hash of each video's path. All cameras
    of an episode and identical files go to the same split."""
    shard_bytes: int = number(256_000_000, at_least=50_000, at_most=2**40)
    """Maximum size of a tar shard in bytes."""
    privacy: str = ""
    """Your own function, as `module:function`, that hides faces or plates in every frame before it is written; see
    `PrivacyHook`. Its code is run."""
    executor: Executor = Executor.PROCESSES
    workers: int = number(0, at_least=0, at_most=4096)
    """Number of decoding processes; 0: one per core."""
    timeout_s: float = number(120.0, at_least=1, at_most=10**6)
    """A file whose decoder makes no progress for this many seconds is abandoned."""
    drop_missing: bool = False
    """Remove the frames of footage that is no longer in `source` from the shards; otherwise that is an error."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.short_side != 0 and not 16 <= self.short_side <= 16384:
            raise UserError(f"short_side={self.short_side} must be 0 (keep) or from 16 to 16384 pixels.")

    def extraction(self) -> Extraction:
        names = [field.name for field in dataclasses.fields(Extraction) if field.name != "privacy_sha256"]
        return Extraction(**{name: getattr(self, name) for name in names}, privacy_sha256=hook_sha256(self.privacy))

    def settings(self) -> dict[str, Any]:
        """The settings recorded in the manifest: all except those that do not change the result."""
        names = [field.name for field in dataclasses.fields(IngestConfig) if field.name not in NOT_RECORDED]
        values = {name: getattr(self, name) for name in names}
        return values | {"sampling": self.sampling.value, "privacy_sha256": hook_sha256(self.privacy)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What `out` contains now; `changed` is false if it was already finished and up to date."""

    out: str
    changed: bool
    footage: int
    failed: int
    frames: dict[str, int]
    hours: float
    dropped: dict[str, int]
    hidden_regions: int
    others: dict[str, int]
    """Number of files in `source` that are not footage, by file extension."""
    copies: int
    """Number of pieces of footage that are byte-for-byte copies of another; they are included."""


def ingest(config: IngestConfig, *, privacy: PrivacyHook | None = None) -> IngestReport:
    """Extract the frames of `config.source` into `config.out`; return at once if that is already done.

    `privacy` may be passed as a function, from the top level of an importable module, instead of `config.privacy`.

    Raises UserError if there is nothing to ingest, a folder of the source cannot be read, footage of which `out` has
    frames is gone, no frame is usable, `out` contains something else, or another ingest is running. Files that cannot
    be used are listed in `failures.jsonl` and counted in the manifest.
    """
    if privacy is not None:
        config = dataclasses.replace(config, privacy=hook_name(privacy))
    if not config.out:
        raise UserError("out is empty; give the output folder, such as data/frames.")
    out = Path(config.out).absolute()
    previous = _read_previous_manifest(out)  # refuse a folder of something else before searching for footage
    others: Counter[str] = Counter()
    # Shards are tars of images: if `out` lies inside `source`, the next run must not ingest them.
    all_footage = find_footage(
        config.source, leave_out=out, on_other=lambda name: others.update([Path(name).suffix.lower() or name])
    )
    if previous is not None and not config.drop_missing:
        _check_no_footage_missing(previous, all_footage, config.source, out)
    extraction = config.extraction()
    keys = [extraction.key(footage) for footage in all_footage]
    work = ingest_work_directory(out)
    if not work.exists() and (manifest := _up_to_date_manifest(out, config, keys)) is not None:
        return _report(out, manifest, all_footage, others, changed=False)
    work.mkdir(parents=True, exist_ok=True)
    with file_lock(
        work / "lock", f"Another ingest is running in {work}; wait for it to finish, or choose another `out`."
    ):
        # Only the lock's holder writes here; an orphaned worker of a killed run loses nothing that matters.
        remove_temporaries(work)
        with staging_directory(out.parent, out.name):
            pass  # brings back what a killed run was replacing
        if (
            manifest := _up_to_date_manifest(out, config, keys)
        ) is not None:  # an earlier run was killed before it cleaned up
            shutil.rmtree(work)
            return _report(out, manifest, all_footage, others, changed=False)
        kept = _reusable_footage(out, _read_previous_manifest(out))
        accidents = _extract_all(config, all_footage, keys, work, set(kept))
        packables = [
            kept[key] if key in kept else _packable(footage, key, work / key, accidents.get(key))
            for footage, key in zip(all_footage, keys, strict=True)
        ]
        if not any(packable.result["frames"] for packable in packables):
            reasons = Counter(packable.result["failure"] for packable in packables)
            shutil.rmtree(work)
            shown = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
            raise UserError(f"No usable frame in any of {len(all_footage)} files below {config.source}: {shown}.")
        manifest = pack_shards(out, packables, [footage.segment_s for footage in all_footage], config.settings())
        shutil.rmtree(work)
    return _report(out, manifest, all_footage, others, changed=True)


def _read_previous_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of an earlier ingest into `out`, if any. Raises UserError if `out` contains anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / MANIFEST).is_file():
        raise UserError(f"out {str(out)!r} exists and is not a folder of frame shards; name a new or empty folder.")
    return read_manifest(out)


def _check_no_footage_missing(previous: dict[str, Any], all_footage: list[Footage], source: str, out: Path) -> None:
    """Raise UserError if the source lacks footage of which the shards have frames: they could not be made again."""
    there = {footage.id for footage in all_footage if footage.bytes}  # links to nothing have none
    gone = [video["id"] for video in previous["videos"] if video["frames"] and video["id"] not in there]
    if gone:
        raise UserError(
            f"{len(gone)} of the {len(previous['videos'])} pieces of footage in {out} are gone from {source}: "
            f"{format_names(gone)}. If they were removed or renamed on purpose, pass drop_missing=true, which removes "
            "their frames; otherwise bring them back, or choose another out=."
        )


def _up_to_date_manifest(out: Path, config: IngestConfig, keys: list[str]) -> dict[str, Any] | None:
    """The manifest of `out` if it already contains exactly what is wanted."""
    manifest = _read_previous_manifest(out)
    if manifest is None:
        return None
    if manifest["settings"] != config.settings():
        return None
    if [video["key"] for video in manifest["videos"]] != keys:
        return None
    for split in SPLITS:
        check_shard_files(out, manifest, split)
    return manifest


def _reusable_footage(out: Path, previous: dict[str, Any] | None) -> dict[str, Packable]:
    """Footage that can be reused from the existing shards, by key. Failures are tried again."""
    if previous is None:
        return {}
    kept = {}
    for split in SPLITS:
        try:
            check_shard_files(out, previous, split)
        except UserError:
            continue  # damaged: decode again
        names = [shard["name"] for shard in previous["splits"][split]["shards"]]
        open_reader = functools.partial(ShardReader, out, split, names)
        for video in previous["videos"]:
            if video["split"] == split:
                kept[video["key"]] = Packable.from_manifest(video, open_reader)
    return kept


def _packable(footage: Footage, key: str, directory: Path, accident: str | None) -> Packable:
    if accident is not None:
        return Packable.from_result(footage, key, empty_result(accident), None)
    result = read_json(directory / RESULT)
    open_reader = functools.partial(ShardReader, directory, FRAMES, [f"{FRAMES}-000000.tar"])
    return Packable.from_result(footage, key, result, open_reader if result["frames"] else None)


def _extract_all(
    config: IngestConfig, found: list[Footage], keys: list[str], work: Path, kept: set[str]
) -> dict[str, str]:
    """Decode what neither an interrupted run nor the existing shards contain. Returns failures: key -> reason."""
    extraction = config.extraction()
    jobs = [
        ExtractJob(footage, extraction, work / key)
        for footage, key in zip(found, keys, strict=True)
        if key not in kept and not (work / key / RESULT).is_file()
    ]
    accidents = {}
    with IngestProgress(found, [job.footage for job in jobs]) as progress:
        for outcome in run_tasks(
            extract_frames,
            jobs,
            executor=config.executor,
            workers=config.workers,
            timeout_s=config.timeout_s,
            on_progress=progress.seconds,
        ):
            job = jobs[outcome.index]
            if outcome.failure is not None:
                accidents[job.target.name] = outcome.failure
            elif not (job.target / RESULT).is_file():
                raise UserError(
                    f"A worker finished {job.footage.id}, but {job.target} is not visible here; with "
                    "executor=ray, `out` must be on storage that all machines share under the same path."
                )
            progress.done(job.footage, outcome.result or 0.0)
    return accidents


def _count_copies(videos: list[dict[str, Any]], found: list[Footage]) -> int:
    groups: dict[tuple, set[str]] = {}  # footage of one group, such as the cameras of an episode, may share files
    for video, footage in zip(videos, found, strict=True):
        if video["frames"]:
            groups.setdefault((video["sha256"], footage.segment_s), set()).add(footage.group)
    return sum(len(of_content) - 1 for of_content in groups.values())


def _report(
    out: Path, manifest: dict[str, Any], found: list[Footage], others: Counter[str], changed: bool
) -> IngestReport:
    return IngestReport(
        out=str(out),
        changed=changed,
        footage=len(manifest["videos"]),
        failed=manifest["counts"]["failed"],
        frames={split: manifest["splits"][split]["frames"] for split in SPLITS},
        hours=sum(video["seconds"] for video in manifest["videos"]) / 3600,
        dropped=manifest["counts"]["dropped"],
        hidden_regions=manifest["counts"]["privacy"]["hidden_regions"],
        others=dict(others.most_common()),
        copies=_count_copies(manifest["videos"], found),
    )
