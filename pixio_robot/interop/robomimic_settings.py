"""What a user may say about reading and writing robomimic files."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixio_robot.errors import unknown_name

SPEC = "pixio_robot_spec"
"""Attribute of `data`: the DemoSpec, which robomimic has no place for."""
INFO = "pixio_robot_info"
"""Attribute of a demonstration: success, seed and info of our episode."""

DEMO = "demo"
"""Key of an episode's info: the demonstration's name in the file that it came from."""
ENV_ARGS = "env_args"
MASK = "mask."
"""Keys of an episode's info that start like this: whether the demonstration belongs to that mask."""

SUCCESS_RULES = ("reward", "all", "none")


@dataclass(kw_only=True)
class ImportConfig:
    """mask: only the demonstrations of that filter; without, all. state: observation keys, in order; without, place,
    turn and fingers of every robot. cameras: without, all that the file has images of; cameras that it has none of are
    rendered, image_size pixels square. render: render all cameras= anew. actions: which dataset. success: `reward`
    (a reward reaches 1), `all` or `none`. control_hz, task, robot, controller, action_names, state_names, source,
    licence: in place of what the file says.
    """

    mask: str = ""
    state: list[str] = field(default_factory=list)
    cameras: list[str] = field(default_factory=list)
    image_size: int = 84
    render: bool = False
    render_quality: str = "full"
    actions: str = "actions"
    success: str = "reward"
    control_hz: float = 0.0
    task: str = ""
    robot: str = ""
    controller: str = ""
    action_names: list[str] = field(default_factory=list)
    state_names: list[str] = field(default_factory=list)
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if self.success not in SUCCESS_RULES:
            raise unknown_name("rule of success", self.success, SUCCESS_RULES)


@dataclass(kw_only=True)
class ExportConfig:
    """original: the robomimic file that the episodes were imported from, to copy their states and model_file back.
    next_obs: also what is seen after each action; offline reinforcement learning needs it. compress: gzip images.
    """

    original: str = ""
    next_obs: bool = False
    compress: bool = False
