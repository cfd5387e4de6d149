"""Files whose actions are absolute poses although their env_args describe deltas.

diffusion_policy's robomimic_dataset_conversion.py copies a file and overwrites `actions` with absolute poses; env_args
stay as they were. Nothing else in the file says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.interop.robomimic import env_metadata
from pixio_robot.interop.robomimic.hdf5_file import RobomimicFile
from pixio_robot.interop.robomimic.settings import ImportConfig
from pixio_robot.types import DemoSpec

_ROUNDING = 1e-4


def resolve_action_key(file: RobomimicFile, config: ImportConfig, exported: DemoSpec | None) -> str:
    """The action dataset whose description applies to the chosen one: `actions_abs` for absolute poses in `actions`.

    Raises UserError if `absolute=` is set where it does not apply.
    """
    if config.absolute is None:
        return config.actions
    setting = f"absolute={str(config.absolute).lower()}"
    if exported is not None and config.actions == "actions":
        raise UserError(f"{file.path} contains its own DemoSpec, which defines the actions: leave out {setting}.")
    if config.actions == env_metadata.ABSOLUTE_ACTIONS or not env_metadata.takes_delta_poses(file.env_args):
        raise UserError(
            f"{setting} is for actions that env_args describe as deltas of the gripper's pose, but the controller of "
            f"{config.actions} in {file.path} is {env_metadata.controller_name(file.env_args, config.actions)}: leave "
            "it out. What is wrong in env_args can be corrected with action_names= and controller=."
        )
    return env_metadata.ABSOLUTE_ACTIONS if config.absolute else config.actions


def check_delta_range(file: RobomimicFile, demo: str, key: str, actions: np.ndarray, columns: Sequence[int]) -> None:
    """Raise UserError if these columns of the actions (n, a) cannot be the deltas from -1 to 1 that env_args
    describe."""
    if not columns:
        return
    largest = np.abs(actions[:, columns]).max(initial=0.0)
    if largest > 1 + _ROUNDING:
        raise UserError(
            f"{file.path}: env_args describe actions that are deltas from -1 to 1, but {key} of {demo} has a value of "
            f"magnitude {largest:.4g} in the columns of the gripper's pose. Set absolute=true if they are absolute "
            "poses in the controller's frame, as in diffusion_policy's image_abs.hdf5 and low_dim_abs.hdf5, or "
            "absolute=false if they are deltas that robosuite clips."
        )
