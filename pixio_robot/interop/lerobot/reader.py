"""Reads the episodes of a local LeRobotDataset v3, one at a time, and each file once.

lerobot reads the metadata and decodes the videos, but does not read the rows: LeRobotDataset would copy all of them,
including their images, into its own cache before returning the first one.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.files import read_json, stays_below
from pixio_robot.interop.lerobot.features import INFO, Columns

FRAME_INDEX = "frame_index"
_ROWS = 64
_DECODED = 128
"""Frames per batch: rows read, and video frames decoded."""


def recognises(path: Path) -> bool:
    try:
        info = json.loads((path / INFO).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(info, dict) and {"codebase_version", "features"} <= set(info)


@dataclasses.dataclass(frozen=True)
class Record:
    """An episode in the order of its frame_index: values[feature] (n, ...), images[camera] uint8 (n, h, w, 3), one task
    per step. `reordered`: whether its rows were stored in another order."""

    number: int
    values: Mapping[str, np.ndarray]
    images: Mapping[str, np.ndarray]
    tasks: list[str]
    reordered: bool


class LeRobotFiles:
    """Opens the metadata. Raises UserError if `root` is not a LeRobotDataset v3, or lacks a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        version = self._version(read_json(root / INFO))
        if not version.startswith("v3."):
            raise UserError(
                f"{root} is a LeRobotDataset of version {version}, but only v3.x is supported: convert it with "
                "lerobot's convert_dataset_v21_to_v30 first."
            )
        # lerobot would look for missing files on the Hub, which cannot be intended here.
        for name in ("tasks.parquet", "episodes"):
            if not (root / "meta" / name).exists():
                raise UserError(
                    f"{root / 'meta' / name} is missing: the dataset was not finalized, or only partially copied."
                )
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

        self.meta = LeRobotDatasetMetadata(f"local/{root.name}", root=root)
        self.features: Mapping[str, Mapping[str, Any]] = self.meta.features
        self._episodes: list[dict[str, Any]] = list(self.meta.episodes or [])  # pyright: ignore[reportAttributeAccessIssue]
        if not self._episodes:
            raise UserError(f"{root} has no episodes.")
        tasks: Any = self.meta.tasks
        self._tasks = {int(row.task_index): str(task) for task, row in tasks.iterrows()}

    def _version(self, info: Any) -> str:
        if not isinstance(info, dict) or "features" not in info:
            raise UserError(f"{self.root / INFO} does not describe a LeRobotDataset: it lacks `features`.")
        return str(info.get("codebase_version"))

    def __len__(self) -> int:
        return len(self._episodes)

    @property
    def tasks(self) -> list[str]:
        return [task for _, task in sorted(self._tasks.items())]

    def records(self, columns: Columns, tolerance_s: float) -> Iterator[Record]:
        """All episodes, in order. Raises UserError naming the file and episode that do not match the metadata."""
        pictures = {key: self.features[key]["dtype"] for key in columns.cameras.values()}
        stored = [key for key, dtype in pictures.items() if dtype == "image"]
        keys = dict.fromkeys([*columns.numbers(), *stored, "timestamp", "task_index", "episode_index"])
        keys |= dict.fromkeys({FRAME_INDEX} & set(self.features))
        for number, table in enumerate(self._tables(list(keys))):
            table, reordered = _sort_rows(table)
            values = {
                key: np.array(table.column(key).to_pylist()) for key in (*columns.numbers(), "timestamp", "task_index")
            }
            images = {}
            for camera, key in columns.cameras.items():
                if pictures[key] == "image":
                    images[camera] = self._decode(number, key, table.column(key).to_pylist())
                else:
                    images[camera] = self._film(number, key, values["timestamp"].ravel(), tolerance_s)
            tasks = [self._tasks[int(index)] for index in values["task_index"].ravel()]
            yield Record(number, values, images, tasks, reordered)

    def _tables(self, keys: list[str]) -> Iterator[Any]:
        """The rows of each episode in turn. Each file is read once, in small batches."""
        import pyarrow as pa

        parts: list[Any] = []
        number = 0
        for path, batch in self._batches(keys):
            episode_index = batch.column("episode_index").to_numpy()
            edges = [0, *(np.flatnonzero(np.diff(episode_index)) + 1).tolist(), len(episode_index)]
            for start, stop in itertools.pairwise(edges):
                if parts and int(episode_index[start]) != number:
                    yield self._whole(pa.concat_tables(parts), number, path)
                    parts, number = [], number + 1
                if int(episode_index[start]) != number:
                    raise UserError(
                        f"{path} has rows of episode {episode_index[start]} where episode {number} was expected."
                    )
                parts.append(pa.Table.from_batches([batch.slice(start, stop - start)]))
        if parts:
            yield self._whole(pa.concat_tables(parts), number, self.root / "data")
            number += 1
        if number != len(self):
            raise UserError(f"{self.root / 'data'} ends after {number} of {len(self)} episodes.")

    def _whole(self, table: Any, number: int, path: Path) -> Any:
        length = self._episodes[number]["length"] if number < len(self) else 0
        if len(table) != length:
            raise UserError(f"{path}: episode {number} has {len(table)} rows, but {length} according to the metadata.")
        return table

    def _batches(self, keys: list[str]) -> Iterator[tuple[Path, Any]]:
        import pyarrow as pa
        from pyarrow import parquet

        for relative in dict.fromkeys(self.meta.get_data_file_path(number) for number in range(len(self))):
            path = self._file(relative)
            try:
                with parquet.ParquetFile(path) as file:
                    for batch in file.iter_batches(_ROWS, columns=keys):
                        yield path, batch
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{path} cannot be read: {error}") from error

    def _file(self, relative: str | Path) -> Path:
        """A file of the dataset. Raises UserError if the dataset names one outside it: the frames would show whatever
        is there. Links are followed, because the cache of the Hub consists of them."""
        if not stays_below(relative):
            raise UserError(
                f"{self.root} refers to {relative}, which is not below it: copy that file into the dataset."
            )
        return self.root / relative

    def _decode(self, number: int, key: str, cells: list[Any]) -> np.ndarray:
        from PIL import Image, UnidentifiedImageError

        frames: list[np.ndarray] = []
        for step, cell in enumerate(cells):
            try:
                content = cell["bytes"] or self._file(cell["path"]).read_bytes()
                with Image.open(io.BytesIO(content)) as image:
                    frames.append(np.asarray(image.convert("RGB")))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError, TypeError, KeyError) as error:
                raise UserError(
                    f"{self.root}: {key} of episode {number}, step {step}, is not an image ({error})."
                ) from error
            if frames[-1].shape != frames[0].shape:
                raise UserError(
                    f"{self.root}: {key} of episode {number} has {_pixels(frames[-1])} px at step {step}, but "
                    f"{_pixels(frames[0])} px before."
                )
        return np.stack(frames)

    def _film(self, number: int, key: str, times: np.ndarray, tolerance_s: float) -> np.ndarray:
        from lerobot.datasets.video_utils import FrameTimestampError, decode_video_frames

        path = self._file(self.meta.get_video_file_path(number, key))
        if not path.is_file():
            raise UserError(f"{path}, the video of episode {number}, is missing.")
        shown = (times + self._episodes[number][f"videos/{key}/from_timestamp"]).tolist()
        parts = []
        for first in range(0, len(shown), _DECODED):
            some = shown[first : first + _DECODED]
            try:
                frames = decode_video_frames(path, some, tolerance_s, "pyav", return_uint8=True)
            except FrameTimestampError as error:
                half_s = 0.5 / self.meta.fps
                raise UserError(
                    f"{path} has no frames within tolerance_s={tolerance_s:g} of the timestamps of episode {number}. "
                    f"If they only jitter, take the nearest frames: tolerance_s={half_s:.2g} is half a frame."
                ) from error
            except Exception as error:  # lerobot and FFmpeg raise many kinds of errors for damaged files
                what = str(error).strip().splitlines()
                raise UserError(
                    f"{path}: episode {number} cannot be decoded ({what[0] if what else error!r})."
                ) from error
            parts.append(frames.permute(0, 2, 3, 1).contiguous().numpy())
        return np.concatenate(parts)


def _sort_rows(table: Any) -> tuple[Any, bool]:
    """The rows in the order of their frame_index, and whether that is another one."""
    if FRAME_INDEX not in table.column_names:
        return table, False
    order = np.argsort(table.column(FRAME_INDEX).to_numpy(), kind="stable")
    reordered = bool((np.diff(order) < 0).any())
    return table.take(order) if reordered else table, reordered


def _pixels(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"
