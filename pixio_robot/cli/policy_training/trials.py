"""Rollouts during policy training: `pixio-robot evaluate` in a separate process."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from envs.config import EnvConfig
from envs.spec import make_env_spec
from pixio_robot.cli.fitting_settings import suggest_settings
from pixio_robot.errors import UserError
from pixio_robot.evaluation.name_mapping import NameMappingConfig, map_names
from pixio_robot.evaluation.results import SUMMARY, read_summary
from pixio_robot.training.trials import Trial, TrialResult, Trials, TrialsConfig, rank_trials
from pixio_robot.types import DemoSpec
from policies.acting import ActingConfig

FIRST_SEED = 200_000
"""Differs from that of `evaluate`, so that a policy selected on these seeds can be evaluated on unseen ones."""


@dataclass(kw_only=True)
class TrialsCommand(TrialsConfig, ActingConfig, NameMappingConfig):
    """Rollouts every `every` training steps; 0 disables them. They do not affect training."""

    env: EnvConfig = field(default_factory=EnvConfig)
    episodes: int = 20
    """Episodes per evaluation."""
    first_seed: int = FIRST_SEED
    """Seed of the first episode. Keep these seeds apart from those of `evaluate`, which judges the selected policy."""
    workers: int = 1
    """Number of simulator processes."""
    device: str = "cpu"
    """Device of the policy in these rollouts: `cpu`, `cuda` or `auto`."""


def open_trials(config: TrialsCommand, out: str, spec: DemoSpec, tasks: Sequence[str] = ()) -> Trials:
    """`tasks`: the tasks that the policy is conditioned on, as in an evaluation.

    Raises UserError when the environment does not fit the demonstrations, before anything is trained.
    """
    env_spec = make_env_spec(config.env)
    task = config.task or env_spec.task
    learned = replace(spec, task=task) if task in tasks else spec
    if differences := learned.differences(map_names(learned, env_spec, config).spec):
        raise UserError(
            f"trials.env does not match the environment of the demonstrations: {'; '.join(differences)}."
            + suggest_settings(learned, config.env, config, tasks, "trials.")
        )

    def command(model: Path, results: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "pixio_robot.cli.main", "evaluate"),
            *(
                f"checkpoint={_to_override(str(model))}",
                f"out={_to_override(str(results))}",
                f"episodes={config.episodes}",
            ),
            *(f"first_seed={config.first_seed}", f"workers={config.workers}", f"device={config.device}", "videos=0"),
            *(
                f"{one.name}={_to_override(getattr(config, one.name))}"
                for one in (*fields(ActingConfig), *fields(NameMappingConfig))
            ),
            *(f"env.{one.name}={_to_override(getattr(config.env, one.name))}" for one in fields(config.env)),
        ]

    return Trials(out, config, command, _read_outcome)


def _to_override(value: Any) -> str:
    """Format a value as a Hydra override. Strings are quoted, so that commas and equal signs in paths are kept."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_to_override, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_to_override(item)}' for key, item in value.items())}}}"
    return str(value)


def _read_outcome(results: Path) -> TrialResult | None:
    if not (results / SUMMARY).is_file():
        return None
    summary = read_summary(results)
    return TrialResult(
        episodes=summary.episodes,
        successes=summary.successes,
        rate=summary.rate,
        low=summary.low,
        high=summary.high,
    )


def trials_summary(trials: Sequence[Trial]) -> str:
    """A printed line with the results of the last trial and of the best one."""

    def of(trial: Trial) -> str:
        outcome = trial.outcome
        return "failed" if outcome is None else f"{outcome.successes} of {outcome.episodes} at step {trial.step}"

    ranked = rank_trials(list(trials))
    if not ranked:
        return "train: all evaluations during training failed; see trials/*/log.txt"
    return (
        f"train: rollouts during training: last {of(trials[-1])}; best of {len(ranked)} {of(ranked[0])}, which "
        "is biased upwards by the selection: evaluate that policy again"
    )
