"""How a DemoSpec is told to people."""

from __future__ import annotations

from pixio_robot.types import DemoSpec


def simulator_of(spec: DemoSpec) -> str:
    """Name and version; versions mostly begin with the name already."""
    name, version = spec.simulator, spec.simulator_version
    return version if version.replace("-", "_").startswith(name.replace("-", "_")) else f"{name} {version}"
