"""Rendering for all MuJoCo-based environments: images, depth, segmentation, camera and object poses."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from envs.config import CAMERAS, EnvConfig
from envs.rendering.renderer import Renderer
from envs.rendering.robot_bodies import find_robot_bodies
from envs.tasks import get_task
from pixio_robot.errors import unknown_name

_SURFACES = ("table", "tablelink", "bin1", "bin2")


def object_columns(positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Positions (..., n, 3) and rotation matrices (..., n, 3, 3) of n objects as columns (..., n * 9) of the state."""
    columns = np.concatenate([positions, rotations[..., 0], rotations[..., 1]], axis=-1)
    return columns.reshape(*columns.shape[:-2], -1)


class MujocoRendering:
    """The rendering part of an `Environment`, for a compiled model and its live data."""

    def __init__(self, config: EnvConfig, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.config, self._model, self._data = config, model, data
        self._renderer = Renderer(model, data, config.image_size, config.render_quality)
        self._body_ids = {name: model.body(body).id for name, body in get_task(config.task).bodies.items()}
        self._class_of_geom = self._segmentation_classes()

    def _segmentation_classes(self) -> np.ndarray:
        """The segmentation class of every geom, int32 (ngeom + 1,); the last entry is for no geom."""
        model, object_classes = self._model, {body: 3 + i for i, body in enumerate(self._body_ids.values())}
        robot = find_robot_bodies(model, get_task(self.config.task).simulator)
        classes = np.zeros(model.ngeom + 1, np.int32)
        for geom in range(model.ngeom):
            body = model.geom_bodyid[geom]
            # A geom has the class of the nearest ancestor body with a class.
            while body:
                name = model.body(body).name
                if body in object_classes:
                    classes[geom] = object_classes[body]
                elif name in _SURFACES:
                    classes[geom] = 1
                elif int(body) in robot:
                    classes[geom] = 2
                if classes[geom]:
                    break
                body = model.body_parentid[body]
        return classes

    def _model_camera(self, camera: str | None) -> str:
        name = camera or (self.config.cameras or list(CAMERAS))[0]
        if name not in CAMERAS:
            raise unknown_name("camera", name, CAMERAS)
        return CAMERAS[name]

    def render(self, camera: str | None = None) -> np.ndarray:
        return self._renderer.render(self._model_camera(camera))

    def render_depth(self, camera: str | None = None) -> np.ndarray:
        return self._renderer.depth(self._model_camera(camera))

    def render_segmentation(self, camera: str | None = None) -> np.ndarray:
        return self._class_of_geom[self._renderer.geom_ids(self._model_camera(camera))]

    def segmentation_names(self) -> list[str]:
        return ["background", "surface", "robot", *self._body_ids]

    def camera_pose(self, camera: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        index = self._model.camera(self._model_camera(camera)).id
        return self._data.cam_xpos[index].copy(), self._data.cam_xmat[index].reshape(3, 3).copy()

    def _eef_pose(self, site: int) -> dict[str, np.ndarray]:
        """The pose of the gripper, given the index of its site."""
        return {
            "eef_pos": self._data.site_xpos[site].copy(),
            "eef_mat": self._data.site_xmat[site].reshape(3, 3).copy(),
        }

    def _object_state(self) -> list[np.ndarray]:
        """What `object_state` adds to the state, in the order of `seeded_spec.object_names`."""
        if not self.config.object_state:
            return []
        bodies = list(self._body_ids.values())
        return [object_columns(self._data.xpos[bodies], self._data.xmat[bodies].reshape(-1, 3, 3))]

    def _body_poses(self) -> dict[str, np.ndarray]:
        return self._poses(self._body_ids)

    def _poses(self, bodies: Mapping[str, int]) -> dict[str, np.ndarray]:
        poses = {}
        for name, body in bodies.items():
            poses[f"{name}_pos"] = self._data.xpos[body].copy()
            poses[f"{name}_mat"] = self._data.xmat[body].reshape(3, 3).copy()
        return poses
