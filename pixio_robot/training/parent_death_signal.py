"""Run a program that ends when its parent ends, even if the parent is killed with SIGKILL, which it cannot handle.

The kernel sends the signal, on Linux only; elsewhere the program runs to completion.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>. The setting survives `exec`."""


def with_parent_death_signal(command: list[str]) -> list[str]:
    """The command line that runs `command` and sends it SIGTERM when the thread that started it ends."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


def _exec(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("The parent process ended before this program started.")
    os.execvp(command[0], command)


if __name__ == "__main__":
    _exec(int(sys.argv[1]), sys.argv[2:])
