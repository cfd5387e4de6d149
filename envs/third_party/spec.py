"""The DemoSpec of a third-party environment, and checks for settings that do not apply to it."""

from __future__ import annotations

import json

from envs.config import EnvConfig
from envs.tasks import task_of
from envs.third_party.base import FRONT, EnvFacts
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import UNKNOWN, UNSEEDED, CameraSpec, DemoSpec

_USUAL = EnvConfig()


def foreign_spec(config: EnvConfig, facts: EnvFacts) -> DemoSpec:
    """The environment's DemoSpec. Raises UserError for a setting that the environment determines itself."""
    _check_rate(config, facts)
    # Render qualities do not apply to images that the environment provides itself.
    look = config.render_quality.value if facts.pictures is None else UNKNOWN
    scene = f"simulated: variation none, start_spread {config.start_spread} m"
    scene = scene if facts.pictures is None else "as Gymnasium makes it"
    scene += f", {config.task}" if facts.instruction else ""
    scene += "" if config.horizon is None else f", horizon {config.horizon}"
    scene += "" if facts.repeats else f", {UNSEEDED}"
    scene += f", make {json.dumps(config.make, sort_keys=True)}" if config.make else ""
    return DemoSpec(
        task=facts.instruction or config.task,
        robot=facts.robot,
        simulator=config.simulator.value,
        simulator_version=", ".join(dict.fromkeys(facts.versions)),
        controller=facts.controller,
        control_hz=float(config.control_hz) if facts.control_hz is None else facts.control_hz,
        cameras=_drawn_here(config) if facts.pictures is None else _shown(config, facts),
        state_names=facts.state_names,
        action_names=facts.action_names,
        render_quality=look,
        source=scene,
    )


def _check_rate(config: EnvConfig, facts: EnvFacts) -> None:
    if facts.control_hz is not None and config.control_hz not in (_USUAL.control_hz, facts.control_hz):
        raise UserError(
            f"{config.task} specifies a control rate of {facts.control_hz:g} Hz (dt for MuJoCo environments, "
            f"metadata['render_fps'] for others): leave out control_hz={config.control_hz}."
        )


def _drawn_here(config: EnvConfig) -> dict[str, CameraSpec]:
    """The requested cameras, `front` if none was named. The model is checked for them later."""
    names = [FRONT] if config.cameras == _USUAL.cameras else config.cameras
    fov = {FRONT: task_of(config.task).view.fov_y}
    return {
        name: CameraSpec(height=config.image_size, width=config.image_size, fov_y_degrees=fov.get(name))
        for name in names
    }


def _shown(config: EnvConfig, facts: EnvFacts) -> dict[str, CameraSpec]:
    """The requested cameras, all if none was named, at the environment's own image sizes."""
    assert facts.pictures is not None
    names = list(facts.pictures) if config.cameras == _USUAL.cameras else config.cameras
    if facts.blind and config.cameras:
        raise UserError(f"{config.task} cannot be rendered ({facts.blind}): use it without images, with cameras=[].")
    for name in names:
        if name not in facts.pictures:
            raise unknown_name(f"camera of {config.task}", name, facts.pictures)
    if config.render_quality is not _USUAL.render_quality:
        raise UserError(f"{config.task} renders images itself: leave out render_quality={config.render_quality.name}.")
    for name in names:
        height, width = facts.pictures[name]
        if config.image_size not in (_USUAL.image_size, height) or config.image_size not in (_USUAL.image_size, width):
            raise UserError(
                f"{config.task} renders {name!r} at {height} x {width} pixels: leave out "
                f"image_size={config.image_size}; if the environment has a setting for another size, use make."
            )
    return {name: CameraSpec(height=facts.pictures[name][0], width=facts.pictures[name][1]) for name in names}
