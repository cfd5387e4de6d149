"""Processes of one machine look at the same memory, which one of them filled."""

import subprocess
import sys

import pytest
import torch

from pixio_robot.data.shared_memory import allocate_private, make_shared_allocator

PROGRAM = """
import os, sys, torch
import torch.distributed as dist
from pathlib import Path
from pixio_robot.data.shared_memory import make_shared_allocator
from pixio_robot.errors import UserError

rank, where = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", f"file://{where}/meet", world_size=2, rank=rank)

def meet(value):
    values = [None, None]
    dist.all_gather_object(values, value)
    return values

def fill(memory):
    print(f"filled by {rank}")
    memory.copy_(torch.arange(len(memory)))

def fail(memory):
    raise UserError("no room")

memory = make_shared_allocator(meet)(200, fill)
meet(None)
if rank == 1:
    memory[7] = 99
meet(None)
print(memory[:9].tolist(), sum(memory.tolist()) - 99 + 7 == sum(range(200)))
print(sum("memfd" in os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()))
try:
    make_shared_allocator(meet)(200, fail)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such memory: each process has its own")
def test_one_fills_what_all_see_and_its_failure_is_told(tmp_path):
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        first, second = (process.communicate(timeout=250)[0].splitlines() for process in both)
    finally:
        for process in both:
            process.kill()
    seen = ["[0, 1, 2, 3, 4, 5, 6, 99, 8] True", "0"]
    assert first == ["filled by 0", *seen, "no room"]
    assert second == [*seen, "The first process on this machine failed; see its own error message."]


def test_a_process_alone_has_its_own_memory():
    for room in (allocate_private, make_shared_allocator(lambda value: [value])):
        assert room(3, lambda memory: memory.fill_(5)).tolist() == [5, 5, 5]
    assert torch.equal(allocate_private(0, lambda memory: None), torch.empty(0, dtype=torch.uint8))
