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

RANKS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
"""Variables that torchrun sets for each of its processes, besides TORCHELASTIC_*; submitit's export sets some."""
PATIENCE = datetime.timedelta(days=7)
"""Timeout while the first process works alone. If it dies, its connections close, which ends the others' wait."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process's rank among all processes of the run. `mean`, `largest`, `gather`, `united` and `after_first` are
    collectives: all processes must call them."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Number of samples of a batch that this process gets. Raises UserError if it cannot be split evenly."""
        if batch_size % self.count:
            raise UserError(f"batch_size={batch_size} cannot be split evenly among {self.count} processes.")
        return batch_size // self.count

    def sharing(self, rows: int) -> Processes:
        """These processes if `rows` can be split evenly among them; otherwise a single one: each handles all rows."""
        return self if rows % self.count == 0 else Processes()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, without waiting for the device."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def largest(self, *values: float) -> list[float]:
        """Elementwise maximum over the processes of numbers on the host. Synchronises processes, not devices."""
        if self.count == 1:
            return list(values)
        most = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return most.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in order of rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def united(self, things: Collection[str]) -> list[str]:
        """The union over the processes, sorted."""
        return sorted(set().union(*self.gather(list(things))))

    def after_first[T](self, work: Callable[[], T]) -> T:
        """Run `work()` on the first process, then on the others, which find on disk what the first wrote.

        The others wait for days if necessary; any other collective times out after minutes. Raises UserError on the
        others if `work` fails on the first.
        """
        if self.count == 1:
            return work()
        group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE))
        done = torch.zeros(1)
        results: list[T] = []
        try:
            if self.first:
                results.append(work())
                done += 1
        finally:
            dist.broadcast(done, src=0, group=group)
        if not done:
            raise UserError("The first process failed; see its error message.")
        return results[0] if self.first else work()


class Vote:
    """Elementwise maximum over the processes of numbers on the host, without waiting: each call returns the result of
    the previous one, the first call returns zeros. All processes must call it equally often."""

    def __init__(self, processes: Processes) -> None:
        self._alone = processes.count == 1
        self._on_its_way: tuple[Tensor, dist.Work] | None = None

    def largest(self, *values: float) -> list[float]:
        if self._alone:
            return list(values)
        earlier = self._on_its_way
        most = torch.tensor(values, dtype=torch.float64)
        self._on_its_way = most, cast(dist.Work, dist.all_reduce(most, dist.ReduceOp.MAX, async_op=True))
        if earlier is None:
            return [0.0] * len(values)
        most, work = earlier
        work.wait()
        return most.tolist()


class Gathered:
    """Counts the distinct items seen by any process so far; only new items are exchanged. All processes must call it
    equally often."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._told: set[str] = set()
        self._everyones: set[str] = set()

    def count(self, mine: Collection[str]) -> int:
        """`mine`: all items that this process has seen, new or not."""
        new = set(mine) - self._told
        if self._processes.largest(len(new))[0]:
            self._told |= new
            self._everyones.update(*self._processes.gather(sorted(new)))
        return len(self._everyones)


def current() -> Processes:
    """The processes inside a `joined` context; a single one outside of it."""
    return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()


_meshes: list[DeviceMesh] = []


def mesh_of_all(device: torch.device) -> DeviceMesh:
    """One-dimensional device mesh of all processes, for DTensors."""
    mesh = init_device_mesh(device.type, (current().count,))
    _meshes.append(mesh)
    return mesh


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Join the process group of a launch by torchrun or submitit; otherwise yield a single process. Raises UserError if
    several processes would have to share a GPU."""
    if not _started_along_with_others():
        yield Processes()
        return
    # Imported after the group exists, this module would keep the group in default arguments (torch 2.11).
    importlib.import_module("torch.distributed.fsdp")
    on_gpu = False
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(_own_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])))
        on_gpu = can_use_gpu()
    # Numbers on the host use gloo, so that exchanging them never waits for a device.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        if on_gpu:
            _refuse_to_share_gpus(current())
        yield current()
    except BaseException as error:
        _forget_what_it_stopped(error)
        raise
    finally:
        part()


def _own_gpu(rank: int, processes: int) -> int:
    """Index of the GPU for one of several processes of this machine. Raises UserError if there are visibly too few."""
    gpus = torch.cuda.device_count()
    if 1 < gpus < processes:
        raise _too_few_gpus(processes, gpus)
    return rank % gpus  # Slurm may have made only its own GPU visible to each process


def _refuse_to_share_gpus(processes: Processes) -> None:
    """Raise UserError, in every process, if two of them have the same GPU: NCCL accepts each only once, and would
    report it only at the first exchange. All processes must call it."""
    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    taken = collections.defaultdict[str, list[str]](list)
    for machine, gpu in processes.gather((socket.gethostname(), uuid)):
        taken[machine].append(gpu)
    for gpus in taken.values():
        if len(set(gpus)) < len(gpus):
            raise _too_few_gpus(len(gpus), len(set(gpus)))


def _too_few_gpus(processes: int, gpus: int) -> UserError:
    count = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    return UserError(
        f"{processes} processes on one machine, but {count}: start one per GPU (torchrun --nproc-per-node {gpus}, on "
        f"Slurm hydra.launcher.tasks_per_node={gpus}), or use device=cpu."
    )


def _forget_what_it_stopped(error: BaseException) -> None:
    """Clear the local variables in an error's traceback: until it is reported, they would keep the models, and with
    them the process group, alive."""
    todo, seen = [error], set[int]()
    while todo:
        found = todo.pop()
        if id(found) not in seen:
            seen.add(id(found))
            traceback.clear_frames(found.__traceback__)
            todo += [earlier for earlier in (found.__cause__, found.__context__) if earlier is not None]


def part() -> None:
    """Destroy the process group and gloo's threads, which live as long as anything refers to the group.

    A thread that still holds a tensor when Python shuts down aborts the process, because releasing it needs the
    interpreter (pytorch #179291). DTensor's caches keep every mesh, and a mesh its groups (torch 2.11).
    """
    dist.destroy_process_group()
    while _meshes:
        _meshes.pop()._pg_registry.clear()  # pyright: ignore[reportPrivateUsage]
    gc.collect()  # models refer to their group, and contain reference cycles


def _started_along_with_others() -> bool:
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


def environment_of_one(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without the distributed variables, for a separate program that one of several processes starts."""
    ours = {
        name: value for name, value in environment.items() if name not in RANKS and not name.startswith("TORCHELASTIC_")
    }
    # torchrun sets one thread per process if the variable is unset; any value other than 1 comes from the user.
    if "TORCHELASTIC_RUN_ID" in environment and ours.get("OMP_NUM_THREADS") == "1":
        del ours["OMP_NUM_THREADS"]
    return ours


def together(stage: Callable[[Callable[[], bool]], int], work: Callable[[], bool]) -> int:
    """Run `stage(work)` on the first process; the others run `work` if and when the first does. Returns an exit code.

    Locks, stamps and messages thus come from one process only.
    """
    processes = current()
    if not processes.first:
        begins = processes.largest(0.0)[0] > 0
        return 0 if not begins or work() else 130
    begun = False

    def announced() -> bool:
        nonlocal begun
        begun = True
        processes.largest(1.0)
        return work()

    try:
        return stage(announced)
    finally:
        if not begun:
            processes.largest(0.0)
