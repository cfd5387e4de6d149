"""What an environment is asked to be, and what each task brings with it."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from pixio_robot.errors import UserError, unknown_name


class RenderQuality(enum.Enum):
    """FULL is MuJoCo's own look with shadows and antialiasing; FAST drops both and thins the meshes."""

    FULL = "full"
    FAST = "fast"


class Variation(enum.Enum):
    """What changes from episode to episode besides where things lie.

    CLUTTERED draws table texture, light, tints and harmless distractor objects from the episode's seed.
    """

    NONE = "none"
    CLUTTERED = "cluttered"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A robosuite task: its objects (body prefix -> robosuite's nominal half size in m) and its horizon in steps."""

    objects: dict[str, float]
    horizon: int


TASKS = {
    "Lift": Task(objects={"cube": 0.021}, horizon=80),
    "Stack": Task(objects={"cubeA": 0.02, "cubeB": 0.025}, horizon=160),
}

ROBOTS = ("Panda",)

CAMERAS = {"front": "workspace", "hand": "robot0_eye_in_hand"}
"""Our camera names -> the cameras of the MuJoCo model."""

CONTROLLERS = ("OSC_POSE",)

TABLE_TOP = 0.8
"""Height of the table's surface in robosuite's world, metres."""

WORKSPACE_CENTRE = (0.0, 0.0)
"""Middle of the square in which objects start, metres."""


@dataclasses.dataclass(kw_only=True)
class EnvConfig:
    """One robosuite task.

    cameras: any of `front` (looks at the workspace from beyond the table) and `hand` (moves with the gripper).
    image_size: pixels, square images. start_spread: half side in metres of the square on the table, around its
    centre, where the objects' centres start. object_scale: times robosuite's object size (a 4.2 cm cube);
    the gripper opens 8 cm. horizon: control steps until an episode fails; None takes the task's own, about
    twice what the expert needs. control_hz: control steps a simulated second.
    """

    task: str = "Lift"
    robot: str = "Panda"
    controller: str = "OSC_POSE"
    cameras: list[str] = dataclasses.field(default_factory=lambda: ["front", "hand"])
    image_size: int = 96
    render_quality: RenderQuality = RenderQuality.FAST
    start_spread: float = 0.15
    object_scale: float = 1.2
    variation: Variation = Variation.NONE
    horizon: int | None = None
    control_hz: int = 20

    def __post_init__(self) -> None:
        for kind, name, valid in (
            ("task", self.task, TASKS),
            ("robot", self.robot, ROBOTS),
            ("controller", self.controller, CONTROLLERS),
        ):
            if name not in valid:
                raise unknown_name(kind, name, valid)
        for camera in self.cameras:
            if camera not in CAMERAS:
                raise unknown_name("camera", camera, CAMERAS)
        if len(set(self.cameras)) != len(self.cameras):
            raise UserError(f"cameras names one camera twice: {list(self.cameras)}.")
        if not 16 <= self.image_size <= 1024:
            raise UserError(f"image_size must be from 16 to 1024 pixels, not {self.image_size}.")
        if not 0 <= self.start_spread <= 0.2:
            raise UserError(f"start_spread must be from 0 to 0.2 m (the arm's reach), not {self.start_spread}.")
        if not 0.5 <= self.object_scale <= 1.35:
            raise UserError(f"object_scale must be from 0.5 to 1.35 (the gripper opens 8 cm), not {self.object_scale}.")
        if self.horizon is not None and self.horizon < 1:
            raise UserError(f"horizon must be at least one step, not {self.horizon}.")
        if self.control_hz < 1 or 500 % self.control_hz:
            raise UserError(f"control_hz must divide the 500 Hz of the simulation, not {self.control_hz}.")

    @property
    def steps(self) -> int:
        """The horizon in force."""
        return TASKS[self.task].horizon if self.horizon is None else self.horizon

    def half_sizes(self) -> dict[str, float]:
        """Object -> half side of the cube in metres, after scaling."""
        return {name: size * self.object_scale for name, size in TASKS[self.task].objects.items()}


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON types."""
    fields = dataclasses.asdict(config)
    return {name: value.value if isinstance(value, enum.Enum) else value for name, value in fields.items()}
