"""Pixio's sidecars: one JSON file per tar shard with the scores of its members.

    train-000000.json    {"<member>": {"histogram_score": 5.1, "height": 320, "width": 427, "mae_loss": 0.43}, ...}

`histogram_score` is `colour_entropy`, comparable only among files written by this project. `mae_loss` is omitted where
it is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.images.shards import FrameShards, member_folder, member_name
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json

FIELDS = {"histogram_score": float, "height": int, "width": int, "mae_loss": float}
NEEDED = ("histogram_score", "height", "width")


def write_sidecars(directory: Path, shards: FrameShards, pixels: np.ndarray, losses: np.ndarray | None) -> None:
    """Write one file per shard to `directory`, without unreadable frames. pixels: PIXEL_RECORD (n,); losses: (n,)."""
    for name, rows in _rows_by_shard(shards):
        members = {}
        for row, member in zip(rows, member_names(shards, rows), strict=True):
            if not pixels["readable"][row]:
                continue
            record = shards.reader.records[row]
            members[member] = {
                "histogram_score": round(float(pixels["entropy"][row]), 5),
                "height": int(record["height"]),
                "width": int(record["width"]),
            }
            if losses is not None and not np.isnan(losses[row]):
                members[member]["mae_loss"] = round(float(losses[row]), 6)
        text = json.dumps(members, separators=(",", ":"), allow_nan=False)
        path = (directory / name).with_suffix(".json")
        if not path.is_file() or path.read_text() != text:
            with atomic_file(path) as temporary:
                temporary.write_text(text)


def read_sidecar(path: Path) -> dict[str, dict[str, Any]]:
    """The scores of one shard by member name. Raises UserError naming what does not match the schema."""
    members = read_json(path)
    if not isinstance(members, dict):
        raise UserError(f"{path} is not a sidecar: it should map member names to their scores.")
    for member, scores in members.items():
        if not isinstance(scores, dict):
            raise UserError(f"{path}: {member!r} should be an object with {', '.join(NEEDED)}.")
        for name in NEEDED:
            if name not in scores:
                raise UserError(f"{path}: {member!r} has no {name!r}.")
        for name, kind in FIELDS.items():
            value = scores.get(name)
            if name in scores and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UserError(f"{path}: {name!r} of {member!r} should be a number, not {value!r}.")
            if name in scores:
                scores[name] = kind(scores[name])
    return members


def read_losses(directory: Path, shards: FrameShards) -> np.ndarray:
    """float32 (n,): the `mae_loss` of the frames of `shards` from the sidecars in `directory`; NaN where missing.

    Raises UserError if a shard has no sidecar, a sidecar contains none of its shard's members, or no frame has a loss.
    """
    losses = np.full(len(shards), np.nan, np.float32)
    for name, rows in _rows_by_shard(shards):
        scores = read_sidecar((directory / name).with_suffix(".json"))
        members = member_names(shards, rows)
        if not any(member in scores for member in members):
            raise UserError(f"{(directory / name).with_suffix('.json')} contains no member of {shards.path / name}.")
        losses[rows.start : rows.stop] = [scores.get(member, {}).get("mae_loss", np.nan) for member in members]
    if np.isnan(losses).all():
        raise UserError(
            f"The sidecars in {directory} have no mae_loss, so there is nothing to weight frames by; "
            "`pixio-robot curate pixio=CHECKPOINT` computes it."
        )
    return losses


def member_names(shards: FrameShards, rows: range) -> list[str]:
    """The frames' names in the tars."""
    videos = shards.manifest["videos"]
    owners = shards.reader.records["video"][rows.start : rows.stop].tolist()
    folders = {owner: member_folder(videos[owner]["id"]) for owner in set(owners)}
    return [
        member_name(folders[owner], row - videos[owner]["first_row"]) for row, owner in zip(rows, owners, strict=True)
    ]


def _rows_by_shard(shards: FrameShards) -> Iterator[tuple[str, range]]:
    """(shard name, rows) of every shard; frames are stored in the order of their shards."""
    ends = np.searchsorted(shards.reader.records["shard"], np.arange(len(shards.reader.shards)), side="right").tolist()
    start = 0
    for name, end in zip(shards.reader.shards, ends, strict=True):
        yield name, range(start, end)
        start = end
