"""Sweeps as jobs of a cluster, by Hydra's submitit launchers: submitting them, and how a job ends."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

import hydra

from pixio_robot.cli.signals import SignalInterrupt, signals_raise_interrupt
from pixio_robot.errors import UserError

SEVERAL_PROCESSES = ("pretrain", "distill", "train")
"""The commands of which several processes do the work of one."""
ONE_PROCESS = [f"hydra.launcher.{name}=1" for name in ("nodes", "tasks_per_node", "gpus_per_node")]
LOG_LINES = 8
"""How much of its log is shown if a job ended without a result."""
GOES_ON = "Submitted jobs go on: squeue lists them, scancel ends them."


def launcher_of(words: Sequence[str]) -> str:
    """The launcher that is chosen on the command line, such as slurm; empty: none."""
    chosen = [word for word in words if word.startswith("hydra/launcher=")]
    return chosen[-1].partition("=")[2] if chosen else ""


def _submits(launcher: str) -> bool:
    return "slurm" in launcher or "submitit" in launcher


def prepare_submission(command: str, words: Sequence[str]) -> list[str]:
    """Overrides of the launcher's settings, to stand before those of the user. Raises UserError if the launcher misses
    something, or if a command that is one process would be started several times. Requires an initialised Hydra."""
    launcher = launcher_of(words)
    if not _submits(launcher):
        return []
    if importlib.util.find_spec("submitit") is None:
        raise UserError(f"hydra/launcher={launcher} needs submitit: pip install 'pixio-robot[slurm]'.")
    if "slurm" in launcher and shutil.which("sbatch") is None:
        raise UserError(f"hydra/launcher={launcher} needs Slurm's sbatch, which is not on the PATH of this machine.")
    if command in SEVERAL_PROCESSES:
        return []
    defaults = ONE_PROCESS if launcher == "slurm" else []
    settings = [word for word in words if word.startswith("hydra")]
    chosen = hydra.compose(command, [*defaults, *settings], return_hydra_config=True).hydra.launcher
    if chosen.nodes * chosen.tasks_per_node > 1:
        raise UserError(
            f"`{command}` is one process: leave out hydra.launcher.nodes={chosen.nodes} and "
            f"hydra.launcher.tasks_per_node={chosen.tasks_per_node}, with which all tasks would do the same."
        )
    return defaults


@contextlib.contextmanager
def submission_errors(launcher: str) -> Iterator[None]:
    """Raise UserError if jobs are refused, or end without a result, and say that jobs go on after Ctrl-C."""
    if not _submits(launcher):
        yield
        return
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        yield
    except KeyboardInterrupt as end:
        if isinstance(end, SignalInterrupt) and "slurm" in launcher:
            end.advice = GOES_ON
        raise
    except FailedJobError as error:  # what sbatch said, or a job's traceback
        raise UserError(
            f"{str(error).strip()}\nThe settings of a job are hydra.launcher.partition and others."
        ) from error
    except UncompletedJobError as error:
        lines = str(error).strip().splitlines()
        what = " ".join([*lines[:2], "If Slurm has requeued it, squeue lists it."])
        raise UserError("\n".join([what, *lines[2:4], *lines[4:][-LOG_LINES:]])) from error


def is_cluster_job() -> bool:
    """Whether this process is a task of a job that submitit has started."""
    return "SUBMITIT_EXECUTOR" in os.environ


@contextlib.contextmanager
def cluster_job() -> Iterator[None]:
    """Context of the command in a task of a job; none outside of jobs.

    SIGINT and SIGTERM end the command as they do in a terminal (submitit ignores them), and an error is the exit code
    of the job (Hydra hands it to the process that submitted the job, and ends the job with 0).
    """
    if not is_cluster_job():
        yield
        return
    code = 0

    def end() -> None:
        if code:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    atexit.register(end)  # before others are, so that it is called last
    try:
        with signals_raise_interrupt(), _undisturbed_requeue():
            yield
    except SignalInterrupt as interrupt:
        print("pixio-robot: interrupted. Submit the same command again to continue.", file=sys.stderr, flush=True)
        sys.exit(128 + interrupt.number)
    except Exception as error:
        code = 2 if isinstance(error, UserError) else 1
        raise


@contextlib.contextmanager
def _undisturbed_requeue() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM once submitit handles the signal to requeue the job: Slurm sends SIGTERM meanwhile."""
    requeue = signal.getsignal(signal.SIGUSR2)
    if not callable(requeue):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, signal.SIG_IGN)
        requeue(number, frame)

    signal.signal(signal.SIGUSR2, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, requeue)
