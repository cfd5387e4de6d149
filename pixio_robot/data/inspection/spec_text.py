"""Describing a DemoSpec to people."""

from __future__ import annotations

from pixio_robot.types import DemoSpec


def describe_simulator(spec: DemoSpec) -> str:
    """The simulator's name and version, without repeating a name that the version starts with."""
    name, version = spec.simulator, spec.simulator_version
    return version if version.replace("-", "_").startswith(name.replace("-", "_")) else f"{name} {version}"
