"""Describing a DemoSpec to people."""

from __future__ import annotations

from pixio_robot.types import UNKNOWN, DemoSpec


def describe_simulator(spec: DemoSpec) -> str:
    """The simulator's name and version, if known, without repeating a name that the version starts with."""
    name, version = spec.simulator, spec.simulator_version
    if version == UNKNOWN:
        return name
    return version if version.replace("-", "_").startswith(name.replace("-", "_")) else f"{name} {version}"
