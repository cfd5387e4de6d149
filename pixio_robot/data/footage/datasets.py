"""Footage in demonstration data sets: the videos of LeRobot data sets, the cameras of our Zarr stores.

One piece of footage is one camera of one episode. All cameras of an episode form a group, so that no episode is split
between training and validation. LeRobot v2 stores one video file per episode; v3 concatenates many episodes in one file
and records in `meta/episodes/*.parquet` at which second each starts and ends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pixio_robot.data.demos.root_metadata import FORMAT
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.footage.kinds import EpisodeCamera, Footage, FootageKind, describe_footage
from pixio_robot.errors import UserError
from pixio_robot.files import stays_below


def lerobot_info_path(root: Path) -> Path:
    return root / "meta" / "info.json"


def is_depth(feature: Mapping[str, Any]) -> bool:
    """Whether a feature of `info.json` is a depth map stored as video."""
    info = feature.get("info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def lerobot_footage(root: Path, prefix: str) -> Iterator[Footage]:
    """One Footage per episode and video; a data set that cannot be read yields one with a `problem`."""
    try:
        info = json.loads(lerobot_info_path(root).read_text())
        cameras = sorted(
            name for name, feature in info["features"].items() if feature["dtype"] == "video" and not is_depth(feature)
        )
        if not cameras:
            raise UserError("a LeRobot data set without videos (use `data import` for data sets of images)")
        places = (
            _episodes_v2(info, cameras) if "episode_index" in info["video_path"] else _episodes_v3(root, info, cameras)
        )
        if outside := [path for _, _, path, _ in places if not stays_below(path)]:
            raise UserError(f"a LeRobot data set that refers to {outside[0]}, which is not below it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        # Leave out the path of an OSError: the result must not depend on where the source is.
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        problem = str(error) if isinstance(error, UserError) else f"a LeRobot data set that cannot be read ({reason})"
        yield describe_footage(prefix or "./", FootageKind.VIDEO, [lerobot_info_path(root)], problem=problem)
        return
    episodes_of = Counter(path for _, _, path, _ in places)
    for episode, camera, path, segment_s in places:
        group = f"{prefix}episode_{episode:06d}"
        yield describe_footage(
            f"{group}/{camera}",
            FootageKind.VIDEO,
            [root / path],
            group=group,
            share=1 / episodes_of[path],
            segment_s=segment_s,
        )


_EpisodeVideo = tuple[int, str, str, tuple[float, float] | None]
"""episode, camera, path of the video within the data set, start and end in seconds."""


def _episodes_v2(info: dict[str, Any], cameras: list[str]) -> list[_EpisodeVideo]:
    return [
        (
            episode,
            camera,
            info["video_path"].format(
                video_key=camera, episode_index=episode, episode_chunk=episode // info["chunks_size"]
            ),
            None,
        )
        for episode in range(info["total_episodes"])
        for camera in cameras
    ]


def _episodes_v3(root: Path, info: dict[str, Any], cameras: list[str]) -> list[_EpisodeVideo]:
    import pyarrow.parquet  # a second to import

    fields = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    columns = ["episode_index", *(f"videos/{camera}/{field}" for camera in cameras for field in fields)]
    places = []
    for file in sorted((root / "meta" / "episodes").rglob("*.parquet")):
        for row in pyarrow.parquet.read_table(file, columns=columns).to_pylist():
            for camera in cameras:
                chunk, number, begin_s, end_s = (row[f"videos/{camera}/{field}"] for field in fields)
                path = info["video_path"].format(video_key=camera, chunk_index=chunk, file_index=number)
                places.append((int(row["episode_index"]), camera, path, (float(begin_s), float(end_s))))
    if not places:
        raise UserError("a LeRobot data set without episodes")
    return places


def is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup"))


def demonstration_footage(root: Path, prefix: str) -> Iterator[Footage]:
    """One Footage per episode and camera; a damaged store or one of another tool yields one with a `problem`."""
    try:
        store = DemoStore.open(root, ram_bytes=0)
    except UserError:
        problem = f"a Zarr store that is damaged or not in the format {FORMAT}"
        yield describe_footage(prefix or "./", FootageKind.DEMONSTRATION, [], problem=problem)
        return
    for episode in range(len(store)):
        group = f"{prefix}episode_{episode:06d}"
        for camera in store.spec.cameras:
            folder = store.episode_path(episode) / "images" / camera
            yield describe_footage(
                f"{group}/{camera}",
                FootageKind.DEMONSTRATION,
                sorted(path for path in folder.rglob("*") if path.is_file()),
                group=group,
                demonstration=EpisodeCamera(root, episode, camera),
            )
