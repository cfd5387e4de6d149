"""Memory that the processes of one machine share: one of them fills it, and the others look at the same pages.

It has a name in no file system, so nothing is left behind however they end, and no mount's size limits it.
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

Fill = Callable[[Tensor], None]
"""Writes into bytes, uint8 (n,)."""

Room = Callable[[int, Fill], Tensor]
"""So many bytes, filled: uint8 (n,)."""


def own_room(size: int, fill: Fill) -> Tensor:
    """Of this process alone."""
    memory = torch.empty(size, dtype=torch.uint8)
    fill(memory)
    return memory


def shared_room(meet: Callable[[Any], list[Any]]) -> Room:
    """Room that the first process of each machine fills and the others there see; all must ask for the same.

    `meet(value)` gives everyone's value and is a collective (`training.distributed.Processes.gather`). One that is
    alone on its machine has its own, and so has every one on other systems than Linux. Raises UserError on the others
    when the first fails.
    """

    def room(size: int, fill: Fill) -> Tensor:
        me = _machine(), os.getpid()
        here = [process for process in meet(me) if process[0] == me[0]]
        sharing = len(here) > 1 and sys.platform == "linux"
        first = here.index(me) == 0
        descriptor = os.memfd_create("features") if sharing and first else None
        memory, done = None, False
        try:
            if descriptor is not None:
                os.ftruncate(descriptor, size)
                memory = _mapped(me[1], descriptor, size)
                fill(memory)
            elif not sharing:
                memory = own_room(size, fill)
            done = True
        finally:
            filled = dict(meet((me, descriptor if done else False)))
        if memory is None:
            theirs = filled[here[0]]
            if theirs is False:
                raise UserError("The first process of this machine failed; its own message says at what.")
            memory = _mapped(here[0][1], theirs, size)
        meet(None)  # from here on the mappings alone keep it
        if descriptor is not None:
            os.close(descriptor)
        return memory

    return room


def _mapped(process: int, descriptor: int, size: int) -> Tensor:
    return torch.from_file(f"/proc/{process}/fd/{descriptor}", shared=True, size=size, dtype=torch.uint8)


def _machine() -> str:
    """Containers of one machine that do not see each other's processes count as two."""
    seen = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {seen.stat().st_ino if seen.exists() else ''}"
