"""The process group of a run: joining it at the start and destroying it at the end.

Start several processes with `torchrun --nproc-per-node N -m pixio_robot.cli.main ...`, or as the tasks of a Slurm job,
with `srun` or through Hydra's submitit launcher, or with any launcher that sets the variables of torch's `env://`.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import importlib
import os
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pixio_robot.errors import UserError
from pixio_robot.training.device import can_use_gpu
from pixio_robot.training.distributed.other_launchers import launcher_variables
from pixio_robot.training.distributed.processes import Processes, current_processes
from pixio_robot.training.distributed.slurm_step import explain_lone_task, has_several_tasks, torch_variables
from pixio_robot.training.distributed.waiting import wait_for_others

DISTRIBUTED_VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
"""Variables that torchrun sets for each of its processes, besides TORCHELASTIC_*; submitit's export sets some."""

_meshes: list[DeviceMesh] = []


def build_device_mesh(device: torch.device) -> DeviceMesh:
    """One-dimensional device mesh of all processes, for DTensors."""
    mesh = init_device_mesh(device.type, (current_processes().world_size,))
    _meshes.append(mesh)
    return mesh


@contextlib.contextmanager
def join_process_group(device: str = "auto") -> Iterator[Processes]:
    """Join the process group of a launch; otherwise yield a single process. Raises UserError if they do not find
    each other, or would have to share a GPU."""
    if not _export_launch():
        yield Processes()
        return
    # Imported after the group exists, this module would keep the group in default arguments (torch 2.11).
    importlib.import_module("torch.distributed.fsdp")
    on_gpu = False
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(_local_gpu_index(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])))
        on_gpu = can_use_gpu()
    # Tensors on the host use gloo, so that exchanging them never waits for a device.
    try:
        with wait_for_others():
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    except dist.DistError as error:
        raise UserError(f"The processes of this run did not find each other: {str(error).splitlines()[0]}") from error
    try:
        if on_gpu:
            _check_distinct_gpus(current_processes())
        yield current_processes()
    except BaseException as error:
        _clear_traceback_frames(error)
        raise
    finally:
        destroy_process_group()


def _local_gpu_index(rank: int, processes: int) -> int:
    """Index of the GPU for one of several processes of this machine. Raises UserError if there are visibly too few."""
    gpus = torch.cuda.device_count()
    if 1 < gpus < processes:
        raise _too_few_gpus_error(processes, gpus)
    return rank % gpus  # Slurm may have made only its own GPU visible to each process


def _check_distinct_gpus(processes: Processes) -> None:
    """Raise UserError, in every process, if two of them have the same GPU: NCCL accepts each only once, and would
    report it only at the first exchange. All processes must call it."""
    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    gpus_by_host = collections.defaultdict[str, list[str]](list)
    for host, gpu in processes.all_gather((socket.gethostname(), uuid)):
        gpus_by_host[host].append(gpu)
    for gpus in gpus_by_host.values():
        if len(set(gpus)) < len(gpus):
            raise _too_few_gpus_error(len(gpus), len(set(gpus)))


def _too_few_gpus_error(processes: int, gpus: int) -> UserError:
    count = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    return UserError(
        f"{processes} processes on one machine, but {count}: start one per GPU (torchrun --nproc-per-node {gpus}, on "
        f"Slurm hydra.launcher.tasks_per_node={gpus}), or use device=cpu."
    )


def _clear_traceback_frames(error: BaseException) -> None:
    """Clear the local variables in an error's traceback: until it is reported, they would keep the models, and with
    them the process group, alive."""
    pending, seen = [error], set[int]()
    while pending:
        exception = pending.pop()
        if id(exception) not in seen:
            seen.add(id(exception))
            traceback.clear_frames(exception.__traceback__)
            pending += [other for other in (exception.__cause__, exception.__context__) if other is not None]


def destroy_process_group() -> None:
    """Destroy the process group and gloo's threads, which live as long as anything refers to the group.

    A thread that still holds a tensor when Python shuts down aborts the process, because releasing it needs the
    interpreter (pytorch #179291). DTensor's caches keep every mesh, and a mesh its groups (torch 2.11).
    """
    dist.destroy_process_group()
    while _meshes:
        _meshes.pop()._pg_registry.clear()  # pyright: ignore[reportPrivateUsage]
    gc.collect()  # models refer to their group, and contain reference cycles


def _export_launch() -> bool:
    """Set the environment variables that torch needs, if this is one of several processes; whether it is."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return True
    if "SUBMITIT_EXECUTOR" not in os.environ:
        is_task = has_several_tasks(os.environ)
        variables = torch_variables(os.environ) if is_task else launcher_variables(os.environ)
        if not variables and (note := explain_lone_task(os.environ)):
            print(f"pixio-robot: {note}", file=sys.stderr)
        os.environ.update(variables)
        return bool(variables)
    import submitit

    if submitit.JobEnvironment().num_tasks == 1:
        return False
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    return True


def single_process_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without the distributed variables, for a separate program that one of several processes starts."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in DISTRIBUTED_VARIABLES and not name.startswith("TORCHELASTIC_")
    }
    # torchrun sets one thread per process if the variable is unset; any value other than 1 comes from the user.
    if "TORCHELASTIC_RUN_ID" in environment and kept.get("OMP_NUM_THREADS") == "1":
        del kept["OMP_NUM_THREADS"]
    return kept
