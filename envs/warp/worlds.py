"""Many worlds of one tabletop task in MuJoCo Warp: one call steps all of them, one call renders all their cameras.

Both are captured once as graphs and replayed. Without a CUDA device, the same kernels run on one CPU core, which is
sufficient for tests and small experiments.
"""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from envs.config import CAMERAS, PHYSICS_HZ, EnvConfig, RenderQuality
from envs.rendering.scene import SceneRandomiser
from envs.tabletop.env import (
    DELTA_POS,
    FINGERS_CLOSED,
    FINGERS_OPEN,
    REACH_HIGH,
    REACH_LOW,
    set_start_state,
    tabletop_model,
)
from envs.tasks import TASKS, Simulator
from pixio_robot.errors import UserError

_CONTACTS, _CONSTRAINTS = 48, 192
"""Capacity for contacts and constraint rows per world; the tasks need at most about half."""

_MODEL_RGBA = (0.5, 0.5, 0.5, 1.0)
"""MuJoCo's default geom colour: any other colour takes precedence over the material's."""

_STATE_FIELDS = ("time", "qpos", "qvel", "qacc_warmstart", "cvel", "mocap_pos", "ctrl")
"""The full state of a world. mujoco-warp's step also reads the body velocities `cvel` of the previous step."""


@contextlib.contextmanager
def _silence_stdout() -> Iterator[None]:
    """Silence Warp, which prints every module that it loads to standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def load_warp() -> tuple[Any, Any]:
    """(warp, mujoco_warp). Raises UserError if they are not installed."""
    try:
        with _silence_stdout():
            import warp

            # It prints a banner, and warns if there is no GPU.
            level, warp.config.log_level = warp.LOG_WARNING, warp.LOG_ERROR
            warp.init()
            warp.config.log_level = level
            import mujoco_warp
    except ImportError as error:
        raise UserError(f"engine=warp needs MuJoCo Warp ({error}): pip install 'pixio-robot[warp]'.") from error
    return warp, mujoco_warp


def bake_geom_colours(model: mujoco.MjModel) -> None:
    """Give geoms a plain colour where the ray tracer would show another colour than MuJoCo's renderer.

    The ray tracer prefers a material's colour to the geom's, and supports textures only for planes and meshes.
    """
    for geom in range(model.ngeom):
        material = model.geom_matid[geom]
        if material < 0:
            continue
        if np.allclose(model.geom_rgba[geom], _MODEL_RGBA):
            model.geom_rgba[geom] = model.mat_rgba[material]
            texture = model.mat_texid[material].max()
            if texture >= 0:
                start, channels = model.tex_adr[texture], model.tex_nchannel[texture]
                size = model.tex_width[texture] * model.tex_height[texture] * channels
                pixels = model.tex_data[start : start + size].reshape(-1, channels)
                model.geom_rgba[geom, :3] *= np.median(pixels[:, :3], axis=0) / 255
        model.geom_matid[geom] = -1


class WarpWorlds:
    """`count` worlds of the configuration's task. All positions in metres, one row per world, float32.

    eef (n, 3): the fingertip site. fingers (n, 2): finger positions. body_pos[name] (n, 3), body_mat[name] (n, 3, 3):
    the task's objects. All belong to the state that `render` shows.
    """

    def __init__(self, config: EnvConfig, count: int, device: str | None = None) -> None:
        """device: a Warp device name; None for the first GPU, or the CPU if there is none."""
        self._warp, self._mjw = load_warp()
        self._config, self.count = config, count
        self._host = tabletop_model(config)
        self._host_data = mujoco.MjData(self._host)
        self._scene = SceneRandomiser(config, self._host, self._host_data)
        self.device = self._warp.get_device(device)
        self._substeps = PHYSICS_HZ[Simulator.TABLETOP] // config.control_hz
        model = tabletop_model(config)
        self._grip = model.site("grip").id
        self._hand = model.body_mocapid[model.body("hand_target").id]
        self._fingers = [model.joint(f"finger{i}").qposadr[0] for i in (1, 2)]
        self._bodies = {name: model.body(body).id for name, body in TASKS[config.task].bodies.items()}
        # The cameras in the model's order, which is the order of the pixels.
        self._cameras = sorted(config.cameras, key=lambda name: model.camera(CAMERAS[name]).id)
        with self._on_device():
            self._build(model)

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        with _silence_stdout(), self._warp.ScopedDevice(self.device):
            yield

    def _build(self, model: mujoco.MjModel) -> None:
        bake_geom_colours(model)
        # The tasks have no sensors, and mujoco-warp 3.8's kernels for them do not compile under every newer Warp.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self._model = self._mjw.put_model(model)
        self._data = self._mjw.put_data(model, data, nworld=self.count, nconmax=_CONTACTS, njmax=_CONSTRAINTS)
        # Separate cameras for each world, so that each episode can move them.
        self._camera_pos = np.repeat(model.cam_pos[None].astype(np.float32), self.count, 0)
        self._camera_quat = np.repeat(model.cam_quat[None].astype(np.float32), self.count, 0)
        self._model.cam_pos = self._warp.array(self._camera_pos, dtype=self._warp.vec3)
        self._model.cam_quat = self._warp.array(self._camera_quat, dtype=self._warp.quat)
        self._context = None
        if self._cameras:
            active = [
                any(model.camera(CAMERAS[name]).id == index for name in self._cameras) for index in range(model.ncam)
            ]
            self._context = self._mjw.create_render_context(
                model,
                nworld=self.count,
                cam_res=(self._config.image_size, self._config.image_size),
                render_rgb=True,
                render_depth=False,
                render_seg=False,
                use_textures=False,
                use_shadows=self._config.render_quality is RenderQuality.FULL,
                enabled_geom_groups=[1],
                cam_active=active,
            )
            from envs.warp.kernels import unpack_rgb

            packed = self._context.rgb_data
            self._rgb = self._warp.zeros((*packed.shape, 3), dtype=self._warp.uint8)
            self._unpack_rgb = unpack_rgb
        self._mocap_pos, self._ctrl = self._data.mocap_pos.numpy().copy(), self._data.ctrl.numpy().copy()
        self._step_worlds = self._capture_graph(self._step_once)
        self._render_worlds = self._capture_graph(self._render_once)
        self._read()

    def _capture_graph(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture `work` as a graph that is replayed without Python. Runs it once before, to load its kernels."""
        work()
        with self._warp.ScopedCapture() as capture:
            work()
        return lambda: self._warp.capture_launch(capture.graph)

    def _step_once(self) -> None:
        for _ in range(self._substeps):
            self._mjw.step(self._model, self._data)
        self._update_kinematics()

    def _update_kinematics(self) -> None:
        self._mjw.kinematics(self._model, self._data)
        self._mjw.camlight(self._model, self._data)

    def _render_once(self) -> None:
        if self._context is not None:
            self._mjw.refit_bvh(self._model, self._data, self._context)
            self._mjw.render(self._model, self._data, self._context)
            packed = self._context.rgb_data
            self._warp.launch(self._unpack_rgb, dim=packed.shape, inputs=[packed], outputs=[self._rgb])

    def _read(self) -> None:
        data = self._data
        self.eef = data.site_xpos.numpy()[:, self._grip]
        self.eef_mat = data.site_xmat.numpy()[:, self._grip]
        self.fingers = data.qpos.numpy()[:, self._fingers]
        positions, rotations = data.xpos.numpy(), data.xmat.numpy()
        self.body_pos = {name: positions[:, body] for name, body in self._bodies.items()}
        self.body_mat = {name: rotations[:, body] for name, body in self._bodies.items()}

    def reset(self, seeds: Mapping[int, int]) -> None:
        """Start episodes with the given seeds in these worlds: the same starts as in `TabletopEnv`, in float32."""
        state = self._state()
        for world, seed in seeds.items():
            set_start_state(self._config, seed, self._host, self._host_data)
            self._scene.randomise(seed)
            host = self._host_data
            start = {"time": 0.0, "qvel": 0.0, "qacc_warmstart": 0.0, "cvel": 0.0, "ctrl": host.ctrl}
            for name, value in (start | {"qpos": host.qpos, "mocap_pos": host.mocap_pos}).items():
                state[name][world] = value
            self._camera_pos[world], self._camera_quat[world] = self._host.cam_pos, self._host.cam_quat
        with self._on_device():
            self._write(state)
            self._model.cam_pos.assign(self._camera_pos)
            self._model.cam_quat.assign(self._camera_quat)
            self._update_kinematics()
            self._read()

    def _state(self) -> dict[str, np.ndarray]:
        # Copies, because on the CPU `numpy()` returns the live memory.
        return {name: getattr(self._data, name).numpy().copy() for name in _STATE_FIELDS}

    def _write(self, state: Mapping[str, np.ndarray]) -> None:
        for name, value in state.items():
            getattr(self._data, name).assign(value)
        self._mocap_pos, self._ctrl = state["mocap_pos"], state["ctrl"]

    def step(self, actions: np.ndarray, frozen: Sequence[int] = ()) -> None:
        """One control step with actions (n, 4), clipped to [-1, 1]. The worlds in `frozen` keep their state."""
        actions = np.clip(actions, -1, 1)
        self._mocap_pos[:, self._hand] = np.clip(self.eef + DELTA_POS * actions[:, :3], REACH_LOW, REACH_HIGH)
        self._ctrl[:] = np.where(actions[:, 3:] > 0, FINGERS_CLOSED, FINGERS_OPEN)
        with self._on_device():
            before = self._state() if frozen else {}
            self._data.mocap_pos.assign(self._mocap_pos)
            self._data.ctrl.assign(self._ctrl)
            self._step_worlds()
            if frozen:
                after = self._state()
                for name, value in before.items():
                    after[name][list(frozen)] = value[list(frozen)]
                self._write(after)
                self._update_kinematics()
            self._read()

    def render(self) -> dict[str, np.ndarray]:
        """The images of the configuration's cameras: camera -> uint8 (n, h, w, 3)."""
        if self._context is None:
            return {}
        with self._on_device():
            self._render_worlds()
            rgb = self._rgb.numpy()
        size = self._config.image_size
        # On the CPU `numpy()` returns the live memory, into which the next image is rendered.
        images = (rgb.copy() if self.device.is_cpu else rgb).reshape(self.count, len(self._cameras), size, size, 3)
        return {name: images[:, self._cameras.index(name)] for name in self._config.cameras}
