"""A diffusion_policy replay buffer on disk: arrays `data/<key>` of concatenated episodes, and the episode ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.diffusion_policy.container import EPISODE_ENDS, open_container
from pixio_robot.interop.diffusion_policy.zarr_arrays import ArrayReader


class ReplayBuffer:
    """A replay buffer opened for reading; a context manager.

    Raises UserError for a store of another format, or if the arrays do not end where the last episode ends.
    """

    def __init__(self, path: Path, *, fill_missing: bool = False) -> None:
        self.path = path
        self._fill_missing = fill_missing
        self._container = open_container(path)
        try:
            if self._container.read(f"{EPISODE_ENDS}/zarr.json") is not None:
                raise UserError(
                    f"{path} is in Zarr format 3, but replay buffers are in format 2: write it with zarr_format=2, or "
                    "convert it (docs/demonstrations.md shows how)."
                )
            self.ends = self._read_ends()
            self.arrays = {key: self._array(f"data/{key}") for key in self._container.children("data")}
            self._check_lengths()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> ReplayBuffer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container.close()

    def __len__(self) -> int:
        return len(self.ends)

    def steps(self, episode: int) -> tuple[int, int]:
        """Start and end row of an episode (end exclusive)."""
        return (int(self.ends[episode - 1]) if episode else 0), int(self.ends[episode])

    def array(self, key: str) -> ArrayReader:
        if key not in self.arrays:
            raise unknown_name(f"key of data in {self.path}", key, self.arrays)
        return self.arrays[key]

    def meta(self, key: str) -> np.ndarray | None:
        """`meta/<key>`, one number per episode; None if there is no such array."""
        if key not in self._container.children("meta"):
            return None
        array = self._array(f"meta/{key}")
        if array.shape != self.ends.shape:
            raise UserError(f"meta/{key} in {self.path} has shape {array.shape}, but there are {len(self)} episodes.")
        return array.rows(0, len(self))

    def attributes(self) -> dict[str, Any]:
        """Attributes of the store."""
        content = self._container.read(".zattrs")
        try:
            attributes = {} if content is None else json.loads(content)
        except ValueError as error:
            raise UserError(f".zattrs in {self.path} is damaged ({error}).") from error
        return attributes if isinstance(attributes, dict) else {}

    def _array(self, key: str) -> ArrayReader:
        return ArrayReader(self._container, key, str(self.path), fill_missing=self._fill_missing)

    def _read_ends(self) -> np.ndarray:
        array = self._array(EPISODE_ENDS)
        if len(array.shape) != 1 or array.dtype.kind not in "iu":
            raise UserError(f"{EPISODE_ENDS} in {self.path} has dtype {array.dtype} and shape {array.shape}.")
        ends = array.rows(0, array.shape[0]).astype(np.int64)
        if len(ends) == 0:
            raise UserError(f"{self.path} has no episodes.")
        lengths = np.diff(ends, prepend=0)
        if lengths.min() <= 0:
            episode = int(np.argmax(lengths <= 0))
            raise UserError(
                f"{EPISODE_ENDS} in {self.path} must increase, but episode {episode} has {lengths[episode]} steps."
            )
        return ends

    def _check_lengths(self) -> None:
        if not self.arrays:
            raise UserError(f"{self.path} has no arrays under data/.")
        for key, array in self.arrays.items():
            if array.shape[0] != self.ends[-1]:
                raise UserError(
                    f"data/{key} in {self.path} has {array.shape[0]} rows, but meta/episode_ends ends at "
                    f"{self.ends[-1]}."
                )
