"""The settings to add where a policy does not fit the environment, for the message that says so."""

from __future__ import annotations

from collections.abc import Sequence

from envs.config import EnvConfig
from envs.spec import make_env_spec
from envs.suggestion import suggest_env_settings
from pixio_robot.evaluation.name_mapping import NameMappingConfig, map_names, suggest_name_mapping
from pixio_robot.types import DemoSpec


def suggest_settings(
    policy: DemoSpec, env: EnvConfig, names: NameMappingConfig, tasks: Sequence[str] = (), prefix: str = ""
) -> str:
    """A sentence with settings of the environment, or else of the name mapping, with which they fit; else empty.

    tasks: those of a policy trained on several. prefix: prefix of the settings' names."""
    return suggest_env_settings(
        policy,
        env,
        tasks,
        prefix,
        in_names_of_policy=lambda env_spec: map_names(policy, env_spec, names).spec,
        any_task=bool(names.task),
    ) or suggest_name_mapping(policy, make_env_spec(env), names, tasks, prefix)
