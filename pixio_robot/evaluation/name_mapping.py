"""Map an environment's cameras, state, actions and task to the names that a policy was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixio_robot.data.actions.representations import ActionConverter, make_action_converter
from pixio_robot.errors import unknown_name
from pixio_robot.types import OF_THE_TASK, SEVERAL, UNKNOWN, Actor, DemoSpec, Frame

_UNSPECIFIED = (OF_THE_TASK, UNKNOWN)


@dataclasses.dataclass(kw_only=True)
class NameMappingConfig:
    """Name mapping between a policy and an environment that uses different names."""

    cameras: dict[str, str] = dataclasses.field(default_factory=dict)
    """Map from the policy's camera names to the environment's, where they differ: cameras='{image: pixels}'."""
    state: list[str] = dataclasses.field(default_factory=list)
    """Parts of the environment's state to pass to the policy, in this order; `agent_pos` selects agent_pos.0,
    agent_pos.1 and so on. Empty: all."""
    task: str = ""
    """Which task to perform, for a policy trained on several; empty: the environment's task name."""
    by_position: bool = False
    """Match the dimensions of state and action by position instead of by name; with third-party environments or
    demonstrations, also ignore the task's name. Sizes and control rate must match in any case."""

    def to_arguments(self, prefix: str = "") -> str:
        """The settings as command-line text; empty if nothing is set."""
        arguments = []
        if self.cameras:
            pairs = ", ".join(f"{policy_name}: {env_name}" for policy_name, env_name in self.cameras.items())
            arguments.append(f"{prefix}cameras='{{{pairs}}}'")
        if self.state:
            arguments.append(f"{prefix}state=[{','.join(self.state)}]")
        if self.task:
            arguments.append(f"{prefix}task='{self.task}'")
        if self.by_position:
            arguments.append(f"{prefix}by_position=true")
        return " ".join(arguments)


@dataclasses.dataclass(frozen=True)
class NameMapping:
    """spec: the environment's spec in the policy's names. cameras: policy's name -> environment's name, where they
    differ. columns: indices of the environment's state passed to the policy; None for all. actions: conversion from the
    policy's actions to the environment's, if they use another rotation representation or other units for deltas."""

    spec: DemoSpec
    cameras: Mapping[str, str]
    columns: Sequence[int] | None
    actions: ActionConverter | None = None

    def actor(self, actor: Actor) -> Actor:
        """Wrap the actor so that it receives frames and returns actions in its own names and units."""
        if not self.cameras and self.columns is None and self.actions is None:
            return actor
        return _NameMappedActor(actor, self)


class _NameMappedActor:
    """An `Actor` wrapper that renames what the actor observes and converts the actions it returns."""

    def __init__(self, actor: Actor, mapping: NameMapping) -> None:
        self._actor, self._mapping = actor, mapping

    def reset(self, slot: int, seed: int) -> None:
        self._actor.reset(slot, seed)

    def needs_images(self, slot: int) -> bool:
        return self._actor.needs_images(slot)

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        actions = self._actor.act({slot: self._rename_frame(frame) for slot, frame in frames.items()})
        convert = self._mapping.actions
        if convert is None:
            return actions
        return {slot: convert(action).astype(np.float32) for slot, action in actions.items()}

    def _rename_frame(self, frame: Frame) -> Frame:
        cameras, columns = self._mapping.cameras, self._mapping.columns
        renamed = {policy_name: frame.images[env_name] for policy_name, env_name in cameras.items() if frame.images}
        state = frame.state if columns is None else frame.state[list(columns)]
        return Frame({**frame.images, **renamed}, state)


def map_names(policy: DemoSpec, env: DemoSpec, config: NameMappingConfig) -> NameMapping:
    """Apply the mapping to the environment's spec. Raises UserError for an unknown camera or part of the state.

    This does not check that the two match; use `policy.differences(mapping.spec)` for that.
    """
    for policy_name, env_name in config.cameras.items():
        if policy_name not in policy.cameras:
            raise unknown_name("camera of the policy (cameras=)", policy_name, policy.cameras)
        if env_name not in env.cameras:
            raise unknown_name("camera of the environment (cameras=)", env_name, env.cameras)
    columns = _state_columns(env.state_names, config.state) if config.state else None
    seen = dataclasses.replace(
        env,
        cameras={
            **env.cameras,
            **{policy_name: env.cameras[env_name] for policy_name, env_name in config.cameras.items()},
        },
        state_names=env.state_names if columns is None else tuple(env.state_names[column] for column in columns),
        task=config.task or env.task,
    )
    if config.by_position:
        seen = _match_by_position(policy, seen, config)
    actions = None
    if list(policy.action_names) != list(seen.action_names):
        actions = make_action_converter(policy.action_names, seen.action_names)
        if actions is not None:
            seen = dataclasses.replace(seen, action_names=policy.action_names)
    return NameMapping(seen, dict(config.cameras), columns, actions)


def _match_by_position(policy: DemoSpec, env: DemoSpec, config: NameMappingConfig) -> DemoSpec:
    """The environment's spec with the policy's names, where the sizes match, and its robot etc. where unknown."""
    replaced: dict[str, Any] = {
        name: tuple(getattr(policy, name))
        for name in ("state_names", "action_names")
        if len(getattr(policy, name)) == len(getattr(env, name))
    }
    replaced |= {
        name: getattr(policy, name)
        for name in ("robot", "controller", "render_quality")
        if getattr(env, name) in _UNSPECIFIED
    }
    from_elsewhere = policy.simulator == UNKNOWN or env.robot in _UNSPECIFIED
    if from_elsewhere and not config.task and SEVERAL not in policy.task:
        replaced["task"] = policy.task
    return dataclasses.replace(env, **replaced)


def _state_columns(names: Sequence[str], parts: Sequence[str]) -> list[int]:
    bare = [name.split(" [")[0] for name in names]
    keys = [name.rpartition(".")[0] or name for name in bare]
    selected = []
    for part in parts:
        columns = [column for column in range(len(names)) if part in (names[column], bare[column], keys[column])]
        if not columns:
            raise unknown_name("part of the environment's state (state=)", part, {*keys})
        selected += columns
    return selected


def suggest_name_mapping(
    policy: DemoSpec, env: DemoSpec, config: NameMappingConfig, tasks: Sequence[str] = (), prefix: str = ""
) -> str:
    """A sentence suggesting the smallest mapping if policy and environment differ in names only; else empty.

    tasks: the tasks of a policy trained on several. prefix: prefix of the settings' names.
    """
    cameras, doubts = dict(config.cameras), []
    for name, camera in policy.cameras.items():
        if cameras.get(name, name) in env.cameras:
            continue
        taken = {cameras.get(policy_name, policy_name) for policy_name in policy.cameras}
        fit = [
            env_name
            for env_name, size in env.cameras.items()
            if (size.height, size.width) == (camera.height, camera.width) and env_name not in taken
        ]
        if not fit:
            return ""
        if len(fit) > 1:
            doubts = ["which camera is which"]
        cameras[name] = fit[0]
    task = config.task
    if not task and tasks and env.task not in tasks:
        task = tasks[0]
        doubts += [f"which task of {', '.join(tasks)}"] if len(tasks) > 1 else []
    task_policy = dataclasses.replace(policy, task=task) if task in tasks else policy
    doubt = f" (check {' and '.join(doubts)})" if doubts else ""
    for by_position in (config.by_position, True):
        suggestion = dataclasses.replace(config, cameras=cameras, task=task, by_position=by_position)
        if not task_policy.differences(map_names(policy, env, suggestion).spec):
            return f" If only the names differ, add {suggestion.to_arguments(prefix)}{doubt}."
    return ""
