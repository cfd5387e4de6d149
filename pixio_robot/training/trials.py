"""Rollouts while training goes on: the policy is saved as it stands, and another process evaluates it.

    RUN/trials/step_00001000/model/        what was evaluated; kept for the best and the newest only
    RUN/trials/step_00001000/evaluation/   what the evaluation wrote
    RUN/trials/step_00001000/log.txt       what it said
    RUN/trials/ranking.json                all of them, best first

Training waits for them at its end only. The best of several noisy rates is too high: it is called the best of k, and is
to be evaluated again on other seeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.files import write_json
from pixio_robot.training.distributed import environment_of_one
from pixio_robot.training.job import Hook
from pixio_robot.training.tether import tethered

DIRECTORY, RANKING = "trials", "ranking.json"
MODEL, EVALUATION, LOG = "model", "evaluation", "log.txt"
KIND, FORMAT_VERSION = "trials", 1
NICENESS = 10
NOTE = "The best of several is too high, because it was chosen by these episodes: evaluate it again on other seeds."


@dataclasses.dataclass(kw_only=True)
class TrialsConfig:
    """Rollouts every `every` steps and at the end of training; 0 for none."""

    every: int = 0
    """Steps of training between two evaluations, with one at its end; 0: none."""
    keep_best: int = 2
    """Policies that are kept: the best ones by success rate, beside the newest."""

    def __post_init__(self) -> None:
        if self.every < 0 or self.keep_best < 1:
            raise UserError(
                f"trials.every={self.every} must not be negative, and trials.keep_best={self.keep_best} at least 1."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one evaluation. low and high: 95 % interval of the rate."""

    episodes: int
    successes: int
    rate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A step of the run and how the policy did then; None where its evaluation failed."""

    step: int
    outcome: Outcome | None


class Trials:
    """One evaluation at a time, at low priority; those that come too fast wait in a queue.

    `command(model, results)` are the words of a process that evaluates the policy in `model` into `results`, and
    `outcome(results)` reads what it wrote, None where it did not finish. Used as a context it ends the process that is
    still running, which on Linux ends too where this one is killed: an interrupted run takes up what is missing when it
    goes on.
    """

    def __init__(
        self,
        run_dir: Path | str,
        config: TrialsConfig,
        command: Callable[[Path, Path], list[str]],
        outcome: Callable[[Path], Outcome | None],
    ) -> None:
        self._directory = Path(run_dir) / DIRECTORY
        self._config, self._command, self._read = config, command, outcome
        self._waiting: list[int] = []
        self._running: tuple[int, subprocess.Popen[bytes]] | None = None
        self._done: dict[int, Outcome | None] = {}
        self._begun = False

    def look(self, save: Callable[[Path], None], first: bool = True) -> Hook:
        """The hook that saves the policy by `save`, starts its evaluation, and logs the results of earlier ones.
        Of several processes all save, and the first evaluates."""

        def call(step: int) -> Mapping[str, float]:
            if first:
                self._take_up(step)
                shutil.rmtree(self._place(step), ignore_errors=True)
            save(self._place(step) / MODEL)
            if not first:
                return {}
            self._waiting.append(step)
            news = self._collect()
            self._start_next()
            return self._numbers(news[-1]) if news else {}

        return Hook(every=self._config.every, call=call)

    def finish(self, write: Callable[[Mapping[str, float]], None]) -> list[Trial]:
        """Wait for what is running or waiting, and `write` the numbers of each; all trials, by their steps."""
        self._take_up(sys.maxsize)  # a run that was interrupted in here has no step left to look at
        while self._running is not None or self._waiting:
            self._start_next()
            if self._running is not None:
                self._running[1].wait()
            for trial in self._collect():
                write(self._numbers(trial))
        return [Trial(step=step, outcome=self._done[step]) for step in sorted(self._done)]

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            process = self._running[1]
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            if process.poll() is None:
                process.kill()
                process.wait()
            self._running = None

    def _place(self, step: int) -> Path:
        return self._directory / f"step_{step:08d}"

    def _take_up(self, step: int) -> None:
        """What an earlier part of the run left: results, and policies that were not evaluated to the end."""
        if self._begun:
            return
        self._begun = True
        for path in sorted(self._directory.glob("step_*")):
            number = re.fullmatch(r"step_(\d+)", path.name)
            if number is None or int(number[1]) >= step:
                shutil.rmtree(path)  # of a part that was lost, and is trained again
            elif (outcome := self._read(path / EVALUATION)) is not None:
                self._done[int(number[1])] = outcome
            elif (path / MODEL).is_dir():
                self._waiting.append(int(number[1]))

    def _start_next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        step = self._waiting.pop(0)
        place = self._place(step)
        with (place / LOG).open("wb") as log:
            process = subprocess.Popen(
                tethered(self._command(place / MODEL, place / EVALUATION)),
                env=environment_of_one(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own group: Ctrl-C is for the training, which ends it in its own time.
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        self._running = step, process

    def _collect(self) -> list[Trial]:
        """What ended since the last look; at most one, since one runs at a time."""
        if self._running is None or self._running[1].poll() is None:
            return []
        step, process = self._running
        self._running = None
        outcome = self._read(self._place(step) / EVALUATION) if process.returncode == 0 else None
        if outcome is None:
            said = (self._place(step) / LOG).read_text(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"exit code {process.returncode}"
            print(f"The evaluation at step {step} failed: {reason}", file=sys.stderr)
        self._done[step] = outcome
        self._rank()
        return [Trial(step=step, outcome=outcome)]

    def _numbers(self, trial: Trial) -> dict[str, float]:
        """For the log, which is at a later step than the trial: its own step is one of the numbers."""
        if trial.outcome is None:
            return {}
        best = max(outcome.rate for outcome in self._done.values() if outcome is not None)
        count = sum(outcome is not None for outcome in self._done.values())
        return {
            "trial_step": trial.step,
            "trial_success": trial.outcome.rate,
            "trial_success_low": trial.outcome.low,
            "trial_success_high": trial.outcome.high,
            "trial_best_of_k": best,
            "trial_k": count,
        }

    def _rank(self) -> None:
        ranked = ranking([Trial(step=step, outcome=outcome) for step, outcome in self._done.items()])
        kept = {trial.step for trial in ranked[: self._config.keep_best]} | {max(self._done)}
        for step in self._done:
            if step not in kept:
                shutil.rmtree(self._place(step) / MODEL, ignore_errors=True)
        entries: list[dict[str, Any]] = [
            {"step": trial.step, **dataclasses.asdict(trial.outcome), "model_kept": trial.step in kept}
            for trial in ranked
            if trial.outcome is not None
        ]
        header = {"kind": KIND, "format_version": FORMAT_VERSION, "note": NOTE, "best_of": len(entries)}
        failed = sorted(step for step, outcome in self._done.items() if outcome is None)
        write_json(self._directory / RANKING, {**header, "trials": entries, "failed_at": failed})


def ranking(trials: list[Trial]) -> list[Trial]:
    """Those with an outcome, the best first; of equal ones the later, which has learned more."""
    told = [trial for trial in trials if trial.outcome is not None]
    return sorted(told, key=lambda trial: (trial.outcome.rate, trial.step), reverse=True)  # type: ignore[union-attr]
