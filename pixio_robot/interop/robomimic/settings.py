"""Settings for importing and exporting robomimic files."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixio_robot.errors import unknown_name

SPEC = "pixio_robot_spec"
"""Attribute of `data`: the DemoSpec, for which robomimic has no place."""
INFO = "pixio_robot_info"
"""Attribute of a demonstration: success, seed and info of our episode."""

DEMO = "demo"
"""Key of an episode's info: the demonstration's name in the original file."""
ENV_ARGS = "env_args"
MASK = "mask."
"""Prefix of keys of an episode's info that tell whether the demonstration belongs to a mask."""

SUCCESS_RULES = ("reward", "all", "none")


@dataclass(kw_only=True)
class ImportConfig:
    """mask: import only the demonstrations of this filter key; default all.
    state: observation keys, concatenated in this order; default eef_pos, eef_quat and gripper_qpos of every robot.
    cameras: default all that have images in the file; cameras without images are rendered from the recorded states.
    image_size: side of rendered images, pixels.
    render: render all cameras=, even those with images in the file.
    render_quality: of rendered images; full or fast.
    actions: name of the action dataset (actions, or actions_abs).
    absolute: where env_args describe deltas, whether the actions are absolute poses in the controller's frame all the
    same (true; diffusion_policy's image_abs.hdf5) or deltas (false); default deltas, and an error if they exceed 1.
    success: which episodes count as successful; reward (those that the file marks, else those that reach a reward of
    1), all or none.
    control_hz, task, robot, controller, action_names, state_names, source, licence: replace the file's values.
    """

    mask: str = ""
    state: list[str] = field(default_factory=list)
    cameras: list[str] = field(default_factory=list)
    image_size: int = 84
    render: bool = False
    render_quality: str = "full"
    actions: str = "actions"
    absolute: bool | None = None
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
            raise unknown_name("success rule", self.success, SUCCESS_RULES)


@dataclass(kw_only=True)
class ExportConfig:
    """original: the robomimic file that the episodes were imported from; copies their states and model_file from it.
    next_obs: also write the observation after each action, as needed for offline reinforcement learning.
    compress: compress images with gzip.
    """

    original: str = ""
    next_obs: bool = False
    compress: bool = False
