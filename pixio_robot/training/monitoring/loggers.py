"""Where metrics are written: JSON lines and TensorBoard always, Weights & Biases on request."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json, write_json
from pixio_robot.training.run_record import CONFIG

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
WANDB_ID = "wandb.json"


class Sink(Protocol):
    """Receives numbers and images, uint8 (h, w, 3)."""

    def write(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None: ...

    def sync(self) -> None:
        """Flush to disk; called before a checkpoint, so that none of its lines can be lost."""
        ...

    def close(self) -> None: ...


class MetricsLog:
    """Write to all sinks, after removing what an earlier session wrote beyond `step`. If `kept` is False, only record
    `last`, the last value of every number."""

    def __init__(self, run_dir: Path, step: int, wandb: bool = False, kept: bool = True) -> None:
        self.last: dict[str, Any] = {}
        self._sinks: list[Sink] = []
        if kept:
            self.last = truncate_after(run_dir / METRICS, step)
            self._sinks = [JsonLines(run_dir / METRICS), TensorBoard(run_dir / TENSORBOARD, step)]
        if kept and wandb:
            self._sinks.append(WeightsAndBiases(run_dir, step))

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for sink in self._sinks:
            sink.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write immediately. Non-finite numbers become null, since JSON cannot represent them."""
        pictures = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        numbers = {name: value for name, value in values.items() if name not in pictures}
        if numbers:
            self.last |= {"step": step} | _jsonable(numbers)
        for sink in self._sinks:
            sink.write(step, numbers, pictures)

    def sync(self) -> None:
        for sink in self._sinks:
            sink.sync()


class JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def write(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        if numbers:
            self._file.write(json.dumps({"step": step} | _jsonable(numbers)) + "\n")
            self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._board = SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        for name, image_hw3 in pictures.items():
            self._board.add_image(name, image_hw3, step, dataformats="HWC")

    def sync(self) -> None:
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class WeightsAndBiases:
    """One W&B run per training; one that is resumed continues it, after `step`."""

    def __init__(self, run_dir: Path, step: int) -> None:
        try:
            import wandb
            from wandb.errors import Error
        except ImportError:
            raise UserError("loop.wandb=true requires wandb: pip install 'pixio-robot[wandb]'.") from None
        record, place = run_dir / CONFIG, run_dir.resolve()
        settings = read_json(record)["settings"] if record.is_file() else {}
        self._picture = wandb.Image
        try:
            self._run = wandb.init(
                dir=str(run_dir),
                id=_run_id(run_dir, step),
                name=f"{place.parent.name}/{place.name}",
                config=settings,
                resume="allow",
            )
        except Error as error:
            raise UserError(
                f"Weights & Biases cannot be reached ({error}): run `wandb login`, or set WANDB_MODE=offline."
            ) from error

    def write(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        shown = {name: self._picture(image_hw3) for name, image_hw3 in pictures.items()}
        self._run.log({**numbers, **shown}, step=step)

    def sync(self) -> None:
        """Nothing to do: W&B writes in its own process."""

    def close(self) -> None:
        self._run.finish()


def _run_id(run_dir: Path, step: int) -> str:
    """A new one for a training that begins: W&B drops what comes before the last step of an existing run."""
    file = run_dir / WANDB_ID
    if step == 0 or not file.is_file():  # a training may go on with W&B that began without
        write_json(file, {"id": secrets.token_hex(8)})
    return read_json(file)["id"]


def _jsonable(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def truncate_after(path: Path, step: int) -> dict[str, Any]:
    """Remove lines of later steps and an incomplete last line; returns the last remaining value of every name."""
    kept, last = [], {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue  # incomplete: the process was killed while writing
        if values["step"] <= step:
            kept.append(line + "\n")
            last |= values
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept))
    return last
