"""A program that does not outlive the one that started it, however that one ends: killed by SIGKILL too, of which no
handler and no `finally` hears.

The system itself sends the signal, on Linux alone; elsewhere the program goes on to its own end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>. What it sets survives `exec`."""


def tethered(command: list[str]) -> list[str]:
    """The words that run `command` and end it by SIGTERM when the thread that started it ends."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


def _become(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("What started this had ended before it began.")
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
