"""Several processes that train one model: who they are, and what they agree on (spreading.py: how they share it).

Start them with `torchrun --nproc-per-node N -m pixio_robot.cli.main ...`, or as the tasks of a Slurm job through
Hydra's submitit launcher. The first process speaks, writes and keeps the run directory; what decides the result depends
on the number of processes nowhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import importlib
import os
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pixio_robot.errors import UserError

RANKS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
"""What torchrun tells each of its processes, beside TORCHELASTIC_*; submitit's export has some of them."""
PATIENCE = datetime.timedelta(days=7)
"""For work that only the first process does. Should it die, its connections close, and so the others' wait ends."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among all of the run. Every method but `share` is a collective: all must call it."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """This process's part of a batch. Raises UserError when it cannot be split evenly."""
        if batch_size % self.count:
            raise UserError(f"batch_size={batch_size} cannot be split evenly among {self.count} processes.")
        return batch_size // self.count

    def sharing(self, rows: int) -> Processes:
        """These processes, if they can share so many rows evenly; else one alone, as which each looks at all."""
        return self if rows % self.count == 0 else Processes()

    def rows(self, batch_size: int) -> slice:
        """Which samples of a whole batch are this process's."""
        part = self.share(batch_size)
        return slice(self.rank * part, (self.rank + 1) * part)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, without waiting for the device."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def largest(self, *values: float) -> list[float]:
        """The largest over the processes, of numbers on the host: processes meet, their devices work on."""
        if self.count == 1:
            return list(values)
        most = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return most.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Everyone's value, in order of rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def united(self, things: Collection[str]) -> list[str]:
        """Whatever any of them has, once and sorted."""
        return sorted(set().union(*self.gather(list(things))))

    def after_first[T](self, work: Callable[[], T]) -> T:
        """`work()`, on the first process before the others, which find on the disk what it left there.

        They wait for hours if need be, where any other collective gives up after minutes. Raises UserError on the
        others when `work` fails on the first.
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
            raise UserError("The first process failed; its own message says at what.")
        return results[0] if self.first else work()


class Vote:
    """The largest over the processes of numbers on the host, without meeting: each hears what all said when it was
    asked the last time, and at first 0. All must ask equally often."""

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
    """How many different things any of the processes has met so far: they exchange those alone that are new. All must
    ask equally often."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._told: set[str] = set()
        self._everyones: set[str] = set()

    def count(self, mine: Collection[str]) -> int:
        """`mine`: all that this process has met, new or not."""
        new = set(mine) - self._told
        if self._processes.largest(len(new))[0]:
            self._told |= new
            self._everyones.update(*self._processes.gather(sorted(new)))
        return len(self._everyones)


def current() -> Processes:
    """The processes that `joined` brought together; one, outside of it."""
    return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()


_meshes: list[DeviceMesh] = []


def mesh_of_all(device: torch.device) -> DeviceMesh:
    """The processes in one row, for DTensors."""
    mesh = init_device_mesh(device.type, (current().count,))
    _meshes.append(mesh)
    return mesh


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Join the other processes that torchrun or submitit started; without them there are none. Raises UserError where
    they would have to share GPUs."""
    if not _started_along_with_others():
        yield Processes()
        return
    # What of torch is imported later takes the group for the default of its arguments, and keeps it (torch 2.11).
    importlib.import_module("torch.distributed.fsdp")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(_own_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])))
    # Numbers on the host travel by gloo, so that agreeing on something never waits for a device.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield current()
    except BaseException as error:
        _forget_what_it_stopped(error)
        raise
    finally:
        part()


def _own_gpu(rank: int, processes: int) -> int:
    """That of one of several processes of this machine. Raises UserError where there are too few: NCCL takes no GPU
    twice, and would say so only when they exchange something."""
    gpus = torch.cuda.device_count()
    if 1 < gpus < processes:
        raise UserError(
            f"{processes} processes on this machine, but {gpus} GPUs: start one a GPU (torchrun --nproc-per-node "
            f"{gpus}, on Slurm hydra.launcher.tasks_per_node={gpus}), or take device=cpu."
        )
    return rank % gpus  # Slurm may have shown each process its own GPU only


def _forget_what_it_stopped(error: BaseException) -> None:
    """Clear the variables of the functions that an error has left: while it is told, it would keep the models that they
    trained, and so the group."""
    todo, seen = [error], set[int]()
    while todo:
        found = todo.pop()
        if id(found) not in seen:
            seen.add(id(found))
            traceback.clear_frames(found.__traceback__)
            todo += [earlier for earlier in (found.__cause__, found.__context__) if earlier is not None]


def part() -> None:
    """End the group and gloo's threads, which live as long as anything refers to it.

    A thread that still held a tensor when Python shut down aborted the process: letting go takes Python (pytorch
    #179291). DTensor's caches keep every mesh, and a mesh its groups (torch 2.11).
    """
    dist.destroy_process_group()
    while _meshes:
        _meshes.pop()._pg_registry.clear()  # pyright: ignore[reportPrivateUsage]
    gc.collect()  # models, which know their group, consist of cycles


def _started_along_with_others() -> bool:
    """Whether this is one of several processes; what torch wants to know of them is in the environment then."""
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
    """`environment` for a program that one of several processes starts and that is none of them."""
    ours = {
        name: value for name, value in environment.items() if name not in RANKS and not name.startswith("TORCHELASTIC_")
    }
    # Where nobody set it, torchrun gives each of its processes one thread; anything but 1 is the user's.
    if "TORCHELASTIC_RUN_ID" in environment and ours.get("OMP_NUM_THREADS") == "1":
        del ours["OMP_NUM_THREADS"]
    return ours


def together(stage: Callable[[Callable[[], bool]], int], work: Callable[[], bool]) -> int:
    """`stage(work)` on the first process; the others do `work` if and when the first does. Returns an exit code.

    So locks, stamps and messages stay with one process.
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
