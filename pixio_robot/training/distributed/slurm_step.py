"""What torch needs to know of the tasks that `srun` has started, from the variables that Slurm sets for them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

PORTS = range(20_000, 32_768)
"""Below those that Linux gives to outgoing connections."""
_NEEDED = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
)


def has_several_tasks(environment: Mapping[str, str]) -> bool:
    """Whether this process is one of several tasks of a job step, and not the script of a job that has several.

    A process that was told only some of the variables, as in a container, cannot find the others: it is on its own."""
    return _is_one_of_several(environment) and not _missing(environment)


def explain_lone_task(environment: Mapping[str, str]) -> str:
    """A note if this is one of several tasks and was told only some of the variables; otherwise empty."""
    if not _is_one_of_several(environment) or not (missing := _missing(environment)):
        return ""
    return (
        f"one of {environment['SLURM_STEP_NUM_TASKS']} tasks of a Slurm step trains alone, since it was not told "
        f"{', '.join(missing)}. RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT would let it join the others."
    )


def _missing(environment: Mapping[str, str]) -> list[str]:
    return [name for name in _NEEDED if not environment.get(name)]


def _is_one_of_several(environment: Mapping[str, str]) -> bool:
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "")
    return tasks.isdecimal() and int(tasks) > 1 and not _in_interactive_shell(environment)


def _in_interactive_shell(environment: Mapping[str, str]) -> bool:
    """Whether this was started from the shell of `srun --pty -n4 bash`: those of the other tasks end at once. A step
    that is started there inherits SLURM_PTY_PORT, but not the terminal."""
    is_task = environment.get("SLURM_TASK_PID") == str(os.getpid())
    return "SLURM_PTY_PORT" in environment and not is_task and sys.stdin is not None and sys.stdin.isatty()


def torch_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which the tasks of a step find each other. An address that the user chose is kept."""
    # Steps of one job may run at the same time, on the same nodes.
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    variables = {
        "MASTER_ADDR": first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(PORTS[(100 * job + step) % len(PORTS)]),
    }
    tasks_of_nodes = _tasks_of_nodes(environment["SLURM_STEP_TASKS_PER_NODE"])
    return {name: environment.get(name, value) for name, value in variables.items()} | {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks_of_nodes[int(environment["SLURM_NODEID"])]),
    }


def first_host(hosts: str) -> str:
    """The first of a list of hosts as Slurm writes it, such as gpu[07-09,12],login1."""
    first = re.match(r"(\[[^]]*\]|[^,[])+", hosts)
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", first[0]) if first else hosts


def _tasks_of_nodes(counts: str) -> list[int]:
    """The number of tasks on each node, of a text such as 4(x2),3."""
    return [int(tasks) for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts) for _ in range(int(nodes or 1))]
