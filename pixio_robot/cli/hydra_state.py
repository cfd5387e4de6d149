"""What Hydra changes in the process, put back afterwards: commands also run in scripts that use Hydra themselves."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig


@contextlib.contextmanager
def own_hydra() -> Iterator[None]:
    """Hydra as if the calling script had not started it."""
    outer = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    _set(None, None)
    try:
        yield
    finally:
        _set(*outer)


def _set(running: Any, settings: Any) -> None:
    # Looked up each time: Hydra may have put other instances in their place.
    GlobalHydra.instance().hydra, HydraConfig.instance().cfg = running, settings


@contextlib.contextmanager
def called_as(arguments: list[str]) -> Iterator[None]:
    """The command line and settings that `hydra.main` reads, and the root logger that it sets up."""
    line, full_error, root = sys.argv, os.environ.get("HYDRA_FULL_ERROR"), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.argv = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach the caller instead of Hydra's own handler
    try:
        yield
    finally:
        sys.argv = line
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
        root.handlers[:] = handlers
        root.setLevel(level)
