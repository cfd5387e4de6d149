"""Rollouts during training: the current policy is saved, and another process evaluates it.

    RUN/trials/step_00001000/model/        the evaluated policy; kept for the best and the newest only
    RUN/trials/step_00001000/evaluation/   results of the evaluation
    RUN/trials/step_00001000/log.txt       output of the evaluation
    RUN/trials/ranking.json                all trials, best first

Training waits for trials only at its end. The best of several noisy success rates is biased upwards: it is reported as
the best of k, and should be evaluated again on other seeds.
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

from pixio_robot.fields import check_fields, number
from pixio_robot.files import write_json
from pixio_robot.training.distributed.launch import single_process_environment
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.job import Hook
from pixio_robot.training.parent_death_signal import with_parent_death_signal

DIRECTORY, RANKING = "trials", "ranking.json"
MODEL, EVALUATION, LOG = "model", "evaluation", "log.txt"
KIND, FORMAT_VERSION = "trials", 1
NICENESS = 10
NOTE = "The best rate is biased upwards, because it was selected on these episodes: evaluate it again on other seeds."


@dataclasses.dataclass(kw_only=True)
class TrialsConfig:
    """Rollouts every `every` steps and at the end of training; 0 disables them."""

    every: int = number(0, at_least=0)
    """Training steps between two evaluations; another follows at the end of training. 0 disables them."""
    keep_best: int = number(2, at_least=1)
    """Number of policies to keep, those with the highest success rates; the newest is always kept too."""

    def __post_init__(self) -> None:
        check_fields(self, "trials.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialResult:
    """Result of one evaluation. low and high: 95 % interval of the success rate."""

    episodes: int
    successes: int
    rate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A training step and the result of the policy at that step; None if its evaluation failed."""

    step: int
    outcome: TrialResult | None


class Trials:
    """Runs one evaluation at a time, at low priority; further ones wait in a queue.

    `command(model, results)` is the command line of a process that evaluates the policy in `model` into `results`;
    `outcome(results)` reads what it wrote, None if it did not finish. Leaving the context ends a process that is still
    running (on Linux it also ends if this process is killed); a resumed run evaluates what is missing.
    """

    def __init__(
        self,
        run_dir: Path | str,
        config: TrialsConfig,
        command: Callable[[Path, Path], list[str]],
        outcome: Callable[[Path], TrialResult | None],
    ) -> None:
        self._directory = Path(run_dir) / DIRECTORY
        self._config, self._command, self._read = config, command, outcome
        self._waiting: list[int] = []
        self._running: tuple[int, subprocess.Popen[bytes]] | None = None
        self._done: dict[int, TrialResult | None] = {}
        self._loaded = False

    def make_hook(self, save: Callable[[Path], None]) -> Hook:
        """The hook that saves the policy with `save`, starts its evaluation and logs the results of earlier ones. In
        distributed training all processes call `save`, and only the main process evaluates."""

        is_main = current_processes().is_main

        def call(step: int) -> Mapping[str, float]:
            if is_main:
                self._load_earlier_trials(step)
                shutil.rmtree(self._trial_directory(step), ignore_errors=True)
            save(self._trial_directory(step) / MODEL)
            if not is_main:
                return {}
            self._waiting.append(step)
            finished = self._poll()
            self._start_next()
            return self._loggable(finished[-1]) if finished else {}

        return Hook(every=self._config.every, call=call)

    def finish(self, write: Callable[[Mapping[str, float]], None]) -> list[Trial]:
        """Wait for all running and queued evaluations and `write` the numbers of each. Returns all trials by step."""
        self._load_earlier_trials(sys.maxsize)  # a run that was interrupted here has no training steps left
        while self._running is not None or self._waiting:
            self._start_next()
            if self._running is not None:
                self._running[1].wait()
            for trial in self._poll():
                write(self._loggable(trial))
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

    def _trial_directory(self, step: int) -> Path:
        return self._directory / f"step_{step:08d}"

    def _load_earlier_trials(self, step: int) -> None:
        """Load the results of the run before it was interrupted, and queue policies whose evaluation did not finish."""
        if self._loaded:
            return
        self._loaded = True
        for path in sorted(self._directory.glob("step_*")):
            number = re.fullmatch(r"step_(\d+)", path.name)
            if number is None or int(number[1]) >= step:
                shutil.rmtree(path)  # from steps after the checkpoint, which are trained again
            elif (outcome := self._read(path / EVALUATION)) is not None:
                self._done[int(number[1])] = outcome
            elif (path / MODEL).is_dir():
                self._waiting.append(int(number[1]))

    def _start_next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        step = self._waiting.pop(0)
        directory = self._trial_directory(step)
        with (directory / LOG).open("wb") as log:
            process = subprocess.Popen(
                with_parent_death_signal(self._command(directory / MODEL, directory / EVALUATION)),
                env=single_process_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A separate session: Ctrl-C reaches training only, which then ends this process itself.
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        self._running = step, process

    def _poll(self) -> list[Trial]:
        """The trial that ended since the last call, if any; at most one runs at a time."""
        if self._running is None or self._running[1].poll() is None:
            return []
        step, process = self._running
        self._running = None
        outcome = self._read(self._trial_directory(step) / EVALUATION) if process.returncode == 0 else None
        if outcome is None:
            log_lines = (self._trial_directory(step) / LOG).read_text(errors="replace").strip().splitlines()
            reason = log_lines[-1] if log_lines else f"exit code {process.returncode}"
            print(f"The evaluation at step {step} failed: {reason}", file=sys.stderr)
        self._done[step] = outcome
        self._write_ranking()
        return [Trial(step=step, outcome=outcome)]

    def _loggable(self, trial: Trial) -> dict[str, float]:
        """Numbers for the log, including the trial's own step, since they are logged at a later step."""
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

    def _write_ranking(self) -> None:
        ranked = rank_trials([Trial(step=step, outcome=outcome) for step, outcome in self._done.items()])
        kept = {trial.step for trial in ranked[: self._config.keep_best]} | {max(self._done)}
        for step in self._done:
            if step not in kept:
                shutil.rmtree(self._trial_directory(step) / MODEL, ignore_errors=True)
        entries: list[dict[str, Any]] = [
            {"step": trial.step, **dataclasses.asdict(trial.outcome), "model_kept": trial.step in kept}
            for trial in ranked
            if trial.outcome is not None
        ]
        header = {"kind": KIND, "format_version": FORMAT_VERSION, "note": NOTE, "best_of": len(entries)}
        failed = sorted(step for step, outcome in self._done.items() if outcome is None)
        write_json(self._directory / RANKING, {**header, "trials": entries, "failed_at": failed})


def rank_trials(trials: list[Trial]) -> list[Trial]:
    """Trials with an outcome, best first. Of equal ones the later step comes first, because it was trained longer."""
    evaluated = [trial for trial in trials if trial.outcome is not None]
    return sorted(evaluated, key=lambda trial: (trial.outcome.rate, trial.step), reverse=True)  # type: ignore[union-attr]
