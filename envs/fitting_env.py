"""Find an environment that a policy can run in, for the message where one does not fit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from envs.config import ROBOTS, SIMULATOR_CAMERAS, Controller, Engine, EnvConfig, RenderQuality
from envs.spec import make_env_spec
from envs.tabletop.spec import RAY_TRACED
from envs.tasks import TASKS, THIRD_PARTY, Simulator
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec


def find_fitting_env(
    policy: DemoSpec,
    env: EnvConfig,
    tasks: Sequence[str] = (),
    in_names_of_policy: Callable[[DemoSpec], DemoSpec] = lambda spec: spec,
    any_task: bool = False,
) -> EnvConfig | None:
    """An environment of ours, as much like `env` as possible, in which the policy can run; None if there is none.

    tasks: those of a policy trained on several. in_names_of_policy: applies the name mapping, and may raise UserError.
    any_task: whether it also maps the task, so that the environment's stays.

    The policy's task is a stranger's text. Only our own tasks are tried: others could name code to import.
    """
    alike = env if env.simulator not in (*THIRD_PARTY, Simulator.ROBOMIMIC) else EnvConfig(horizon=env.horizon)
    wanted = [env.task] if any_task else sorted(tasks or [policy.task], key=lambda task: task != env.task)
    for task, base in itertools.product([task for task in wanted if task in TASKS], (alike, EnvConfig())):
        policy_of_task = policy if any_task else dataclasses.replace(policy, task=task)
        for candidate in _candidates(policy_of_task, task, base):
            try:
                seen = in_names_of_policy(make_env_spec(candidate))
            except UserError:
                continue
            if not policy_of_task.differences(seen):
                return candidate
    return None


def _candidates(policy: DemoSpec, task: str, env: EnvConfig) -> Iterator[EnvConfig]:
    """Environments like `env` with what a DemoSpec says. Controllers and objects show only in the names of columns, so
    each choice is tried, first that of `env`."""
    quality = policy.render_quality.removeprefix(RAY_TRACED)
    changed: dict[str, Any] = {"task": task, "control_hz": round(policy.control_hz)}
    if policy.robot in ROBOTS:
        changed["robot"] = policy.robot
    if quality in [known.value for known in RenderQuality]:
        changed["render_quality"] = RenderQuality(quality)
        changed["engine"] = Engine.WARP if quality != policy.render_quality else Engine.MUJOCO
    sides = {side for camera in policy.cameras.values() for side in (camera.height, camera.width)}
    if len(sides) == 1:
        changed["image_size"] = sides.pop()
    # A policy without cameras does not mind any, and videos need one.
    cameras = list(policy.cameras) or list(SIMULATOR_CAMERAS[TASKS[task].simulator][:1])
    controllers = sorted(Controller, key=lambda controller: controller is not env.controller)
    choices = itertools.product(controllers, (env.object_state, not env.object_state), (env.cameras, cameras))
    for controller, object_state, shown in choices:
        changed |= {"controller": controller, "object_state": object_state, "cameras": shown}
        # MetaWorld has its own rate and robot.
        for left_out in ((), ("control_hz", "robot")):
            kept = {name: value for name, value in changed.items() if name not in left_out}
            try:
                yield dataclasses.replace(env, **kept)
            except UserError:
                continue
