"""Where metrics are written: JSON lines and TensorBoard always, Weights & Biases on request."""

from __future__ import annotations

import contextlib
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


class MetricLogger(Protocol):
    """Receives numbers and images, uint8 (h, w, 3)."""

    def write(self, step: int, numbers: Mapping[str, float], images: Mapping[str, np.ndarray]) -> None: ...

    def sync(self) -> None:
        """Flush to disk; called before a checkpoint, so that none of its lines can be lost."""
        ...

    def close(self) -> None: ...


class MetricLoggers:
    """Write to all loggers, after removing what an earlier session wrote beyond `step`. If `enabled` is False, only
    record `last`, the last value of every number."""

    def __init__(self, run_dir: Path, step: int, wandb: bool = False, enabled: bool = True) -> None:
        self.last: dict[str, Any] = {}
        self._loggers: list[MetricLogger] = []
        if enabled:
            self.last = truncate_metrics(run_dir / METRICS, step)
            self._loggers = [JsonlLogger(run_dir / METRICS), TensorBoardLogger(run_dir / TENSORBOARD, step)]
        if enabled and wandb:
            self._loggers.append(WandbLogger(run_dir, step))

    def __enter__(self) -> MetricLoggers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        with contextlib.ExitStack() as stack:  # closes all of them, even if one fails
            for logger in reversed(self._loggers):
                stack.callback(logger.close)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write immediately. Non-finite numbers become null, since JSON cannot represent them."""
        images = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        numbers = {name: value for name, value in values.items() if name not in images}
        if numbers:
            self.last |= {"step": step} | _jsonable(numbers)
        for logger in self._loggers:
            logger.write(step, numbers, images)

    def sync(self) -> None:
        for logger in self._loggers:
            logger.sync()


class JsonlLogger:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def write(self, step: int, numbers: Mapping[str, float], images: Mapping[str, np.ndarray]) -> None:
        if numbers:
            self._file.write(json.dumps({"step": step} | _jsonable(numbers)) + "\n")
            self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorBoardLogger:
    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._board = SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float], images: Mapping[str, np.ndarray]) -> None:
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        for name, image_hw3 in images.items():
            self._board.add_image(name, image_hw3, step, dataformats="HWC")

    def sync(self) -> None:
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class WandbLogger:
    """One W&B run per training; one that is resumed continues it, after `step`."""

    def __init__(self, run_dir: Path, step: int) -> None:
        try:
            import wandb
            from wandb.errors import Error
        except ImportError:
            raise UserError("loop.wandb=true requires wandb: pip install 'pixio-robot[wandb]'.") from None
        config, directory = run_dir / CONFIG, run_dir.resolve()
        settings = read_json(config)["settings"] if config.is_file() else {}
        self._picture = wandb.Image
        try:
            self._run = wandb.init(
                dir=str(run_dir),
                id=_wandb_run_id(run_dir, step),
                name=f"{directory.parent.name}/{directory.name}",
                config=settings,
                resume="allow",
            )
        except Error as error:
            raise UserError(
                f"Weights & Biases cannot be reached ({error}): run `wandb login`, or set WANDB_MODE=offline."
            ) from error

    def write(self, step: int, numbers: Mapping[str, float], images: Mapping[str, np.ndarray]) -> None:
        shown = {name: self._picture(image_hw3) for name, image_hw3 in images.items()}
        self._run.log({**numbers, **shown}, step=step)

    def sync(self) -> None:
        """Nothing to do: W&B writes in its own process."""

    def close(self) -> None:
        self._run.finish()


def _wandb_run_id(run_dir: Path, step: int) -> str:
    """The id of the W&B run: a new one if training starts at step 0, because W&B drops values before an existing run's
    last step."""
    file = run_dir / WANDB_ID
    if step == 0 or not file.is_file():  # a training that started without W&B may be resumed with it
        write_json(file, {"id": secrets.token_hex(8)})
    return read_json(file)["id"]


def _jsonable(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def truncate_metrics(path: Path, step: int) -> dict[str, Any]:
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
