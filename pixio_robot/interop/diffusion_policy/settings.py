"""Settings for importing and exporting replay buffers of diffusion_policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixio_robot.errors import UserError
from pixio_robot.types import UNKNOWN

SPEC = "pixio_robot_spec"
"""Attribute of the store: the DemoSpec, for which the format has no place."""
INFOS = "pixio_robot_infos"
"""Attribute of the store: the `info` of every episode."""

WHITES = (0.0, 1.0, 255.0)


@dataclass(kw_only=True)
class ImportConfig:
    """control_hz: required, because the format does not store it (with films, the time stamps do).
    cameras: keys of `data`; default all image arrays. Of films (videos/EPISODE/0.mp4): camera_0 and so on.
    films: read the films beside a buffer without images. height, width: the size of the images made of them.
    state: keys of `data` or single columns (`state.0`), concatenated; default `state`, else keys starting with `robot`.
    actions: keys of `data` or single columns, concatenated in this order; default `action`.
    rewards: key of the rewards; default `reward` if there is one, else all rewards are 0.
    white: value of white in float images, 1 or 255; 0: 255, but images that never exceed 1 are an error.
    success: whether to count the episodes as successful, if the file does not say.
    fill_missing: read missing chunks as the fill value instead of raising an error.
    task, robot, controller, state_names, action_names, source, licence: written to the DemoSpec.
    """

    control_hz: float = 0.0
    cameras: list[str] = field(default_factory=list)
    films: bool = True
    height: int = 0
    width: int = 0
    state: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    rewards: str = ""
    white: float = 0.0
    success: bool = True
    fill_missing: bool = False
    task: str = ""
    robot: str = UNKNOWN
    controller: str = UNKNOWN
    state_names: list[str] = field(default_factory=list)
    action_names: list[str] = field(default_factory=list)
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if self.white not in WHITES:
            raise UserError(f"white={self.white:g} must be 1 or 255.")


@dataclass(kw_only=True)
class ExportConfig:
    """codec: compression of the images; blosc (lossless), jpeg2k or jpegxl (both slightly lossy).
    zip: write a zip archive instead of a folder; implied if out= ends in .zip.
    state_keys: write one array per part of the state (`eef_pos`, ...) instead of a single `state`.
    """

    codec: str = "blosc"
    zip: bool = False
    state_keys: bool = False
