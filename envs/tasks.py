"""All tasks by name: their simulator, objects and camera view."""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib

from envs.robomimic.task import ROBOMIMIC_PREFIX, load_recorded_env
from pixio_robot.errors import UserError, unknown_name


class Simulator(enum.Enum):
    """The simulator of a task. TABLETOP is plain MuJoCo with our own models; METAWORLD needs the extra `metaworld`.

    ROBOMIMIC is robosuite as described by a robomimic file (`envs.robomimic.task`). GYMNASIUM, DM_CONTROL and LIBERO
    are third-party environments (`envs.third_party.base`).
    """

    ROBOSUITE = "robosuite"
    TABLETOP = "mujoco"
    METAWORLD = "metaworld"
    ROBOMIMIC = "robomimic"
    GYMNASIUM = "gymnasium"
    DM_CONTROL = "dm_control"
    LIBERO = "libero"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraView:
    """A fixed camera: its position and the point it looks at (m, world), and its vertical field of view (degrees)."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fov_y: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    horizon: maximum episode length in control steps, about twice what the expert needs. bodies: our name of an object
    -> the MuJoCo body, for experts and ground truth. cubes: robosuite's nominal half sizes (m) of the objects that
    our own scene scales and places; other tasks use the simulator's sampler. surface: centre of the work surface (m).
    clutter: centre of the free surface on which distractors stand, if it is not that of `surface`. clutter_half: half
    extents (m, x and y) of the rectangle of their centres, so less than the free surface's by their radius of 0.037 m.
    """

    simulator: Simulator = Simulator.ROBOSUITE
    horizon: int
    bodies: dict[str, str] = dataclasses.field(default_factory=dict)
    cubes: dict[str, float] = dataclasses.field(default_factory=dict)
    view: CameraView
    surface: tuple[float, float, float] = (0.0, 0.0, 0.8)
    clutter: tuple[float, float, float] | None = None
    clutter_half: tuple[float, float] = (0.2, 0.2)


_TABLE = CameraView(eye=(0.80, 0.0, 1.52), target=(0.0, 0.0, 0.83), fov_y=25.0)
"""The image covers a square of 0.44 m on the table."""

_BINS = CameraView(eye=(1.05, 0.05, 1.75), target=(0.1, 0.03, 0.85), fov_y=42.0)
_PEGS = CameraView(eye=(0.95, 0.0, 1.55), target=(0.05, 0.05, 0.86), fov_y=32.0)
_DOOR = CameraView(eye=(0.35, 0.25, 1.55), target=(-0.15, -0.28, 1.0), fov_y=45.0)
_WIDE = CameraView(eye=(0.95, 0.0, 1.60), target=(0.0, 0.0, 0.85), fov_y=45.0)


def _bins(*names: str, horizon: int = 400) -> Task:
    bodies = {name.lower(): f"{name}_main" for name in names} | {f"{n.lower()}_goal": f"Visual{n}_main" for n in names}
    return Task(
        horizon=horizon,
        bodies=bodies,
        view=_BINS,
        surface=(0.1, -0.25, 0.8),
        clutter=(0.1, -0.25, 0.82),  # the bin's floor, 2 cm above its origin; the walls stand at 0.19 and 0.24 m
        clutter_half=(0.15, 0.2),
    )


def _pegs(**nuts: str) -> Task:
    return Task(
        horizon=400,
        bodies={**nuts, "square_peg": "peg1", "round_peg": "peg2"},
        view=_PEGS,
        surface=(0.0, 0.0, 0.82),
    )


_GROCERIES = ("Milk", "Bread", "Cereal", "Can")
_SQUARE, _ROUND = {"square_nut": "SquareNut_main"}, {"round_nut": "RoundNut_main"}

_METAWORLD_VIEW = CameraView(eye=(0.0, 0.9, 0.6), target=(0.0, 0.6, 0.0), fov_y=45.0)
"""CortexBench's camera `top_cap2` (Majumdar et al. 2023): above the table, always facing it."""


def _metaworld(**bodies: str) -> Task:
    return Task(
        simulator=Simulator.METAWORLD, horizon=500, bodies=bodies, view=_METAWORLD_VIEW, surface=(0.0, 0.6, 0.0)
    )


_TABLETOP_VIEW = CameraView(eye=(0.62, 0.0, 0.56), target=(0.0, 0.0, 0.04), fov_y=32.0)


def _tabletop(horizon: int, *bodies: str) -> Task:
    return Task(
        simulator=Simulator.TABLETOP,
        horizon=horizon,
        bodies={name: name for name in bodies},
        view=_TABLETOP_VIEW,
        surface=(0.0, 0.0, 0.0),
    )


TASKS = {
    "Lift": Task(horizon=80, bodies={"cube": "cube_main"}, cubes={"cube": 0.021}, view=_TABLE),
    "Stack": Task(
        horizon=160,
        bodies={"cubeA": "cubeA_main", "cubeB": "cubeB_main"},
        cubes={"cubeA": 0.02, "cubeB": 0.025},
        view=_TABLE,
    ),
    "PickPlaceCan": _bins("Can", horizon=300),
    "NutAssemblySquare": _pegs(**_SQUARE),
    "Door": Task(
        horizon=300,
        bodies={"door": "Door_door", "latch": "Door_latch"},
        view=_DOOR,
        surface=(-0.2, -0.35, 0.8),
        clutter_half=(0.2, 0.11),  # the table is 0.3 m deep
    ),
    # The rest of robosuite's single-arm tasks, without experts.
    "PickPlace": _bins(*_GROCERIES, horizon=1000),
    "PickPlaceSingle": _bins(*_GROCERIES),
    "PickPlaceMilk": _bins("Milk"),
    "PickPlaceBread": _bins("Bread"),
    "PickPlaceCereal": _bins("Cereal"),
    "NutAssembly": _pegs(**_SQUARE, **_ROUND),
    "NutAssemblySingle": _pegs(**_SQUARE, **_ROUND),
    "NutAssemblyRound": _pegs(**_ROUND),
    "ToolHang": Task(
        horizon=700, bodies={"stand": "stand_root", "frame": "frame_root", "tool": "tool_root"}, view=_WIDE
    ),
    "Wipe": Task(horizon=500, view=_WIDE, surface=(0.15, 0.0, 0.9)),
    # Plain MuJoCo.
    "TabletopReach": _tabletop(60, "target"),
    "TabletopPush": _tabletop(120, "cube", "target"),
    "TabletopPick": _tabletop(100, "cube"),
    # The five MetaWorld tasks of CortexBench.
    "assembly-v3": _metaworld(nut="RoundNut", peg="peg"),
    "bin-picking-v3": _metaworld(cube="obj"),
    "button-press-topdown-v3": _metaworld(button="button"),
    "drawer-open-v3": _metaworld(drawer="drawer_link"),
    "hammer-v3": _metaworld(hammer="hammer", nail="nail_link"),
}


THIRD_PARTY = (Simulator.GYMNASIUM, Simulator.DM_CONTROL, Simulator.LIBERO)
DEFAULT_HORIZON = 1000
"""Control steps if the environment specifies no limit; also the episode length of the dm_control suite."""


def name_in_simulator(task: str) -> str:
    """A third-party task's name without our prefix: `Pusher-v5` for `gymnasium:Pusher-v5`."""
    return task.partition(":")[2]


@functools.cache
def get_task(name: str) -> Task:
    """The task with that name: one of TASKS, a robomimic task (see `envs.robomimic.task`) or a third-party task (see
    `envs.third_party.base`). Raises UserError for other names."""
    if name in TASKS:
        return TASKS[name]
    if name.startswith(ROBOMIMIC_PREFIX):
        recorded = load_recorded_env(name)
        known = TASKS.get(str(recorded.env_args["env_name"]), Task(horizon=recorded.horizon, view=_WIDE))
        return dataclasses.replace(known, simulator=Simulator.ROBOMIMIC, horizon=recorded.horizon, cubes={})
    home = next((simulator for simulator in THIRD_PARTY if name.startswith(f"{simulator.value}:")), None)
    if home is None:
        others = ("robomimic:<store>", "gymnasium:<id>", "dm_control:<domain>/<task>", "libero:<suite>/<number>")
        raise unknown_name("task", name, [*TASKS, *others])
    return Task(simulator=home, horizon=DEFAULT_HORIZON, view=_WIDE)


def split_module_and_id(name: str) -> tuple[str, str]:
    """`my_package:MyTask-v0` -> (my_package, MyTask-v0); the module is empty if there is none."""
    module, _, environment = name.rpartition(":")
    return module, environment


def registered_horizon(task: str) -> int:
    """The limit of control steps in the environment's registration. Raises UserError if Gymnasium does not know it."""
    import gymnasium

    module, name = split_module_and_id(name_in_simulator(task))
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name).max_episode_steps or DEFAULT_HORIZON
    except ImportError as error:
        raise UserError(
            f"task={task} needs a module that cannot be imported ({error}): install it, or add its folder to "
            "PYTHONPATH."
        ) from error
    except gymnasium.error.Error as error:
        raise UserError(f"Gymnasium does not know task={task}: {error}") from error


def register_gymnasium() -> None:
    """Register every task with Gymnasium, as in `pixio_robot/Lift-v0`; called when `envs` is imported."""
    import gymnasium

    for task in TASKS:
        # MetaWorld's own names already end in a version.
        name = f"pixio_robot/{task.removesuffix('-v3')}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point="envs.gymnasium_env:GymnasiumEnv", kwargs={"task": task})
