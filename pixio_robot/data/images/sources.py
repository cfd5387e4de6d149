"""Sources of pretraining images: frame shards and demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from pixio_robot.data.demos.arrays import CorruptArray
from pixio_robot.data.demos.store import DEFAULT_RAM_BYTES, DemoStore
from pixio_robot.data.images.codec import CorruptImage
from pixio_robot.data.images.shards import KIND, MANIFEST, FrameShards, ingest_work_directory
from pixio_robot.errors import UserError
from pixio_robot.files import read_json


@runtime_checkable
class ImageSource(Protocol):
    """Numbered images. `image` must be thread-safe; it raises CorruptImage for unreadable images."""

    def __len__(self) -> int: ...

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3), RGB."""
        ...

    def id(self, i: int) -> str:
        """A text that identifies the image within this source."""
        ...


@runtime_checkable
class ReducibleSource(ImageSource, Protocol):
    """Images that can be decoded at reduced size at lower cost."""

    def size(self, i: int) -> tuple[int, int]:
        """Height and width in pixels, without decoding."""
        ...

    def reduced(self, i: int, by: int) -> np.ndarray:
        """uint8 (ceil(h / by), ceil(w / by), 3), where `by` is 1, 2, 4 or 8."""
        ...


class DemoFrames:
    """All frames of all cameras of a demonstration store. For `ram_bytes`, see `DemoStore.open`."""

    def __init__(self, path: str | Path, *, ram_bytes: int = DEFAULT_RAM_BYTES) -> None:
        self.path = Path(path)
        self._store = DemoStore.open(self.path, ram_bytes=ram_bytes)
        self._cameras = list(self._store.spec.cameras)
        # Frames are ordered by episode, camera, step. Episodes appended later are not included.
        self._lengths = np.array(self._store.lengths, np.int64)
        self._ends = np.cumsum(self._lengths * len(self._cameras))
        if len(self) == 0:
            raise UserError(f"{self.path} contains no camera frames to pretrain on.")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3); do not modify it. Raises CorruptImage if its file is damaged."""
        episode, camera, step = self._locate(i)
        try:
            return self._store.images(episode, camera, step, step + 1)[0]
        except CorruptArray as error:
            raise CorruptImage(str(error)) from error

    def id(self, i: int) -> str:
        """`<episode>/<camera>/<step>`."""
        episode, camera, step = self._locate(i)
        return f"{episode}/{camera}/{step}"

    def _locate(self, i: int) -> tuple[int, str, int]:
        """Episode, camera and step of image `i`."""
        episode = int(np.searchsorted(self._ends, i, side="right"))
        length = int(self._lengths[episode])
        within = i - (int(self._ends[episode]) - length * len(self._cameras))
        return episode, self._cameras[within // length], within % length


class ConcatenatedImages:
    """The concatenation of several sources; ids are prefixed with the name of their source."""

    def __init__(self, sources: Sequence[ImageSource], names: Sequence[str]) -> None:
        self.sources, self._names = list(sources), list(names)
        self._ends = np.cumsum([len(source) for source in self.sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def image(self, i: int) -> np.ndarray:
        source, within = self.part(i)
        return source.image(within)

    def id(self, i: int) -> str:
        number, within = self._locate(i)
        return f"{self._names[number]}:{self.sources[number].id(within)}"

    def part(self, i: int) -> tuple[ImageSource, int]:
        """The source of image `i`, and its number there."""
        number, within = self._locate(i)
        return self.sources[number], within

    def _locate(self, i: int) -> tuple[int, int]:
        """The number of the source of image `i`, and the image's number there."""
        number = int(np.searchsorted(self._ends, i, side="right"))
        return number, i - (int(self._ends[number - 1]) if number else 0)


def component_sources(source: ImageSource) -> list[ImageSource]:
    """The sources that a ConcatenatedImages consists of; for any other source, a list with only itself."""
    return source.sources if isinstance(source, ConcatenatedImages) else [source]


def open_image_source(paths: str | Sequence[str], split: str = "train") -> ImageSource:
    """Open frame shards (their `split`) and demonstration stores; the kind is detected from the contents.

    Several paths are concatenated into one source and share the RAM for demonstrations. Raises UserError for a path
    that is neither, and for one that is listed twice.
    """
    paths = [paths] if isinstance(paths, str) else list(paths)
    if not paths:
        raise UserError("No images were given; pass a folder of frame shards or a demonstration store.")
    listed: dict[Path, str] = {}
    for path in paths:
        resolved = Path(path).resolve()
        if resolved in listed:
            same = "" if listed[resolved] == path else f", which is {listed[resolved]}"
            raise UserError(
                f"data lists {path} twice{same}. List it once; use data_weights, with one number per entry of data, to "
                "set how often it is drawn."
            )
        listed[resolved] = path
    sources = [_open_path(Path(path), split, DEFAULT_RAM_BYTES // len(paths)) for path in paths]
    return sources[0] if len(sources) == 1 else ConcatenatedImages(sources, paths)


def _open_path(path: Path, split: str, ram_bytes: int) -> ImageSource:
    if ingest_work_directory(path).is_dir() and not path.exists():
        return FrameShards.open(path, split)  # raises UserError: the ingest has not finished
    if (path / MANIFEST).is_file():
        manifest = read_json(path / MANIFEST)
        if isinstance(manifest, dict) and manifest.get("kind") == KIND:
            return FrameShards.open(path, split)
    if (path / "zarr.json").is_file():
        return DemoFrames(path, ram_bytes=ram_bytes)
    there = "is a file" if path.is_file() else "is neither" if path.is_dir() else "does not exist"
    raise UserError(
        f"{str(path)!r} {there}; expected a folder of frame shards (with {MANIFEST}, from `pixio-robot ingest`) or a "
        "Zarr demonstration store (with zarr.json, from `pixio-robot collect`)."
    )
