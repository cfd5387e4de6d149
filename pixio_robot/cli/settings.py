"""Settings shared by several commands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class RunSettings:
    """Settings of a command that works in a run directory shared with other commands."""

    run: str = "runs/default"
    """Run directory shared by the commands; ${run} in other settings refers to it."""


@dataclass(kw_only=True)
class StageSettings(RunSettings):
    """Settings of a command whose result is replaced as a whole."""

    overwrite: bool = False
    """Replace an existing result at `out`, if pixio-robot made it, once the new one begins. false: a result of other
    settings at `out` is an error."""
