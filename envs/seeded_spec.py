"""What the DemoSpecs of our own simulated tasks have in common: names of columns, cameras, and the scene as text."""

from __future__ import annotations

import importlib.metadata

from envs.config import EnvConfig
from envs.tasks import get_task
from pixio_robot.errors import UserError
from pixio_robot.types import HORIZON, SIMULATED, CameraSpec, DemoSpec

HAND_FOV_Y = 75.0
_ROBOSUITE_FOV_Y = 45.0

POSITION = tuple(f"eef_pos.{axis} [m]" for axis in "xyz")
TWO_FINGERS = tuple(f"gripper.finger{finger} [m]" for finger in (1, 2))
GRIPPER_ACTION = "gripper [-1 opens, 1 closes]"

_EXTRAS = {"mujoco-warp": "warp"}


def installed_versions(*names: str) -> str:
    """Packages with their versions. Raises UserError, which names the extra, for one that is not installed."""
    try:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        extra = _EXTRAS.get(str(error.name), error.name)
        raise UserError(f"{error.name} is not installed: pip install 'pixio-robot[{extra}]'.") from error


def pose_columns(of: str) -> tuple[str, ...]:
    return (
        *(f"{of}_pos.{axis} [m]" for axis in "xyz"),
        # The first two columns of the rotation matrix: continuous, unlike a quaternion (Zhou et al. 2019).
        *(f"{of}_rot6d.{column}{axis} [1]" for column in "xy" for axis in "xyz"),
    )


def position_deltas(metres: float) -> tuple[str, ...]:
    """Actions that move the gripper by up to `metres` in a step."""
    return tuple(f"eef_delta_pos.{axis} [{metres} m]" for axis in "xyz")


def object_names(task: str) -> tuple[str, ...]:
    """The columns that `object_state` adds to the state: the pose of each object in the world."""
    return tuple(column for name in get_task(task).bodies for column in pose_columns(name))


def horizon_text(config: EnvConfig) -> str:
    """What `source` says of the length of episodes."""
    return "" if config.horizon is None else f"{HORIZON}{config.horizon}"


def seeded_spec(
    config: EnvConfig,
    *,
    packages: tuple[str, ...],
    robot: str,
    controller: str,
    state: tuple[str, ...],
    actions: tuple[str, ...],
    control_hz: float | None = None,
    simulator: str = "",
    look: str = "",
) -> DemoSpec:
    """The DemoSpec of a task whose episodes follow from their seeds. `control_hz`, `simulator` and `look` (the render
    quality) are the configuration's unless given. Raises UserError if one of `packages` is not installed."""
    fov = {"front": get_task(config.task).view.fov_y, "hand": HAND_FOV_Y}
    scene = f"variation {config.variation.value}"
    scene += "" if config.look_seed is None else f" of look_seed {config.look_seed}"
    unusual = "" if config.object_scale == EnvConfig.object_scale else f", object_scale {config.object_scale}"
    unusual += horizon_text(config)
    return DemoSpec(
        task=config.task,
        robot=robot,
        simulator=simulator or config.simulator.value,
        simulator_version=installed_versions(*packages),
        controller=controller,
        control_hz=float(config.control_hz) if control_hz is None else control_hz,
        cameras={
            name: CameraSpec(
                height=config.image_size, width=config.image_size, fov_y_degrees=fov.get(name, _ROBOSUITE_FOV_Y)
            )
            for name in config.cameras
        },
        state_names=(*state, *(object_names(config.task) if config.object_state else ())),
        action_names=actions,
        render_quality=look or config.render_quality.value,
        source=f"{SIMULATED}{scene}, start_spread {config.start_spread} m{unusual}",
    )
