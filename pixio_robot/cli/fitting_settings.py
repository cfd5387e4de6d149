"""The settings to add where a policy does not fit the environment, for the message that says so."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields

from omegaconf import OmegaConf

from envs.config import EnvConfig
from envs.fitting_env import find_fitting_env
from envs.spec import make_env_spec
from pixio_robot.cli.config.help import format_value
from pixio_robot.evaluation.name_mapping import NameMappingConfig, map_names, suggest_name_mapping
from pixio_robot.types import DemoSpec

_LEFT_OUT = ("make", "python")
"""Settings of third-party environments, which the command of another one has to leave out."""


def suggest_settings(
    policy: DemoSpec, env: EnvConfig, names: NameMappingConfig, tasks: Sequence[str] = (), prefix: str = ""
) -> str:
    """A sentence with settings of the environment, or else of the name mapping, with which they fit; else empty.

    tasks: those of a policy trained on several. prefix: prefix of the settings' names."""

    def in_names_of_policy(env_spec: DemoSpec) -> DemoSpec:
        return map_names(policy, env_spec, names).spec

    fitting = find_fitting_env(policy, env, tasks, in_names_of_policy, any_task=bool(names.task))
    if fitting is None:
        return suggest_name_mapping(policy, make_env_spec(env), names, tasks, prefix)
    others = [] if names.task else [task for task in tasks if task != fitting.task]
    other_tasks = f" (or another of its tasks: {', '.join(others)})" if others else ""
    return f" For an environment that it fits, add {' '.join(_changes(env, fitting, prefix))}{other_tasks}."


def _changes(before: EnvConfig, after: EnvConfig, prefix: str) -> Iterator[str]:
    nodes = OmegaConf.structured(after)
    for name in (field.name for field in fields(EnvConfig)):
        if name not in _LEFT_OUT and getattr(after, name) != getattr(before, name):
            yield shlex.quote(f"{prefix}env.{name}={format_value(nodes._get_node(name))}")
