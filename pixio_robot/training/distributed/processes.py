"""Distributed training: the processes of one run and the collectives among them (strategy.py shards the model).

Start them with `torchrun --nproc-per-node N -m pixio_robot.cli.main ...`, or as the tasks of a Slurm job through
Hydra's submitit launcher. Only the first process prints, writes and owns the run directory; the result does not depend
on the number of processes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import gc
import importlib
import os
import socket
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pixio_robot.errors import UserError
from pixio_robot.training.device import can_use_gpu

DISTRIBUTED_VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
"""Variables that torchrun sets for each of its processes, besides TORCHELASTIC_*; submitit's export sets some."""
MAIN_PROCESS_TIMEOUT = datetime.timedelta(days=7)
"""Timeout while the main process works alone. If it dies, its connections close, which ends the wait of the others."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process's rank among all processes of the run. `all_reduce_mean`, `all_reduce_max`, `all_gather`,
    `all_gather_union` and `main_process_first` are collectives: all processes must call them."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def local_batch_size(self, batch_size: int) -> int:
        """Number of samples of a batch for this process. Raises UserError if it cannot be split evenly."""
        if batch_size % self.world_size:
            raise UserError(f"batch_size={batch_size} cannot be split evenly among {self.world_size} processes.")
        return batch_size // self.world_size

    def processes_for_rows(self, rows: int) -> Processes:
        """These processes if `rows` can be split evenly among them; otherwise a single process: then each handles all
        rows."""
        return self if rows % self.world_size == 0 else Processes()

    def all_reduce_mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, without waiting for the device."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def all_reduce_max(self, *values: float) -> list[float]:
        """Elementwise maximum over the processes of numbers on the host. Synchronises processes, not devices."""
        if self.world_size == 1:
            return list(values)
        maximum = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(maximum, dist.ReduceOp.MAX)
        return maximum.tolist()

    def all_gather(self, value: Any) -> list[Any]:
        """The value of every process, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def all_gather_union(self, items: Collection[str]) -> list[str]:
        """The union over the processes, sorted."""
        return sorted(set().union(*self.all_gather(list(items))))

    def main_process_first[T](self, work: Callable[[], T]) -> T:
        """Run `work()` on the main process, then on the others, which find on disk what the main process wrote.

        The others wait for days if necessary; any other collective times out after minutes. Raises UserError on the
        others if `work` fails on the first.
        """
        if self.world_size == 1:
            return work()
        group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=MAIN_PROCESS_TIMEOUT))
        done = torch.zeros(1)
        results: list[T] = []
        try:
            if self.is_main:
                results.append(work())
                done += 1
        finally:
            dist.broadcast(done, src=0, group=group)
        if not done:
            raise UserError("The first process failed; see its error message.")
        return results[0] if self.is_main else work()


class DelayedMax:
    """Elementwise maximum over the processes of numbers on the host, without waiting: each call returns the result of
    the previous one, the first call returns zeros. All processes must call it equally often."""

    def __init__(self, processes: Processes) -> None:
        self._single = processes.world_size == 1
        self._pending: tuple[Tensor, dist.Work] | None = None

    def all_reduce_max(self, *values: float) -> list[float]:
        if self._single:
            return list(values)
        previous = self._pending
        maximum = torch.tensor(values, dtype=torch.float64)
        self._pending = maximum, cast(dist.Work, dist.all_reduce(maximum, dist.ReduceOp.MAX, async_op=True))
        if previous is None:
            return [0.0] * len(values)
        maximum, work = previous
        work.wait()
        return maximum.tolist()


class DistinctItemCounter:
    """Counts the distinct items seen by any process so far; only new items are exchanged. All processes must call it
    equally often."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._reported: set[str] = set()
        self._all_items: set[str] = set()

    def count(self, items: Collection[str]) -> int:
        """`items`: all items that this process has seen, new or not."""
        new = set(items) - self._reported
        if self._processes.all_reduce_max(len(new))[0]:
            self._reported |= new
            self._all_items.update(*self._processes.all_gather(sorted(new)))
        return len(self._all_items)


def current_processes() -> Processes:
    """The processes inside a `join_process_group` context; a single one outside of it."""
    return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()


_meshes: list[DeviceMesh] = []


def build_device_mesh(device: torch.device) -> DeviceMesh:
    """One-dimensional device mesh of all processes, for DTensors."""
    mesh = init_device_mesh(device.type, (current_processes().world_size,))
    _meshes.append(mesh)
    return mesh


@contextlib.contextmanager
def join_process_group(device: str = "auto") -> Iterator[Processes]:
    """Join the process group of a launch by torchrun or submitit; otherwise yield a single process. Raises UserError if
    several processes would have to share a GPU."""
    if not _is_distributed_launch():
        yield Processes()
        return
    # Imported after the group exists, this module would keep the group in default arguments (torch 2.11).
    importlib.import_module("torch.distributed.fsdp")
    on_gpu = False
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(_local_gpu_index(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])))
        on_gpu = can_use_gpu()
    # Tensors on the host use gloo, so that exchanging them never waits for a device.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
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


def _is_distributed_launch() -> bool:
    """Whether this is one of several processes; if so, the environment holds the variables that torch needs."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return True
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return False
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
