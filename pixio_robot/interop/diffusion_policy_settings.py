"""What a user may say about reading and writing replay buffers of diffusion_policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixio_robot.errors import UserError
from pixio_robot.types import UNKNOWN

SPEC = "pixio_robot_spec"
"""Attribute of the store: the DemoSpec, which the format has no place for."""
INFOS = "pixio_robot_infos"
"""Attribute of the store: the info of every episode."""

WHITES = (0.0, 1.0, 255.0)


@dataclass(kw_only=True)
class ImportConfig:
    """cameras, state, actions: keys of `data`, state and actions joined in that order, or single columns of them
    (`state.0`); without, all images, `state` or what starts with `robot`, and `action`. rewards: a key. white: what
    white is in float images (1 or 255; 0: 255, and an error for images that never exceed 1). success: whether the
    episodes count as solved; the format does not say. fill_missing: take chunks that are missing for the fill value.
    control_hz is needed, because the format does not know it. task, robot, controller, state_names, action_names,
    source, licence: for the DemoSpec.
    """

    control_hz: float = 0.0
    cameras: list[str] = field(default_factory=list)
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
    """codec of the images: blosc, or jpeg2k and jpegxl, which lose a little. zip: one file in place of a folder; by
    itself where out= ends in .zip. state_keys: one array for every part of the state (`eef_pos`, ...) instead of
    `state`.
    """

    codec: str = "blosc"
    zip: bool = False
    state_keys: bool = False
