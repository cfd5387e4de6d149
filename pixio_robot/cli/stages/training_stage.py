"""Run a training as a stage: in one process or in several, of which the first manages the directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pixio_robot.cli.signals import INTERRUPTED
from pixio_robot.cli.stages.stage import Inputs, Stage, affects_result, run_stage
from pixio_robot.errors import UserError
from pixio_robot.json_values import to_json_value
from pixio_robot.training.distributed.launch import join_process_group
from pixio_robot.training.distributed.processes import Processes, current_processes
from pixio_robot.training.loop import extendable_settings
from pixio_robot.training.run_record import FitResult, ignore_settings
from pixio_robot.training.settings import diff_settings, flatten_settings


def run_training(
    command: str,
    settings: Any,
    train: Callable[[], FitResult],
    describe_result: Callable[[FitResult], str],
    *,
    inputs: Inputs,
) -> int:
    """Run `train` unless `settings.out` already has its result. `describe_result`: what to print at the end of a
    finished run. Returns an exit code.

    Raises SystemExit(0) if the run was preempted: it has saved its state, and the sender of SIGTERM would take any
    other code for a failure. Raises UserError if several processes were started with different settings.
    """
    preempted = False

    def work() -> bool:
        nonlocal preempted
        # By content, in run_stage: the run may have been moved.
        with ignore_settings(inputs):
            result = train()
        preempted = result.preempted
        if not result.interrupted and current_processes().is_main:
            print(describe_result(result))
        return not result.interrupted

    may_grow = extendable_settings(settings.loop)
    stage = Stage(command, settings.out, settings, inputs, overwrite=settings.overwrite, may_grow=may_grow)
    with join_process_group(settings.device) as processes:
        _check_same_settings(processes, settings, inputs)
        code = _run_collectively(stage, work)
    if preempted:
        raise SystemExit(0)
    return code


def _check_same_settings(processes: Processes, settings: Any, inputs: Inputs) -> None:
    """Raise UserError, in every process, if they were not all started with the same settings and `out`. Paths of inputs
    may differ, as on the disks of several machines."""
    mine = flatten_settings(to_json_value(settings))
    compared = {name for name in mine if (name == "out" or affects_result(name)) and name not in inputs}
    everyone = processes.all_gather({name: mine[name] for name in compared})
    for rank, theirs in enumerate(everyone):
        for name, (first, other) in diff_settings(everyone[0], theirs).items():
            raise UserError(
                f"{name} is {first!r} in the first of {len(everyone)} processes and {other!r} in number {rank + 1}. "
                "Processes that torchrun or srun starts together train one policy or encoder: start separate trainings "
                "separately (srun --ntasks=1), or as the jobs of a sweep (-m hydra/launcher=slurm)."
            )


def _run_collectively(stage: Stage, work: Callable[[], bool]) -> int:
    """Run the stage on the main process; the others run `work` if and when the main process does. Returns an exit code.

    Locks, stage records and messages thus come from one process only.
    """
    processes = current_processes()
    if not processes.is_main:
        starts = processes.all_reduce_max(0.0)[0] > 0
        return 0 if not starts or work() else INTERRUPTED
    started = False

    def announce_and_work() -> bool:
        nonlocal started
        started = True
        processes.all_reduce_max(1.0)
        return work()

    try:
        return run_stage(stage, announce_and_work)
    finally:
        if not started:
            processes.all_reduce_max(0.0)
