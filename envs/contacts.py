"""What touches what, for probes."""

from __future__ import annotations

import numpy as np

from envs.registry import Environment
from envs.views import Views
from pixio_robot.errors import UserError

_ROBOT, _FIRST_OBJECT = 2, 3
"""Classes of `segmentation_names()`."""


def robot_touches_object(env: Environment) -> bool:
    """Whether a part of the robot is in contact with one of the task's objects.

    Raises UserError for an environment that is not over a MuJoCo model of known parts.
    """
    if not isinstance(env, Views):
        raise UserError(f"What the robot touches is not known in {env.config.task}; probe another task.")
    classes = env._class_of_geom[np.asarray(env._data.contact.geom)]
    robot = (classes == _ROBOT).any(1)
    return bool((robot & (classes >= _FIRST_OBJECT).any(1)).any())
