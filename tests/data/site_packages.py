"""Packages as pip lays them down: modules, and metadata beside them that importlib finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from policies.plugins import ENTRY_POINT_GROUP


def lay_down(
    site: Path,
    name: str,
    points: Mapping[str, str],
    modules: Mapping[str, str],
    version: str = "1.0",
    group: str = ENTRY_POINT_GROUP,
) -> None:
    """Package `name` with entry points (name -> module:object), by default policies, and modules (name -> source)."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{group}]", *(f"{point} = {value}" for point, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
