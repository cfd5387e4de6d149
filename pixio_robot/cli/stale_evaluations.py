"""Evaluations of policies that have been trained anew since: their rates are not those of the policy that is there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pixio_robot.cli.evaluation_target import RANDOM, checkpoint_fingerprint
from pixio_robot.cli.policy_directory import policy_directory, weights_fingerprint
from pixio_robot.cli.stages.stage import stamp_path
from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import SUMMARY
from pixio_robot.files import read_json


def find_stale_evaluations(evaluations: Iterable[Path]) -> list[Path]:
    """Those of these results directories whose policy has other weights now. A policy that is gone, or is not known,
    does not count."""
    fingerprint = functools.cache(_fingerprint)
    return [evaluation for evaluation in evaluations if _is_stale(evaluation, fingerprint)]


def candidate_policy_paths(evaluation: Path) -> list[Path]:
    """Where the evaluated policy may be, the likeliest place first; empty for random actions, or without a stamp.

    A stamp contains the original paths. In a run that was moved, the policy moved along."""
    stamp = stamp_path(evaluation)
    if not stamp.is_file():
        return []
    record = read_json(stamp)
    checkpoint = Path(record["settings"]["checkpoint"])
    if checkpoint == Path(RANDOM):
        return []
    moved = relocated(checkpoint, Path(record["out"]), evaluation)
    return [checkpoint] if moved is None else [moved, checkpoint]


def relocated(path: Path, before: Path, now: Path) -> Path | None:
    """Where `path` is now, if it was moved along with what was at `before` and is at `now`; None if it was not."""
    old, new = list(before.parts), list(now.resolve().parts)
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    return Path(*new, path.relative_to(Path(*old))) if path.is_relative_to(Path(*old)) else None


def _is_stale(evaluation: Path, fingerprint: Callable[[Path, int | None], str]) -> bool:
    candidates = candidate_policy_paths(evaluation)
    if not candidates:
        return False
    if len(candidates) == 1 and Path(read_json(stamp_path(evaluation))["out"]).resolve() != evaluation.resolve():
        return False  # a copy without its policy: here, another one may be at that path
    for path in _summaries(evaluation):
        summary = read_json(path)
        evaluated_fingerprint = summary.get("fingerprint") if isinstance(summary, dict) else ""
        if evaluated_fingerprint and fingerprint(candidates[0], summary.get("training_step")) not in (
            "",
            evaluated_fingerprint,
        ):
            return True
    return False


def _summaries(evaluation: Path) -> Iterator[Path]:
    """The summary of an evaluation, or those of a series of checkpoints."""
    yield from (path for path in (evaluation / SUMMARY, *evaluation.glob(f"step_*/{SUMMARY}")) if path.is_file())


def _fingerprint(policy: Path, step: int | None) -> str:
    """Hash of the weights there, of the finished policy or after a training step; empty if there are none."""
    if step is not None:
        checkpoint = policy / "checkpoints" / f"step_{step:08d}"
        return checkpoint_fingerprint(checkpoint) if checkpoint.is_dir() else ""
    try:
        return weights_fingerprint(policy_directory(str(policy)))
    except (UserError, FileNotFoundError):
        return ""
