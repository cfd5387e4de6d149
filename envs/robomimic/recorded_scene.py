"""Renders the recorded states of robomimic demonstrations, and computes observations from them, with their own models.

No robosuite environment is built: a demonstration contains its whole model, so states of any robosuite version can be
rendered as long as the meshes still exist.
"""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.config import RenderQuality
from envs.robomimic.model import compile_model, localise_model
from envs.robomimic.observables import build_observables
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import CameraSpec

_QUALITIES = [quality.value for quality in RenderQuality]
_TO_OPENCV = np.diag([1.0, -1.0, -1.0])
"""MuJoCo's cameras look along -z with y up, OpenCV's along +z with y down."""


class StateRenderer:
    """Renders demonstrations as square images of `image_size` pixels. Close it after use."""

    def __init__(self, image_size: int, render_quality: str) -> None:
        """`render_quality`: `full` or `fast`. Raises UserError for other qualities and for sizes below 1."""
        if render_quality not in _QUALITIES:
            raise unknown_name("render_quality", render_quality, _QUALITIES)
        if image_size < 1:
            raise UserError(f"image_size={image_size} must be at least 1 pixel.")
        self._size, self._quality = image_size, RenderQuality(render_quality)
        self._xml = ""
        self._substitutes: set[str] = set()
        self._model: Any = None
        self._data: Any = None
        self._renderer: Any = None

    def cameras(self, model_file: str, names: Sequence[str]) -> dict[str, CameraSpec]:
        """Size, intrinsics and pose of the named cameras of the model. Raises UserError for an unknown camera."""
        self._load(model_file)
        return {name: self._camera(name) for name in names}

    def observe(
        self, model_file: str, states: np.ndarray, keys: Sequence[str], cameras: Sequence[str]
    ) -> Mapping[str, np.ndarray]:
        """`<camera>_image` uint8 (n, size, size, 3) and each key, float64 (n, ...), for n flattened MuJoCo states.

        Raises UserError if the states do not match the model, or a key or camera does not exist.
        """
        self._load(model_file)
        check_states(states, self._model.nq, self._model.nv)
        for name in cameras:
            self._camera_id(name)
        reads = build_observables(self._model, keys)
        observations: dict[str, list[np.ndarray]] = {key: [] for key in (*keys, *(f"{name}_image" for name in cameras))}
        for state in states:
            self._set(state)
            for key, read in reads.items():
                observations[key].append(read(self._data))
            for name in cameras:
                observations[f"{name}_image"].append(self._render(name))
        return {key: np.stack(values) for key, values in observations.items()}

    def notes(self) -> list[str]:
        """How the rendering differs from the original."""
        names = ", ".join(sorted(self._substitutes))
        return [f"visual meshes that this robosuite lacks, replaced by collision meshes: {names}"] if names else []

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _load(self, xml: str) -> None:
        """Load a model, unless it is the current one: compiling takes a second, and successive demonstrations often
        share a model."""
        if xml == self._xml:
            return
        self.close()
        import mujoco

        model = localise_model(xml)
        self._substitutes |= set(model.substitutes)
        self._model = compile_model(model)
        self._data = mujoco.MjData(self._model)
        self._xml = xml

    def _set(self, state: np.ndarray) -> None:
        import mujoco

        nq, nv = self._model.nq, self._model.nv
        self._data.time = state[0]
        self._data.qpos[:] = state[1 : 1 + nq]
        self._data.qvel[:] = state[1 + nq : 1 + nq + nv]
        mujoco.mj_forward(self._model, self._data)

    def _render(self, camera: str) -> np.ndarray:
        from envs.rendering.renderer import Renderer

        if self._renderer is None:
            self._renderer = Renderer(self._model, self._data, self._size, self._quality)
        return self._renderer.render(camera)

    def _camera_id(self, name: str) -> int:
        names = {self._model.camera(index).name: index for index in range(self._model.ncam)}
        if name not in names:
            raise unknown_name("camera of the demonstration's model", name, names)
        return names[name]

    def _camera(self, name: str) -> CameraSpec:
        import mujoco

        index, model = self._camera_id(name), self._model
        fov_y = float(model.cam_fovy[index])
        focal = self._size / 2 / np.tan(np.radians(fov_y) / 2)
        turn = np.empty(9)
        mujoco.mju_quat2Mat(turn, model.cam_quat[index])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn.reshape(3, 3) @ _TO_OPENCV, model.cam_pos[index]
        fixed = model.cam_mode[index] == mujoco.mjtCamLight.mjCAMLIGHT_FIXED
        return CameraSpec(
            height=self._size,
            width=self._size,
            fov_y_degrees=fov_y,
            intrinsics=(focal, focal, self._size / 2, self._size / 2),
            # A camera that follows a target has no constant pose.
            extrinsics=pose.tolist() if fixed else None,
            mounted_on=(model.body(model.cam_bodyid[index]).name or "world") if fixed else None,
        )


def check_states(states: np.ndarray, nq: int, nv: int) -> None:
    """Raise UserError unless states have time, positions and velocities; robosuite before 1.4 adds actuator states."""
    if states.ndim != 2 or states.shape[1] < 1 + nq + nv:
        raise UserError(
            f"A demonstration's states have shape {states.shape}, but its model_file requires "
            f"1 + {nq} + {nv} numbers per step."
        )
