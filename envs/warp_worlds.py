"""Many worlds of one tabletop task in MuJoCo Warp: one call steps them all, one call draws all their cameras.

Both are recorded once as graphs and replayed. Without a CUDA device the same kernels run on one CPU core, which is
right for tests and small studies.
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
from envs.scene import Scene
from envs.tabletop import DELTA_POS, FINGERS_CLOSED, FINGERS_OPEN, REACH_HIGH, REACH_LOW, place, tabletop_model
from envs.tasks import TASKS, Simulator
from pixio_robot.errors import UserError

_CONTACTS, _CONSTRAINTS = 48, 192
"""Room for contacts and constraint rows of one world; the tasks' busiest moments need about half."""

_MODEL_RGBA = (0.5, 0.5, 0.5, 1.0)
"""MuJoCo's default colour: a geom of any other colour shows it in place of its material's."""

_STATE = ("time", "qpos", "qvel", "qacc_warmstart", "cvel", "mocap_pos", "ctrl")
"""What a world's future follows from. mujoco-warp's step reads the bodies' velocities `cvel` of the step before."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Warp announces each module that it loads on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def load_warp() -> tuple[Any, Any]:
    """(warp, mujoco_warp). Raises UserError where they are not installed."""
    try:
        with _quiet():
            import warp

            # It greets, and warns where there is no GPU.
            level, warp.config.log_level = warp.LOG_WARNING, warp.LOG_ERROR
            warp.init()
            warp.config.log_level = level
            import mujoco_warp
    except ImportError as error:
        raise UserError(f"engine=warp needs MuJoCo Warp ({error}): pip install 'pixio-robot[warp]'.") from error
    return warp, mujoco_warp


def paint(model: mujoco.MjModel) -> None:
    """Give every geom a plain colour of its own, where the ray tracer would show another than MuJoCo does.

    The ray tracer takes a material's colour before the geom's, and has textures for planes and meshes alone.
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


class Worlds:
    """`count` worlds of the configuration's task. All positions in metres, one row a world, float32.

    eef (n, 3): the fingertips' site. fingers (n, 2): their openings. body_pos[name] (n, 3), body_mat[name] (n, 3, 3):
    the task's objects. They are those of the state that `pictures` shows.
    """

    def __init__(self, config: EnvConfig, count: int, device: str | None = None) -> None:
        """device: warp's name of it; None for the first GPU, or the CPU where there is none."""
        self._warp, self._mjw = load_warp()
        self._config, self.count = config, count
        self._host = tabletop_model(config)
        self._host_data = mujoco.MjData(self._host)
        self._scene = Scene(config, self._host, self._host_data)
        self.device = self._warp.get_device(device)
        self._substeps = PHYSICS_HZ[Simulator.TABLETOP] // config.control_hz
        model = tabletop_model(config)
        self._grip = model.site("grip").id
        self._hand = model.body_mocapid[model.body("hand_target").id]
        self._fingers = [model.joint(f"finger{i}").qposadr[0] for i in (1, 2)]
        self._bodies = {name: model.body(body).id for name, body in TASKS[config.task].bodies.items()}
        # The model's cameras in its order, which is the order of the pixels.
        self._shown = sorted(config.cameras, key=lambda name: model.camera(CAMERAS[name]).id)
        with self._on_device():
            self._build(model)

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        with _quiet(), self._warp.ScopedDevice(self.device):
            yield

    def _build(self, model: mujoco.MjModel) -> None:
        paint(model)
        # The tasks have no sensors, and mujoco-warp 3.8's kernels for them do not compile under every newer Warp.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self._model = self._mjw.put_model(model)
        self._data = self._mjw.put_data(model, data, nworld=self.count, nconmax=_CONTACTS, njmax=_CONSTRAINTS)
        # A camera of its own for every world, so that each episode may move it.
        self._camera_pos = np.repeat(model.cam_pos[None].astype(np.float32), self.count, 0)
        self._camera_quat = np.repeat(model.cam_quat[None].astype(np.float32), self.count, 0)
        self._model.cam_pos = self._warp.array(self._camera_pos, dtype=self._warp.vec3)
        self._model.cam_quat = self._warp.array(self._camera_quat, dtype=self._warp.quat)
        self._context = None
        if self._shown:
            active = [
                any(model.camera(CAMERAS[name]).id == index for name in self._shown) for index in range(model.ncam)
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
            from envs.warp_kernels import unpack_rgb

            packed = self._context.rgb_data
            self._rgb = self._warp.zeros((*packed.shape, 3), dtype=self._warp.uint8)
            self._unpack_rgb = unpack_rgb
        self._mocap_pos, self._ctrl = self._data.mocap_pos.numpy().copy(), self._data.ctrl.numpy().copy()
        self._step_worlds = self._recorded(self._step_once)
        self._draw_worlds = self._recorded(self._draw_once)
        self._read()

    def _recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, recorded once and replayed without Python. Runs it once before, which loads its kernels."""
        work()
        with self._warp.ScopedCapture() as capture:
            work()
        return lambda: self._warp.capture_launch(capture.graph)

    def _step_once(self) -> None:
        for _ in range(self._substeps):
            self._mjw.step(self._model, self._data)
        self._locate()

    def _locate(self) -> None:
        self._mjw.kinematics(self._model, self._data)
        self._mjw.camlight(self._model, self._data)

    def _draw_once(self) -> None:
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

    def start(self, seeds: Mapping[int, int]) -> None:
        """Put these worlds at the start of those seeds' episodes: the starts of `TabletopEnv`, rounded to float32."""
        state = self._state()
        for world, seed in seeds.items():
            place(self._config, seed, self._host, self._host_data)
            self._scene.draw(seed)
            host = self._host_data
            start = {"time": 0.0, "qvel": 0.0, "qacc_warmstart": 0.0, "cvel": 0.0, "ctrl": host.ctrl}
            for name, value in (start | {"qpos": host.qpos, "mocap_pos": host.mocap_pos}).items():
                state[name][world] = value
            self._camera_pos[world], self._camera_quat[world] = self._host.cam_pos, self._host.cam_quat
        with self._on_device():
            self._write(state)
            self._model.cam_pos.assign(self._camera_pos)
            self._model.cam_quat.assign(self._camera_quat)
            self._locate()
            self._read()

    def _state(self) -> dict[str, np.ndarray]:
        # A copy: on the CPU `numpy()` is the live memory.
        return {name: getattr(self._data, name).numpy().copy() for name in _STATE}

    def _write(self, state: Mapping[str, np.ndarray]) -> None:
        for name, value in state.items():
            getattr(self._data, name).assign(value)
        self._mocap_pos, self._ctrl = state["mocap_pos"], state["ctrl"]

    def step(self, actions: np.ndarray, held: Sequence[int] = ()) -> None:
        """One control step with actions (n, 4), clipped to [-1, 1]. The worlds in `held` stay as they are."""
        actions = np.clip(actions, -1, 1)
        self._mocap_pos[:, self._hand] = np.clip(self.eef + DELTA_POS * actions[:, :3], REACH_LOW, REACH_HIGH)
        self._ctrl[:] = np.where(actions[:, 3:] > 0, FINGERS_CLOSED, FINGERS_OPEN)
        with self._on_device():
            before = self._state() if held else {}
            self._data.mocap_pos.assign(self._mocap_pos)
            self._data.ctrl.assign(self._ctrl)
            self._step_worlds()
            if held:
                after = self._state()
                for name, value in before.items():
                    after[name][list(held)] = value[list(held)]
                self._write(after)
                self._locate()
            self._read()

    def pictures(self) -> dict[str, np.ndarray]:
        """What the configuration's cameras see: camera -> uint8 (n, h, w, 3)."""
        if self._context is None:
            return {}
        with self._on_device():
            self._draw_worlds()
            rgb = self._rgb.numpy()
        size = self._config.image_size
        # On the CPU `numpy()` is the live memory, which the next picture is drawn into.
        pictures = (rgb.copy() if self.device.is_cpu else rgb).reshape(self.count, len(self._shown), size, size, 3)
        return {name: pictures[:, self._shown.index(name)] for name in self._config.cameras}
