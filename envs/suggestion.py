"""Which settings make an environment that a policy can run in, for the message where one does not fit."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from envs.config import ROBOTS, Controller, EnvConfig, RenderQuality
from envs.spec import make_env_spec
from envs.tasks import THIRD_PARTY, Simulator
from pixio_robot.choice import option_name
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec

_UNLIKE_OURS = (*THIRD_PARTY, Simulator.ROBOMIMIC)
"""Third-party simulators would have to be started, and a robomimic environment belongs to a store."""


def suggest_env_settings(
    policy: DemoSpec,
    env: EnvConfig,
    tasks: Sequence[str] = (),
    prefix: str = "",
    in_names_of_policy: Callable[[DemoSpec], DemoSpec] = lambda spec: spec,
) -> str:
    """A sentence with the settings of `env` to change for an environment of ours that the policy fits; else empty.

    tasks: those of a policy trained on several. prefix: prefix of the settings' names. in_names_of_policy: applies the
    name mapping, and may raise UserError.
    """
    current = EnvConfig() if env.simulator in _UNLIKE_OURS else env
    for task in tasks or [policy.task]:
        for candidate in _candidates(dataclasses.replace(policy, task=task), current):
            try:
                seen = in_names_of_policy(make_env_spec(candidate))
            except UserError:
                continue
            if not dataclasses.replace(policy, task=task).differences(seen):
                words = " ".join(_changed_settings(env, candidate, prefix))
                others = f" (or another of its tasks: {', '.join(tasks)})" if len(tasks) > 1 else ""
                return f" For an environment that it fits, add {words}{others}."
    return ""


def _candidates(policy: DemoSpec, env: EnvConfig) -> Iterator[EnvConfig]:
    """Environments like `env` with what a DemoSpec says. Controllers and objects show only in the names of columns, so
    each choice is tried, first that of `env`."""
    changed: dict[str, Any] = {"task": policy.task, "control_hz": round(policy.control_hz)}
    if policy.robot in ROBOTS:
        changed["robot"] = policy.robot
    if policy.render_quality in [quality.value for quality in RenderQuality]:
        changed["render_quality"] = RenderQuality(policy.render_quality)
    sides = {side for camera in policy.cameras.values() for side in (camera.height, camera.width)}
    if len(sides) == 1:
        changed["image_size"] = sides.pop()
    controllers = sorted(Controller, key=lambda controller: controller is not env.controller)
    for controller, object_state, cameras in itertools.product(
        controllers, (env.object_state, not env.object_state), (env.cameras, list(policy.cameras))
    ):
        changed |= {"controller": controller, "object_state": object_state, "cameras": cameras}
        # MetaWorld has its own rate and robot.
        for left_out in ((), ("control_hz", "robot")):
            kept = {name: value for name, value in changed.items() if name not in left_out}
            try:
                yield dataclasses.replace(env, **kept)
            except UserError:
                continue


def _changed_settings(before: EnvConfig, after: EnvConfig, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(EnvConfig):
        value = getattr(after, field.name)
        if value != getattr(before, field.name):
            yield shlex.quote(f"{prefix}env.{field.name}={_to_text(value)}")


def _to_text(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return option_name(value)
    if isinstance(value, list):
        return f"[{','.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
