"""Adapts the MJCF model stored in a robomimic demonstration so that it compiles and runs here.

It was written on another machine, often by an older robosuite: its meshes and textures have other paths, and up to
robosuite 1.4 parts had other names.
"""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.simulator_imports import load_mujoco, load_robosuite
from pixio_robot.errors import UserError

if TYPE_CHECKING:
    import mujoco

ROBOSUITE_PACKAGE = "robosuite"
_MOVED_FOLDERS = {"mounts": "bases"}
"""Asset folders of robosuite up to 1.4 -> those of 1.5; their contents are byte-identical."""
_VISUAL = "_vis"
_REMOVED_ATTRIBUTES = {
    "option": ("apirate", "collision", "mpr_tolerance", "mpr_iterations"),
    "compiler": ("convexhull",),
}
"""Attributes that MuJoCo wrote before version 3 and now rejects; robosuite's models leave them at their defaults."""

_REFUSED_ELEMENTS = frozenset({"include", "model", "attach", "replicate"})
"""Elements that stand for a part of another file, or for many copies; a saved model has their content instead."""

_RENAMED_PARTS = (
    (re.compile(r"^gripper(\d+)_(?!right_|left_)"), r"gripper\1_right_"),
    (re.compile(r"^mount(\d+)_"), r"fixed_mount\1_"),
)
"""Names of robosuite up to 1.4 -> those of 1.5, for robots with one arm."""
_BASE = re.compile(r"(robot\d+)_base")


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """A model that compiles here. `substitutes`: visual meshes replaced by the coarser collision meshes, because the
    installed robosuite no longer includes them (those of its arms before version 1.4)."""

    xml: str
    substitutes: tuple[str, ...]


def compile_model(model: LocalModel) -> mujoco.MjModel:
    """Compile the model. Raises UserError if MuJoCo rejects it."""
    load_mujoco()
    import mujoco

    try:
        return mujoco.MjModel.from_xml_string(model.xml)
    except ValueError as error:
        raise UserError(f"MuJoCo {mujoco.__version__} cannot compile a demonstration's model_file: {error}.") from error


def load_model(env: Any, xml: str) -> None:
    """Load a demonstration's model into a robosuite environment. Raises UserError if it does not match."""
    try:
        env.reset_from_xml_string(localise_model(upgrade_names(xml)).xml)
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(
            f"robosuite's {type(env).__name__} cannot run with a demonstration's model_file: "
            f"{type(error).__name__}: {error}."
        ) from error


def localise_model(xml: str) -> LocalModel:
    """The model with local file paths and without attributes that MuJoCo no longer supports.

    Raises UserError if a mesh or texture is not part of the installed robosuite or another package, or if the model
    includes other models.
    """
    root = _parse(xml)
    package = Path(str(load_robosuite().__file__)).parent
    substitutes = []
    for part in root.iter():
        if part.tag in _REFUSED_ELEMENTS:
            raise UserError(f"A demonstration's model_file has an element <{part.tag}>, which MuJoCo never saves.")
        # The faces of a cube have a file each: fileright, fileup, ...
        for attribute in [name for name in part.attrib if name.startswith("file")]:
            recorded_path = Path(part.attrib[attribute])
            asset = _find_asset(recorded_path, package)
            if asset.name != recorded_path.name:
                substitutes.append(recorded_path.name)
            part.set(attribute, str(asset))
        for attribute in _REMOVED_ATTRIBUTES.get(part.tag, ()):
            part.attrib.pop(attribute, None)
    return LocalModel(_text(root), tuple(substitutes))


def upgrade_names(xml: str) -> str:
    """A model of robosuite up to 1.4, with the names and sites that 1.5 expects; a model of 1.5 is unchanged."""
    root = _parse(xml)
    for part in root.iter():
        for attribute, value in part.attrib.items():
            for old, new in _RENAMED_PARTS:
                value = old.sub(new, value)
            part.set(attribute, value)
    sites = {site.get("name") for site in root.iter("site")}
    for base in list(root.iter("body")):
        match = _BASE.fullmatch(base.get("name", ""))
        # 1.5 marks an arm's base with a site; it does not collide and is invisible.
        if match and f"{match[1]}_right_center" not in sites:
            ElementTree.SubElement(base, "site", {"name": f"{match[1]}_right_center", "rgba": "0 0 0 0"})
    return _text(root)


def _parse(xml: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise UserError(f"A demonstration's model_file is not valid XML ({error}).") from error


def _text(root: ElementTree.Element) -> str:
    try:
        return ElementTree.tostring(root, encoding="unicode")
    except RecursionError:
        raise UserError("A demonstration's model_file is nested too deeply; robots have dozens of levels.") from None


def _find_asset(path: Path, package: Path) -> Path:
    """The local path of a file of robosuite's package, or of its substitute; `path` may be from another machine."""
    if ROBOSUITE_PACKAGE not in path.parts:
        if path.is_file():
            return _check_in_package(path)
        raise UserError(
            f"A demonstration's model_file needs {path}, which does not exist here and is not part of robosuite."
        )
    last = len(path.parts) - 1 - path.parts[::-1].index(ROBOSUITE_PACKAGE)
    here = package.joinpath(*path.parts[last + 1 :])
    moved = package.joinpath(*(_MOVED_FOLDERS.get(part, part) for part in path.parts[last + 1 :]))
    collides = here.with_stem(here.stem.removesuffix(_VISUAL))
    for candidate in (here, moved, collides):
        if candidate.is_file():
            return _check_in_package(candidate)
    raise UserError(f"A demonstration's model_file needs {here}, which this version of robosuite does not have.")


def _check_in_package(path: Path) -> Path:
    """Raise UserError unless the file is in a Python package, as the assets of simulators are: a stranger's model could
    show any other file of this machine as a texture."""
    if any((folder / "__init__.py").is_file() for folder in path.resolve().parents):
        return path
    raise UserError(
        f"A demonstration's model_file needs {path}, which is not in a Python package: only robosuite's own assets, or "
        "those of another simulator's package, are loaded."
    )
