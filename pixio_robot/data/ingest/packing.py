"""Pack decoded footage into the finished folder of shards: in a fixed order, split by video, renamed at the end."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.data.footage.kinds import Footage
from pixio_robot.data.images.shards import FORMAT_VERSION, KIND, MANIFEST, RECORDED, SPLITS, ShardReader, ShardWriter
from pixio_robot.files import atomic_directory, write_json

FAILURES = "failures.jsonl"
FAILURE_KINDS = (
    "truncated",
    "not a readable video",
    "wrong extension",
    "absurd dimensions",
    "frame bomb",
    "damaged demonstration",
    "privacy hook failed",
    "gave up",
    "worker process died",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packable:
    """One piece of footage: its manifest entry, and where its frames are now (None: it has none).

    The reader is opened only while it is in use: there may be more videos than a process can have open files or maps.
    """

    result: Mapping[str, Any]
    open_reader: Callable[[], ShardReader] | None
    first_row: int

    @classmethod
    def from_result(
        cls, footage: Footage, key: str, result: Mapping[str, Any], open_reader: Callable[[], ShardReader] | None
    ) -> Packable:
        """From a worker's result."""
        identity = {"id": footage.id, "group": footage.group, "kind": footage.kind.value, "key": key}
        identity |= {"bytes": footage.bytes, "modified_ns": footage.modified_ns}
        return cls(result=identity | dict(result), open_reader=open_reader, first_row=0)

    @classmethod
    def from_manifest(cls, video: Mapping[str, Any], open_reader: Callable[[], ShardReader]) -> Packable:
        """From the shards of an earlier ingest."""
        result = {name: value for name, value in video.items() if name not in ("split", "first_row")}
        return cls(result=result, open_reader=open_reader, first_row=video["first_row"])


def pack_shards(
    out: Path, packables: Sequence[Packable], parts: Sequence[Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the finished folder at `out`, replacing an existing one, and return its manifest.

    `packables` are ordered by id; `parts` says which part of its files each of them is. The folder's bytes depend only
    on the arguments.
    """
    groups = group_identical_content(
        (packable.result["group"], f"{packable.result['sha256']} {part}")
        for packable, part in zip(packables, parts, strict=True)
        if packable.result["frames"]
    )
    splits = assign_splits(groups.values(), settings["validation_share"])
    with atomic_directory(out) as directory:
        writers = {split: ShardWriter(directory, split, settings["shard_bytes"]) for split in SPLITS}
        videos = []
        for number, packable in enumerate(packables):
            entry = dict(packable.result) | {"split": None, "first_row": 0}
            if packable.open_reader is not None:
                entry["split"] = splits[groups[entry["group"]]]
                writer = writers[entry["split"]]
                entry["first_row"] = writer.frames
                _copy_frames(packable, packable.open_reader(), number, writer)
            videos.append(entry)
        for writer in writers.values():
            writer.close()
        manifest = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "settings": dict(settings),
            "counts": _counts(videos),
            "splits": {split: {"frames": writers[split].frames, "shards": writers[split].shards} for split in SPLITS},
            "videos": videos,
        }
        (directory / FAILURES).write_text("".join(json.dumps(line) + "\n" for line in _failures(videos)))
        write_json(directory / MANIFEST, manifest)
    return manifest


def group_identical_content(footage: Iterable[tuple[str, str]]) -> dict[str, str]:
    """From (group, content) pairs, map every group to the first by name (maybe itself) of the groups that share content
    with it, directly or through others, so that copies of a file go to the same split."""
    earlier: dict[str, str] = {}
    shows: dict[str, str] = {}

    def first(group: str) -> str:
        while earlier[group] != group:
            group = earlier[group]
        return group

    for group, content in footage:
        earlier.setdefault(group, group)
        one, other = sorted((first(group), first(shows.setdefault(content, group))))
        earlier[other] = one
    return {group: first(group) for group in earlier}


def assign_splits(groups: Iterable[str], validation_share: float) -> dict[str, str]:
    """Assign every group of footage to a split by a hash of its name, independently of the other groups.

    The one exception: with two or more groups, each split gets at least one (the nearest by hash), unless
    `validation_share` is 0.
    """
    ranks = {identity: _uniform_hash(identity) for identity in groups}
    validation = {identity for identity, rank in ranks.items() if rank < validation_share}
    if len(ranks) > 1 and validation_share > 0:
        if not validation:
            validation = {min(ranks, key=ranks.__getitem__)}
        elif len(validation) == len(ranks):
            validation -= {max(ranks, key=ranks.__getitem__)}
    elif len(ranks) == 1:
        validation = set()
    return {identity: "validation" if identity in validation else "train" for identity in ranks}


def _uniform_hash(identity: str) -> float:
    """A hash of the name, uniform in [0, 1)."""
    digest = hashlib.sha256(b"split\0" + identity.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _copy_frames(packable: Packable, reader: ShardReader, video: int, writer: ShardWriter) -> None:
    for number in range(packable.result["frames"]):
        row = packable.first_row + number
        record = {name: reader.records[row][name] for name in RECORDED} | {"video": video}
        writer.add(reader.jpeg(row), video_id=packable.result["id"], number=number, record=record)
    reader.close()


def _counts(videos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    failures = Counter(_failure_kind(video["failure"]) for video in videos if video["failure"])
    return {
        "footage": len(videos),
        "failed": sum(failures.values()),
        "failed_by_reason": dict(sorted(failures.items())),
        "frames": sum(video["frames"] for video in videos),
        "dropped": {
            "static": sum(video["static"] for video in videos),
            "over_limit": sum(video["over_limit"] for video in videos),
            "damaged": sum(video["damaged"] for video in videos),
            "unreadable_images": sum(len(video["bad_images"]) for video in videos),
        },
        "privacy": {name: sum(video[name] for video in videos) for name in ("hidden_regions", "frames_hidden_in")},
    }


def _failure_kind(reason: str) -> str:
    """The reason without details: `truncated after 3.2 s` and `truncated after 7.0 s` are counted together."""
    return next((kind for kind in FAILURE_KINDS if reason.startswith(kind)), reason)


def _failures(videos: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines = []
    for video in videos:
        if video["failure"]:
            lines.append({"id": video["id"], "reason": video["failure"]})
        lines += [{"id": video["id"] + bad["file"], "reason": bad["reason"]} for bad in video["bad_images"]]
    return lines
