"""Explaining how two DemoSpecs differ, with hints for users who want to combine their demonstrations."""

from __future__ import annotations

from collections.abc import Sequence

from pixio_robot.types import DemoSpec

_TEXT_FIELDS = ("task", "robot", "controller", "render_quality")
_NAME_FIELDS = ("state_names", "action_names")
_RENAME_HINT = "`data rename` unifies different names for the same thing."
_HINTS = {
    "render_quality": "Images of different render_quality look different: render one of them again.",
    "control_hz": "`data subsample stride=` divides a rate by an integer.",
    "action_names": f"{_RENAME_HINT} `data actions` converts poses.",
    "size": "`data resize` changes the size of images.",
}
"""Field -> hint, where it is not to rename."""


def compare_specs(one: DemoSpec, other: DemoSpec, a: str, b: str) -> dict[str, str]:
    """{field: how it differs} for the fields that `DemoSpec.differences` checks; `a` and `b` name the two specs.

    Different image sizes are listed under `size`.
    """
    differences = {}
    for field in _TEXT_FIELDS:
        mine, theirs = getattr(one, field), getattr(other, field)
        if mine != theirs:
            differences[field] = f"{field}: {a} has {mine!r}, {b} has {theirs!r}"
    if one.control_hz != other.control_hz:
        differences["control_hz"] = f"control_hz: {a} has {one.control_hz:g}, {b} has {other.control_hz:g}"
    for field in _NAME_FIELDS:
        mine, theirs = list(getattr(one, field)), list(getattr(other, field))
        if mine != theirs:
            differences[field] = f"{field}: {_only(mine, theirs, a, b)}"
    if set(one.cameras) != set(other.cameras):
        differences["cameras"] = f"cameras: {_only(list(one.cameras), list(other.cameras), a, b)}"
    sizes = []
    for name, camera in one.cameras.items():
        theirs = other.cameras.get(name, camera)
        if (camera.height, camera.width) != (theirs.height, theirs.width):
            pixels = f"{a} has {camera.height}x{camera.width}, {b} has {theirs.height}x{theirs.width} pixels"
            sizes.append(f"camera {name!r}: {pixels}")
    return differences | ({"size": "; ".join(sizes)} if sizes else {})


def describe_differences(one: DemoSpec, other: DemoSpec, a: str, b: str) -> str:
    """The same as text with hints on how to make the specs agree; empty if nothing differs."""
    differences = compare_specs(one, other, a, b)
    hints = dict.fromkeys(_HINTS.get(field, _RENAME_HINT) for field in differences)
    if _HINTS["action_names"] in hints:
        hints.pop(_RENAME_HINT, None)
    return f"{'; '.join(differences.values())}. {' '.join(hints)}" if differences else ""


def describe_other_version(what: str, before: DemoSpec, now: DemoSpec) -> str:
    """Note for further episodes of `what`, a store, from another version of the simulator; empty if it is the same."""
    if before.simulator_version == now.simulator_version:
        return ""
    return (
        f"the episodes in {what} are of {before.simulator_version}, and further ones of {now.simulator_version}: they "
        "may look different"
    )


def _only(mine: Sequence[str], theirs: Sequence[str], a: str, b: str) -> str:
    parts = [
        f"only {who} has {', '.join(extra)}"
        for who, names, others in ((a, mine, theirs), (b, theirs, mine))
        if (extra := [name for name in names if name not in others])
    ]
    if parts:
        return ", ".join(parts)
    index = next(i for i, (left, right) in enumerate(zip(mine, theirs, strict=False)) if left != right)
    return f"different order: number {index} is {mine[index]} in {a} and {theirs[index]} in {b}"
