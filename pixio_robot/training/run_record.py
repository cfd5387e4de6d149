"""Records in a run directory: its settings, a lock against other processes, and the result."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.files import file_lock, read_json, write_json
from pixio_robot.json_values import to_json_value
from pixio_robot.training.settings import WITHOUT_EFFECT, diff_settings, flatten_settings, increased_settings

KIND = "training_run"
FORMAT_VERSION = 1
CONFIG = "config.json"
RESULT = "result.json"
EXTENDED = "grew"
"""Settings that were increased to extend a finished run, with their old values: its schedule is a combined one."""
LOCK = ".lock"

NOT_COMPARED = WITHOUT_EFFECT | {"seconds", "every", "keep_best"}
"""Names of settings that may change when a run is resumed; the last two are of the rollouts during training."""

_ignored: ContextVar[Collection[str]] = ContextVar("settings that the caller compares", default=())


@contextlib.contextmanager
def ignore_settings(names: Collection[str]) -> Iterator[None]:
    """Context in which runs may be resumed with other values of these flat settings, such as paths of inputs whose
    contents the caller has compared."""
    token = _ignored.set(names)
    try:
        yield
    finally:
        _ignored.reset(token)


@dataclasses.dataclass(kw_only=True)
class FitResult:
    """State of a run. `seconds` includes earlier, interrupted sessions."""

    steps: int
    seconds: float
    metrics: dict[str, Any]
    """The last logged value of every metric."""
    interrupted: bool = False
    """Stopped by a signal: a checkpoint was saved, but not the model. Call `fit` again to continue."""
    preempted: bool = False
    """Stopped by SIGTERM: a scheduler reclaims the machine and will start the command again later."""
    out_of_time: bool = False
    """Ended by `LoopConfig.seconds` before the last step; increase it to continue."""


@contextlib.contextmanager
def lock_run(
    run_dir: Path,
    settings: Mapping[str, Any],
    started: bool,
    extendable: Collection[str] = (),
) -> Iterator[None]:
    """Lock `run_dir` and compare its recorded settings with these; `started`: it already holds training progress.

    Settings in `extendable` may be larger than before; the increase is recorded. Raises UserError if another process is
    training there, or if the settings differ and `started`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    message = f"Another process is training in {run_dir}; wait for it, or use another directory."
    with file_lock(run_dir / LOCK, message):
        path, values = run_dir / CONFIG, to_json_value(settings)
        grew: list[dict[str, Any]] = []
        if path.is_file():
            config = _read_config(path)
            if started:
                grew = config.get(EXTENDED, [])
                grew += _check_settings(
                    run_dir, flatten_settings(config["settings"]), flatten_settings(values), extendable
                )
        record = {"kind": KIND, "format_version": FORMAT_VERSION, "settings": values}
        write_json(path, record | ({EXTENDED: grew} if grew else {}))
        yield


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict) or config.get("kind") != KIND or config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} is not the config of a training run of format_version {FORMAT_VERSION}; use another directory."
        )
    return config


def _check_settings(
    run_dir: Path, earlier: Mapping[str, Any], now: Mapping[str, Any], extendable: Collection[str]
) -> list[dict[str, Any]]:
    """Settings that were increased, with their old values. Raises UserError for other differences."""
    changes = diff_settings(earlier, now)
    increased = increased_settings(changes, extendable)
    changed = [
        f"{name}: {recorded!r} there, {current!r} now"
        for name, (recorded, current) in changes.items()
        if name.rpartition(".")[2] not in NOT_COMPARED and name not in increased and name not in _ignored.get()
    ]
    if changed:
        raise UserError(
            f"{run_dir} holds a run with other settings ({'; '.join(changed)}). "
            "Use another directory, or overwrite=true to start over."
        )
    return [{"setting": name, "was": changes[name][0]} for name in sorted(increased)]


def write_result(run_dir: Path, result: FitResult) -> None:
    write_json(run_dir / RESULT, dataclasses.asdict(result))


def read_result(run_dir: Path) -> FitResult | None:
    """Result of the run in `run_dir`; None if it has not ended."""
    if not (run_dir / RESULT).is_file():
        return None
    value = read_json(run_dir / RESULT)
    try:
        return FitResult(**value)
    except TypeError as error:
        raise UserError(f"{run_dir / RESULT} is not the result of a training run ({error}).") from error
