"""What Hydra changes in the process, put back afterwards: commands also run in scripts that use Hydra themselves."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from pixio_robot.machine import temporary_environment


@contextlib.contextmanager
def isolated_hydra() -> Iterator[None]:
    """Hydra as if the calling script had not started it."""
    outer = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    _set_hydra_state(None, None)
    try:
        yield
    finally:
        _set_hydra_state(*outer)


def _set_hydra_state(running: Any, settings: Any) -> None:
    # Looked up each time: Hydra may have put other instances in their place.
    GlobalHydra.instance().hydra, HydraConfig.instance().cfg = running, settings


@contextlib.contextmanager
def patched_command_line(arguments: list[str]) -> Iterator[None]:
    """The command line and settings that `hydra.main` reads, and the root logger that it sets up."""
    line, root = sys.argv, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.argv = arguments
    try:
        # Let exceptions reach the caller instead of Hydra's own handler.
        with temporary_environment({"HYDRA_FULL_ERROR": "1"}):
            yield
    finally:
        sys.argv = line
        root.handlers[:] = handlers
        root.setLevel(level)
