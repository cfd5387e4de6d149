"""The processes of one run and the collectives among them (launch.py joins them, strategy.py shards the model).

Only the first process prints, writes and owns the run directory; the result does not depend on the number of processes.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Collection
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from pixio_robot.errors import UserError

MAIN_PROCESS_TIMEOUT = datetime.timedelta(days=7)
"""Timeout while the main process works alone. If it dies, its connections close, which ends the wait of the others."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process's rank among all processes of the run. `all_reduce_mean`, `all_reduce_max`, `all_gather`
    and `main_process_first` are collectives: all processes must call them."""

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
    """The processes inside a `launch.join_process_group` context; a single one outside of it."""
    return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Processes()
