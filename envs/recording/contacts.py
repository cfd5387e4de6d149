"""Contacts between robot and objects, for probes."""

from __future__ import annotations

import numpy as np

from envs.registry import Environment
from envs.rendering.views import MujocoRendering
from pixio_robot.errors import UserError

_ROBOT, _FIRST_OBJECT = 2, 3
"""Indices into `segmentation_names()`."""


def robot_touches_object(env: Environment) -> bool:
    """Whether a part of the robot touches one of the task's objects.

    Raises UserError for an environment without a MuJoCo model of known parts.
    """
    if not isinstance(env, MujocoRendering):
        raise UserError(f"Contacts of the robot are not available in {env.config.task}; probe another task.")
    classes = env._class_of_geom[np.asarray(env._data.contact.geom)]
    robot = (classes == _ROBOT).any(1)
    return bool((robot & (classes >= _FIRST_OBJECT).any(1)).any())
