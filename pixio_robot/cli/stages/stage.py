"""Stages that are skipped if their result is up to date: a stamp next to each output records how it was made.

`runs/a/demos` is described by `runs/a/demos.stage.json`: command, settings, what its inputs contained, seconds of work,
and whether it is finished. It is not inside the output, which may be in another tool's format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pixio_robot.cli.policy_directory import TRIALS
from pixio_robot.cli.signals import INTERRUPTED
from pixio_robot.cli.stages.fingerprint import fingerprint_content
from pixio_robot.cli.stages.replacement import finish_replacement, replacing_result
from pixio_robot.errors import UserError, format_names
from pixio_robot.files import file_lock, read_json, write_json
from pixio_robot.json_values import to_json_value
from pixio_robot.training.settings import (
    EXTENDABLE,
    WITHOUT_EFFECT,
    diff_settings,
    flatten_settings,
    increased_settings,
)

STAMP_SUFFIX = ".stage.json"

NOT_COMPARED = WITHOUT_EFFECT | {
    *("features_dir", "step_timeout_s", "timeout_s", "drop_missing", "trials"),
    *("executor", "start_method", "egl_devices", "python", "worlds", "max_failures"),
}
"""Names of settings that do not affect the content of a result, of training and of all other commands."""
USER_KEYED_MAPPINGS = frozenset({"make", "cameras"})
"""Mappings with keys of the user's own, which are never such settings even if they have the same name."""


def stamp_path(out: Path) -> Path:
    return out.with_name(out.name + STAMP_SUFFIX)


def affects_result(name: str) -> bool:
    """Whether a flat setting can change the result."""
    parts = name.split(".")
    return not any(
        part in NOT_COMPARED and USER_KEYED_MAPPINGS.isdisjoint(parts[:depth]) for depth, part in enumerate(parts)
    )


Inputs = Mapping[str, str | Sequence[str]]
"""Setting -> the path that it names, or several."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A command, what it makes, and from what."""

    command: str
    out: str
    settings: Any
    inputs: Inputs = dataclasses.field(default_factory=dict)
    """Compared by what they contain, in place of the settings that name them."""
    overwrite: bool = False
    """Delete an earlier result, whatever its settings, once a new one has begun at `out`; if the work fails or is
    interrupted before that, the earlier result is left unchanged."""
    has_begun: Callable[[Path], bool] = Path.exists
    """Whether the new result at a path is worth more than the earlier one."""
    always: bool = False
    """Whether the work updates an existing result itself: it is done in any case."""
    replaces: bool = False
    """Whether the work replaces all of `out`, which must then be missing, empty or made by a stage."""
    may_grow: Collection[str] = ()
    """Flat settings: a result that differs only in these, and only by larger values, is continued."""
    grows_in_place: bool = False
    """Whether a result that is continued changes at once, as a store does, which is unfinished meanwhile. Otherwise it
    is the earlier one until the work ends, as a trained model is."""

    @property
    def target(self) -> Path:
        return Path(self.out)

    @property
    def stamp(self) -> Path:
        return stamp_path(self.target)

    @property
    def input_paths(self) -> list[str]:
        return [path for named in self.inputs.values() for path in _as_list(named)]

    def record(self) -> dict[str, Any]:
        """What determines the result, as in its stamp."""
        settings = flatten_settings(to_json_value(self.settings))
        inputs = {name: [fingerprint_content(path) for path in _as_list(named)] for name, named in self.inputs.items()}
        return {
            "stage": self.command,
            "out": str(self.target),
            "command": shlex.join(["pixio-robot", *_command_words.get()]),
            "settings": {name: value for name, value in settings.items() if affects_result(name)},
            "inputs": {name: contents[0] if len(contents) == 1 else contents for name, contents in inputs.items()},
        }


def _as_list(named: str | Sequence[str]) -> Sequence[str]:
    return [named] if isinstance(named, str) else named


def run_stage(stage: Stage, work: Callable[[], bool]) -> int:
    """Run `work` unless its result was already made with equal settings from equal inputs. Returns an exit code.

    `work` returns False if it was interrupted and saved a state to continue from; it resumes from such a state by
    itself. Raises UserError if `out` contains a result of other settings, or would contain results of other commands.
    """
    target = stage.target
    if not target.name:
        raise UserError(
            f"out={stage.out!r} cannot hold the result of `{stage.command}`; choose a directory such as "
            f"runs/mine/{stage.command}."
        )
    stamp = stage.stamp
    with contextlib.ExitStack() as stack:
        stack.enter_context(_output_lock(target))
        finish_replacement(target, stamp, stage.has_begun)
        if stage.overwrite or not stamp.is_file():
            _check_no_nested_results(target)
        if stage.replaces and not stage.overwrite and not stamp.is_file():
            _check_nothing_foreign(stage.command, target)
        if stage.overwrite and target.exists():
            if not (stamp.is_file() and _holds_what_was_made(target, read_json(stamp))):
                raise UserError(
                    f"{target} was not made by pixio-robot, so overwrite=true does not replace it. Choose another out=."
                )
            stack.enter_context(replacing_result(target, stamp, stage.has_begun))
        _print_unfinished_inputs(stage)
        return _run_and_stamp(stage, work)


def _check_no_nested_results(target: Path) -> None:
    """Raise UserError if there are results of other commands in `target`: overwrite=true would delete them with it."""
    stamps = [path.relative_to(target) for path in target.rglob(f"*{STAMP_SUFFIX}")]
    # The rollouts during a training are a part of it.
    others = sorted(str(path).removesuffix(STAMP_SUFFIX) for path in stamps if path.parts[0] != TRIALS)
    if others:
        raise UserError(
            f"{target} holds other results ({format_names(others)}), which overwrite=true would delete: "
            f"give out={target}/NAME."
        )


def _names_in(target: Path) -> list[str]:
    """A few names that show whose directory this is."""
    return sorted(path.name for path in target.iterdir())[:20] if target.is_dir() else []


def _holds_what_was_made(target: Path, stamp: Mapping[str, Any]) -> bool:
    """Whether something at `target` was there when its stamp was written: the result may have been removed, and
    other files put in its place. True also if the stamp does not say, as after a kill."""
    made = stamp.get("holds")
    return not made or any((target / name).exists() for name in made)


def _check_nothing_foreign(command: str, target: Path) -> None:
    """Raise UserError if there is anything at `target`, which no stage made."""
    names = sorted(path.name for path in target.iterdir()) if target.is_dir() else [target.name] * target.exists()
    if names:
        raise UserError(
            f"{target} holds {format_names(names)} and was not made by pixio-robot; `{command}` would replace all of "
            "it: choose a new or empty out=."
        )


def _print_unfinished_inputs(stage: Stage) -> None:
    """Say which inputs were interrupted and can be used all the same, such as demonstrations."""
    for path in map(Path, stage.input_paths):
        if not (path.name and path.exists() and stamp_path(path).is_file()):
            continue
        earlier = read_json(stamp_path(path))
        if not earlier["finished"]:
            print(
                f"{stage.command}: {path} is unfinished and used as it is now; `{earlier['command']}` continues it",
                flush=True,
            )


@contextlib.contextmanager
def _output_lock(target: Path) -> Iterator[None]:
    """Lock an output against other commands; raises UserError if another process is writing to it."""
    new_parents = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock(
            target.with_name(f".{target.name}.lock"),
            f"Another process is writing to {target}; wait for it, or choose another out=.",
        ):
            yield
    finally:
        # Remove directories that were created only for the lock.
        for parent in new_parents:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _run_and_stamp(stage: Stage, work: Callable[[], bool]) -> int:
    """Run `work` unless the result is up to date, and keep its stamp true before, after and if it fails."""
    command, target, stamp, record = stage.command, stage.target, stage.stamp, stage.record()
    earlier = read_json(stamp) if stamp.is_file() and target.exists() else None
    changed = {}
    if earlier is not None:
        before, now = ({**each["settings"], **each["inputs"]} for each in (earlier, record))
        changed = diff_settings(before, now)
    larger = increased_settings(changed, stage.may_grow)
    # Then the output is still the earlier result while the work goes on, and so is what others read from it.
    stays = larger and not stage.grows_in_place
    if changed.keys() - larger and not stage.always:
        raise UserError(_conflict_message(target, changed))
    spent, was_finished = 0.0, earlier is not None and earlier["finished"]
    if earlier is not None:
        if was_finished and not stage.always and not larger:
            print(f"{command}: {target} is up to date (took {earlier['seconds']:.0f} s)")
            return 0
        if not was_finished or larger:
            print(f"{command}: continuing {target}")
        spent = earlier["seconds"] if not changed or larger else 0.0

    def save(finished: bool) -> None:
        seconds = spent + time.monotonic() - started
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        state = {"seconds": round(seconds, 2), "finished": finished, "finished_at": now, "holds": _names_in(target)}
        write_json(stamp, record | state)

    started = time.monotonic()
    growing_from = fingerprint_content(str(target)) if larger and not stays and was_finished else None
    if not stays:
        save(finished=False)
    try:
        finished = work()
    except BaseException as error:
        # A failed first attempt leaves no stamp, so that the settings can be corrected freely. A finished result keeps
        # its stamp if the settings for an update were rejected, or if it has not grown.
        unchanged = growing_from is not None and growing_from == fingerprint_content(str(target))
        if unchanged or (stage.always and was_finished and isinstance(error, UserError)):
            write_json(stamp, earlier)
        elif not target.exists():
            stamp.unlink()
        elif not stays:
            save(finished=False)
        raise
    if finished or not stays:
        save(finished)
    if not finished:
        print(f"{command}: stopped; run the same command again to continue {target}")
        return INTERRUPTED
    return 0


_command_words: ContextVar[tuple[str, ...]] = ContextVar("words of the command being run", default=())


def remember_command(words: Sequence[str]) -> None:
    """Remember the arguments of the running command, which go into the stamps and from there into the report."""
    _command_words.set(tuple(words))


def _conflict_message(target: Path, changed: Mapping[str, tuple[Any, Any]]) -> str:
    changes = [f"{name}: {then!r} then, {now!r} now" for name, (then, now) in changed.items()]
    shown = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
    further = (
        "loop.extend=true to continue training, " if increased_settings(changed, EXTENDABLE) == changed.keys() else ""
    )
    return (
        f"{target} was made with other settings ({shown}). Use another out=, {further}or overwrite=true to replace it."
    )
