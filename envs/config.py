"""Configuration of an environment."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from envs.robomimic.task import check_same_env_args, load_recorded_env, with_absolute_path
from envs.tasks import THIRD_PARTY, Simulator, get_task, registered_horizon
from pixio_robot.choice import Choice
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.fields import check_fields, number, one_of


class RenderQuality(Choice):
    """full: MuJoCo's own look, with shadows and antialiasing. fast: without both, and with simplified meshes."""

    FULL = "full"
    FAST = "fast"


class Variation(Choice):
    """What is randomised in each episode besides the initial positions of objects.

    `textures` randomises the surface's texture and the colours, `lighting` the light's position, colour and intensity,
    `camera` the pose of the fixed camera; `distractors` adds objects that cannot be touched. `cluttered` is all but
    `camera`, `all` is everything. Each uses its own random stream of the episode's seed, so adding one does not change
    the others.
    """

    NONE = "none"
    TEXTURES = "textures"
    LIGHTING = "lighting"
    CAMERA = "camera"
    DISTRACTORS = "distractors"
    CLUTTERED = "cluttered"
    ALL = "all"

    def covers(self, part: Variation) -> bool:
        """Whether this level includes the given single variation."""
        if self is Variation.ALL:
            return True
        return self is part or (self is Variation.CLUTTERED and part is not Variation.CAMERA)


class Engine(Choice):
    """Engine for physics and rendering.

    mujoco: MuJoCo on a CPU core, rendered with OpenGL. warp: MuJoCo Warp, all worlds at once on a GPU (or, slowly, on
    the CPU), rendered by its ray tracer; for the tabletop tasks, in `evaluate` and `collect`. Needs the extra `warp`.
    """

    MUJOCO = "mujoco"
    WARP = "warp"


WARP_VARIATIONS = (Variation.NONE, Variation.CAMERA)
"""The ray tracer supports only one kind of light, no textures on boxes, and the same shapes in all worlds."""


class Controller(Choice):
    """The action space of a robosuite task.

    osc_pose: change of the gripper's pose. osc_pose_absolute: its pose in the world frame (axis-angle).
    joint_position: change of the joint angles. In each, the last dimension is the gripper.
    """

    OSC_POSE = "osc_pose"
    OSC_POSE_ABSOLUTE = "osc_pose_absolute"
    JOINT_POSITION = "joint_position"


ROBOTS = ("Panda", "Sawyer", "UR5e")

CAMERAS = {
    "front": "workspace",
    "hand": "robot0_eye_in_hand",
    **{name: name for name in ("agentview", "frontview", "birdview")},
}
"""Our camera names -> camera names in the MuJoCo model; the last three are robosuite's own."""

SIMULATOR_CAMERAS = {
    Simulator.ROBOSUITE: tuple(CAMERAS),
    Simulator.TABLETOP: ("front", "hand"),
    Simulator.METAWORLD: ("front",),
}

SIMULATORS_WITH_VARIATIONS = (Simulator.ROBOSUITE, Simulator.TABLETOP)
"""The simulators whose models support variations."""

PHYSICS_HZ = {Simulator.ROBOSUITE: 500, Simulator.TABLETOP: 200, Simulator.METAWORLD: 400}

_RESERVED_MAKE_ARGUMENTS = {"id", "max_episode_steps", "disable_env_checker"}
"""Arguments of gymnasium.make that are set here and not allowed in `make`."""

TABLE_TOP = 0.8
"""Height of the table's surface in robosuite's world frame, metres."""

DEFAULT_SPREAD_M = 0.15
"""The start_spread at which objects start wherever robosuite's own placement samplers put them."""

MIN_PICK_PLACE_SPREAD_M = 0.1
"""From this start_spread on, robosuite's sampler finds room for all four groceries of PickPlace: no failure in 1000
seeds; 1 of 1000 at 0.09, 7 of 100 at 0.08."""

MIN_STACK_SCALE = 0.6
"""robosuite counts cubeA as lifted if it is 4 cm above the table, which smaller cubes are not even when stacked."""

WORKSPACE_CENTRE = (0.0, 0.0)
"""Centre of the square in which objects start, metres."""


@dataclasses.dataclass(kw_only=True)
class EnvConfig:
    """One task of one simulator; the task's name determines the simulator."""

    task: str = "Lift"
    """A robosuite task (Lift, Door ...), a tabletop task (TabletopReach ...) or a MetaWorld task (hammer-v3 ...);
    robomimic:STORE, the environment of imported robomimic demonstrations; or a third-party environment, gymnasium:ID,
    dm_control:DOMAIN/TASK or libero:SUITE/NUMBER (docs/environments.md). An unknown name lists all tasks."""
    robot: str = one_of("Panda", ROBOTS)
    """robosuite: robot arm."""
    controller: Controller = Controller.OSC_POSE
    cameras: list[str] = dataclasses.field(default_factory=lambda: ["front", "hand"])
    """`front` is fixed and looks at the workspace, `hand` moves with the gripper (not in MetaWorld); `agentview`,
    `frontview` and `birdview` are robosuite's. Third-party environments have their own cameras."""
    image_size: int = number(96, at_least=16, at_most=1024)
    """Side of the square images [px]; environments that render their own images determine the size themselves."""
    render_quality: RenderQuality = RenderQuality.FAST
    start_spread: float = number(DEFAULT_SPREAD_M, at_least=0, at_most=0.2, why="the arm's reach in metres")
    """Half side [m] of the square around the table's centre in which objects start; robosuite tasks other than Lift and
    Stack scale the ranges of robosuite's placement sampler by start_spread / 0.15 m instead, up to 0.15. PickPlace
    (four objects): from 0.1 on."""
    object_scale: float = number(1.2, at_least=0.5, at_most=1.35, why="the gripper opens 8 cm")
    """robosuite: scale of the cubes (4.2 cm at scale 1); the gripper opens 8 cm. Stack: from 0.6 on."""
    variation: Variation = Variation.NONE
    object_state: bool = False
    """Add the position and rotation of every object of the task to the state, for policies that do without cameras
    (`low_dim` in robomimic): what vision would have to find out. Not for third-party environments, which have their own
    state."""
    look_seed: int | None = number(None, at_least=0)
    """Seed for the variation instead of the episode's seed: every episode looks the same."""
    horizon: int | None = number(None, at_least=1)
    """Maximum episode length in control steps; None: the task's own, about twice what the expert needs."""
    control_hz: int = number(20, at_least=1)
    """Control steps per simulated second (fixed at 80 in MetaWorld, and in third-party environments that specify their
    rate)."""
    engine: Engine = Engine.MUJOCO
    make: dict[str, Any] = dataclasses.field(default_factory=dict)
    """gymnasium:ID and libero:SUITE/NUMBER: extra arguments for gymnasium.make, such as {obs_type: pixels}."""
    python: str = ""
    """gymnasium:ID and libero:SUITE/NUMBER: the Python that simulates them, such as ~/venvs/libero/bin/python, if their
    packages cannot be installed beside ours."""
    clip_actions: bool = True
    """Third-party environments: clip actions to the bounds of the action space. false: for those whose actions go
    beyond them, such as gym-aloha's joint angles."""

    def __post_init__(self) -> None:
        if self.simulator is Simulator.ROBOMIMIC:
            self._apply_store_settings()
        check_fields(self, "env.")
        if self.simulator is not Simulator.ROBOSUITE:
            for name, default in (("robot", "Panda"), ("controller", Controller.OSC_POSE), ("object_scale", 1.2)):
                if getattr(self, name) != default:
                    raise UserError(f"{name} applies only to robosuite tasks; leave it out with task={self.task}.")
        self._check_scene()
        if self.simulator not in SIMULATORS_WITH_VARIATIONS and self.variation is not Variation.NONE:
            raise UserError(f"This task has no variation levels: leave variation out with task={self.task}.")
        if self.object_state and not (self.simulator in SIMULATOR_CAMERAS and get_task(self.task).bodies):
            raise UserError(f"task={self.task} has no objects whose poses we know: leave object_state out.")
        if self.engine is Engine.WARP:
            if self.simulator is not Simulator.TABLETOP:
                raise UserError(f"engine=warp supports only tabletop tasks; use engine=mujoco for task={self.task}.")
            if self.variation not in WARP_VARIATIONS:
                names = " or ".join(level.value for level in WARP_VARIATIONS)
                raise UserError(f"engine=warp supports variation {names}, not {self.variation.value}.")
        if self.look_seed is not None and self.variation is Variation.NONE:
            raise UserError(f"look_seed={self.look_seed} needs a variation.")
        self._check_make_settings()
        # The cameras of a third-party model are only known once it is built.
        valid = SIMULATOR_CAMERAS.get(self.simulator, self.cameras)
        for camera in self.cameras:
            if camera not in valid:
                raise unknown_name("camera", camera, valid)
        if len(set(self.cameras)) != len(self.cameras):
            raise UserError(f"cameras contains duplicates: {list(self.cameras)}.")
        physics_hz = PHYSICS_HZ.get(self.simulator, self.control_hz)
        if physics_hz % self.control_hz:
            raise UserError(f"control_hz must divide the {physics_hz} Hz of the simulation, not {self.control_hz}.")

    def _check_scene(self) -> None:
        """Check where objects start and how large they are."""
        fixed = self.simulator in (Simulator.METAWORLD, *THIRD_PARTY) or self.task == "Wipe"
        if fixed and self.start_spread != DEFAULT_SPREAD_M:
            raise UserError(f"{self.task} places objects itself: leave out start_spread={self.start_spread}.")
        sampled = self.simulator is Simulator.ROBOSUITE and not get_task(self.task).cubes
        if sampled and self.start_spread > DEFAULT_SPREAD_M:
            raise UserError(
                f"start_spread={self.start_spread} must be at most {DEFAULT_SPREAD_M} with task={self.task}, whose "
                "objects robosuite places: further out they would not lie on their surface."
            )
        if self.task == "PickPlace" and self.start_spread < MIN_PICK_PLACE_SPREAD_M:
            raise UserError(
                f"start_spread={self.start_spread} must be at least {MIN_PICK_PLACE_SPREAD_M} with task=PickPlace, "
                "whose four objects would not fit side by side."
            )
        if self.task == "Stack" and self.object_scale < MIN_STACK_SCALE:
            raise UserError(
                f"object_scale={self.object_scale} must be at least {MIN_STACK_SCALE} with task=Stack: robosuite "
                "does not recognise smaller cubes as stacked."
            )

    def _check_make_settings(self) -> None:
        """Check how a third-party environment is made."""
        made = self.simulator in (Simulator.GYMNASIUM, Simulator.LIBERO)
        for name in ("make", "python"):
            if getattr(self, name) and not made:
                raise UserError(f"{name} applies only to Gymnasium environments; leave it out with task={self.task}.")
        if not self.clip_actions and self.simulator not in THIRD_PARTY:
            raise UserError(
                f"clip_actions applies only to third-party environments; leave it out with task={self.task}."
            )
        for name in _RESERVED_MAKE_ARGUMENTS & self.make.keys():
            raise UserError(f"make must not contain {name}: set task for the environment and horizon for its length.")
        self.python = str(Path(self.python).expanduser()) if self.python else ""
        if self.python and shutil.which(self.python) is None:
            raise UserError(f"python={self.python} is not a program that can be run.")
        if self.simulator is Simulator.LIBERO and not self.python:
            raise UserError(
                f"task={self.task} needs python=, the Python of an environment in which LIBERO is installed: it "
                "requires another robosuite than pixio-robot (docs/environments.md)."
            )
        if self.simulator is Simulator.GYMNASIUM and not self.python:
            registered_horizon(self.task)  # raises if there is no such environment

    def _apply_store_settings(self) -> None:
        """Take the settings that the demonstration store determines; raise UserError for conflicting ones."""
        self.task = with_absolute_path(self.task)
        recorded_env = load_recorded_env(self.task)
        check_same_env_args(self.task)
        defaults = {field.name: field.default for field in dataclasses.fields(EnvConfig)}
        store_settings = {
            "start_spread": defaults["start_spread"],
            "image_size": recorded_env.image_size or self.image_size,
            "control_hz": round(recorded_env.spec.control_hz),
            "render_quality": RenderQuality(recorded_env.render_quality),
        }
        for name, value in store_settings.items():
            if getattr(self, name) not in (defaults[name], value):
                raise UserError(f"{name} is determined by the demonstrations of {self.task}: leave it out.")
            setattr(self, name, value)
        if self.cameras == ["front", "hand"]:
            self.cameras = list(recorded_env.spec.cameras)
        for camera in self.cameras:
            if camera not in recorded_env.spec.cameras:
                raise unknown_name("camera", camera, recorded_env.spec.cameras)

    @property
    def simulator(self) -> Simulator:
        return get_task(self.task).simulator

    def half_sizes(self) -> dict[str, float]:
        """Object -> half side of the cube in metres, after scaling."""
        return {name: size * self.object_scale for name, size in get_task(self.task).cubes.items()}
