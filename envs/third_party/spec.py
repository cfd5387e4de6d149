"""The DemoSpec of a third-party environment, and checks for settings that do not apply to it."""

from __future__ import annotations

import json

from envs.config import EnvConfig
from envs.seeded_spec import horizon_text
from envs.tasks import get_task
from envs.third_party.base import FRONT_CAMERA, EnvMetadata
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import SIMULATED, UNKNOWN, UNSEEDED, CameraSpec, DemoSpec

_DEFAULTS = EnvConfig()


def third_party_spec(config: EnvConfig, metadata: EnvMetadata) -> DemoSpec:
    """The environment's DemoSpec. Raises UserError for a setting that the environment determines itself."""
    _check_rate(config, metadata)
    # Render qualities do not apply to images that the environment provides itself.
    look = config.render_quality.value if metadata.image_sizes is None else UNKNOWN
    scene = f"{SIMULATED}variation none, start_spread {config.start_spread} m"
    scene = scene if metadata.image_sizes is None else "as Gymnasium makes it"
    scene += f", {config.task}" if metadata.instruction else ""
    scene += horizon_text(config)
    scene += "" if metadata.deterministic else f", {UNSEEDED}"
    scene += f", make {json.dumps(config.make, sort_keys=True)}" if config.make else ""
    return DemoSpec(
        task=metadata.instruction or config.task,
        robot=metadata.robot,
        simulator=config.simulator.value,
        simulator_version=", ".join(dict.fromkeys(metadata.versions)),
        controller=metadata.controller,
        control_hz=float(config.control_hz) if metadata.control_hz is None else metadata.control_hz,
        cameras=_mujoco_cameras(config) if metadata.image_sizes is None else _image_cameras(config, metadata),
        state_names=metadata.state_names,
        action_names=metadata.action_names,
        render_quality=look,
        source=scene,
    )


def _check_rate(config: EnvConfig, metadata: EnvMetadata) -> None:
    if metadata.control_hz is not None and config.control_hz not in (_DEFAULTS.control_hz, metadata.control_hz):
        raise UserError(
            f"{config.task} specifies a control rate of {metadata.control_hz:g} Hz (dt for MuJoCo environments, "
            f"metadata['render_fps'] for others): leave out control_hz={config.control_hz}."
        )


def _mujoco_cameras(config: EnvConfig) -> dict[str, CameraSpec]:
    """The requested cameras, `front` if none was named. The model is checked for them later."""
    names = [FRONT_CAMERA] if config.cameras == _DEFAULTS.cameras else config.cameras
    fov = {FRONT_CAMERA: get_task(config.task).view.fov_y}
    return {
        name: CameraSpec(height=config.image_size, width=config.image_size, fov_y_degrees=fov.get(name))
        for name in names
    }


def _image_cameras(config: EnvConfig, metadata: EnvMetadata) -> dict[str, CameraSpec]:
    """The requested cameras, all if none was named, at the environment's own image sizes."""
    assert metadata.image_sizes is not None
    names = list(metadata.image_sizes) if config.cameras == _DEFAULTS.cameras else config.cameras
    if metadata.render_error and config.cameras:
        raise UserError(
            f"{config.task} cannot be rendered ({metadata.render_error}): use it without images, with cameras=[]."
        )
    if config.render_quality is not _DEFAULTS.render_quality:
        raise UserError(f"{config.task} renders images itself: leave out render_quality={config.render_quality.value}.")
    cameras = {}
    for name in names:
        if name not in metadata.image_sizes:
            raise unknown_name(f"camera of {config.task}", name, metadata.image_sizes)
        height, width = metadata.image_sizes[name]
        if config.image_size != _DEFAULTS.image_size and (height, width) != (config.image_size, config.image_size):
            raise UserError(
                f"{config.task} renders {name!r} at {height} x {width} pixels: leave out "
                f"image_size={config.image_size}; if the environment has a setting for another size, use make."
            )
        cameras[name] = CameraSpec(height=height, width=width)
    return cameras
