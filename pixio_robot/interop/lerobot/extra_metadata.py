"""Metadata that a LeRobotDataset has no place for, in an extra file that lerobot ignores.

    meta/pixio_robot.jsonl      the DemoSpec, then one line per episode: success, seed, info, checksum of the actions

The checksum shows whether a line still belongs to its episode after other tools have edited the dataset.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec, Episode

FILE = Path("meta", "pixio_robot.jsonl")


@dataclasses.dataclass(frozen=True)
class ExtraMetadata:
    spec: DemoSpec
    episodes: Sequence[dict[str, Any]]

    def of(self, number: int, actions: np.ndarray) -> dict[str, Any] | None:
        """success, seed and info of an episode; None if its actions have changed since they were stored."""
        if number >= len(self.episodes) or self.episodes[number]["actions"] != checksum(actions):
            return None
        return {key: self.episodes[number][key] for key in ("success", "seed", "info")}


def checksum(actions: np.ndarray) -> str:
    return f"{google_crc32c.value(np.ascontiguousarray(actions, '<f4').tobytes()):08x}"


def episode_line(episode: Episode) -> dict[str, Any]:
    return {
        "success": bool(episode.success),
        "seed": int(episode.seed),
        "info": dict(episode.info),
        "actions": checksum(episode.actions),
    }


def read_extra_metadata(root: Path, cameras: Container[str]) -> ExtraMetadata | None:
    """The stored metadata, with only the given cameras; None if the file does not exist.

    Raises UserError if the file is damaged.
    """
    path = root / FILE
    if not path.is_file():
        return None
    try:
        first, *rest = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        spec = DemoSpec.from_json(first["spec"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); delete it to import without it.") from error
    kept = {name: camera for name, camera in spec.cameras.items() if name in cameras}
    return ExtraMetadata(dataclasses.replace(spec, cameras=kept), rest)
