"""Settings that commands share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class RunSettings:
    """Of a command that finds in a run directory what others left there."""

    run: str = "runs/default"
    """Directory that the commands share; ${run} stands for it."""


@dataclass(kw_only=True)
class StageSettings(RunSettings):
    """Of a command whose result is replaced as a whole."""

    overwrite: bool = False
    """Replace what is at `out`, if pixio-robot made it, once the new result begins; without, only an equal result may
    be there."""
