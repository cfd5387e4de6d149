"""The MJCF text that a robomimic demonstration carries, made to compile and run here.

It was written on another machine, often by an older robosuite: its meshes and textures lie elsewhere, and up to
robosuite 1.4 parts had other names.
"""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING

from envs.simulator import load_mujoco, load_robosuite
from pixio_robot.errors import UserError

if TYPE_CHECKING:
    import mujoco

PACKAGE = "robosuite"
_MOVED = {"mounts": "bases"}
"""Folders of robosuite's assets up to 1.4 -> those of 1.5; what is in them is the same, byte for byte."""
_GONE = {"option": ("apirate", "collision", "mpr_tolerance", "mpr_iterations"), "compiler": ("coordinate",)}
"""Attributes that MuJoCo wrote once and refuses now; none of robosuite's models set them to anything but a default."""

_RENAMED = (
    (re.compile(r"^gripper(\d+)_(?!right_|left_)"), r"gripper\1_right_"),
    (re.compile(r"^mount(\d+)_"), r"fixed_mount\1_"),
)
"""Names of robosuite up to 1.4 -> those of 1.5, for robots with one arm."""
_BASE = re.compile(r"(robot\d+)_base")


def compiled(xml: str) -> mujoco.MjModel:
    """Raises UserError where a mesh or texture is not part of the installed robosuite, or MuJoCo refuses the model."""
    load_mujoco()
    import mujoco

    try:
        return mujoco.MjModel.from_xml_string(mended(xml))
    except ValueError as error:
        raise UserError(f"MuJoCo {mujoco.__version__} cannot compile a demonstration's model_file: {error}.") from error


def mended(xml: str) -> str:
    """The model with its files found here and without what MuJoCo has dropped since. Raises UserError."""
    root = _parsed(xml)
    package = Path(str(load_robosuite().__file__)).parent
    for part in root.iter():
        if "file" in part.attrib:
            part.set("file", str(_found(Path(part.attrib["file"]), package)))
        for attribute in _GONE.get(part.tag, ()):
            part.attrib.pop(attribute, None)
    return ElementTree.tostring(root, encoding="unicode")


def modernised(xml: str) -> str:
    """The model of a robosuite up to 1.4 with the names and sites that 1.5 looks for; that of 1.5 as it is."""
    root = _parsed(xml)
    for part in root.iter():
        for attribute, value in part.attrib.items():
            for old, new in _RENAMED:
                value = old.sub(new, value)
            part.set(attribute, value)
    sites = {site.get("name") for site in root.iter("site")}
    for base in list(root.iter("body")):
        match = _BASE.fullmatch(base.get("name", ""))
        # 1.5 keeps where an arm stands in a site; nothing collides with a site or sees this one.
        if match and f"{match[1]}_right_center" not in sites:
            ElementTree.SubElement(base, "site", {"name": f"{match[1]}_right_center", "rgba": "0 0 0 0"})
    return ElementTree.tostring(root, encoding="unicode")


def _parsed(xml: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise UserError(f"A demonstration's model_file is no XML ({error}).") from error


def _found(path: Path, package: Path) -> Path:
    """A file of robosuite's package, wherever that lay when the model was written."""
    if PACKAGE not in path.parts:
        if path.is_file():
            return path
        raise UserError(f"A demonstration's model_file needs {path}, which is not here and not part of robosuite.")
    last = len(path.parts) - 1 - path.parts[::-1].index(PACKAGE)
    below = path.parts[last + 1 :]
    here = package.joinpath(*below)
    if not here.is_file():
        here = package.joinpath(*(_MOVED.get(part, part) for part in below))
    if not here.is_file():
        raise UserError(f"A demonstration's model_file needs {here}, which this version of robosuite does not have.")
    return here
