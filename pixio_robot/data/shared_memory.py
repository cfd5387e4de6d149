"""Memory shared by the processes of one machine: one process fills it, and the others map the same pages.

It is anonymous (memfd), so nothing is left behind however the processes end, and no mount limits its size.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.errors import UserError

FillBuffer = Callable[[Tensor], None]
"""Fills a buffer, uint8 (n,)."""

Allocator = Callable[[int, FillBuffer], Tensor]
"""(size, fill) -> a filled buffer of `size` bytes, uint8 (size,)."""


def allocate_private(size: int, fill: FillBuffer) -> Tensor:
    """A buffer private to this process."""
    memory = torch.empty(size, dtype=torch.uint8)
    fill(memory)
    return memory


def make_shared_allocator(meet: Callable[[Any], list[Any]]) -> Allocator:
    """An `Allocator` whose buffers the first process of each machine fills and the others on that machine map. It is a
    collective: all processes must call it with the same size.

    `meet(value)` is a collective that returns every process's value (`Processes.all_gather`). A
    process that is alone on its machine gets private memory; on systems other than Linux, every process does. If the
    first process fails, the others raise UserError.
    """

    def allocate(size: int, fill: FillBuffer) -> Tensor:
        me = _machine_id(), os.getpid()
        here = [process for process in meet(me) if process[0] == me[0]]
        sharing = len(here) > 1 and sys.platform == "linux"
        first = here.index(me) == 0
        descriptor = os.memfd_create("features") if sharing and first else None
        memory, done = None, False
        try:
            if descriptor is not None:
                os.ftruncate(descriptor, size)
                memory = _map_memory(me[1], descriptor, size)
                fill(memory)
            elif not sharing:
                memory = allocate_private(size, fill)
            done = True
        finally:
            filled = dict(meet((me, descriptor if done else False)))
        if memory is None:
            theirs = filled[here[0]]
            if theirs is False:
                raise UserError("The first process on this machine failed; see its own error message.")
            memory = _map_memory(here[0][1], theirs, size)
        meet(None)  # from here on, only the mappings keep the memory alive
        if descriptor is not None:
            os.close(descriptor)
        return memory

    return allocate


def _map_memory(process: int, descriptor: int, size: int) -> Tensor:
    return torch.from_file(f"/proc/{process}/fd/{descriptor}", shared=True, size=size, dtype=torch.uint8)


def _machine_id() -> str:
    """An identifier of the machine; containers that do not see each other's processes count as separate machines."""
    seen = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {seen.stat().st_ino if seen.exists() else ''}"
