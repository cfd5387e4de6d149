"""Rollouts while a policy trains: `pixio-robot evaluate` in a process of its own."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from envs.config import EnvConfig
from envs.registry import spec_of
from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import SUMMARY, read_summary
from pixio_robot.evaluation.sight import SightConfig, look, way_out
from pixio_robot.training.trials import Outcome, Trial, Trials, TrialsConfig, ranking
from pixio_robot.types import DemoSpec
from policies.acting import ActingConfig

FIRST_SEED = 200_000
"""Not those of `evaluate`, so that the policy that was chosen by them can be evaluated on others."""


@dataclass(kw_only=True)
class TrialsCommand(TrialsConfig, ActingConfig, SightConfig):
    """Rollouts every `every` steps of training; 0 for none. They do not change the result."""

    env: EnvConfig = field(default_factory=EnvConfig)
    episodes: int = 20
    """Episodes of each evaluation."""
    first_seed: int = FIRST_SEED
    """Of its first episode; not that of `evaluate`, whose episodes are to judge the policy that was chosen by these."""
    workers: int = 1
    """Simulator processes."""
    device: str = "cpu"
    """Of the policy in these rollouts: `cpu`, `cuda` or `auto`."""


def open_trials(config: TrialsCommand, out: str, spec: DemoSpec, tasks: Sequence[str] = ()) -> Trials:
    """`tasks`: those that the policy is told of, as when it is evaluated.

    Raises UserError when the environment does not fit the demonstrations, before anything is trained.
    """
    env_spec = spec_of(config.env)
    task = config.task or env_spec.task
    learned = replace(spec, task=task) if task in tasks else spec
    if differences := learned.differences(look(learned, env_spec, config).spec):
        raise UserError(
            f"trials.env is another environment than that of the demonstrations: {'; '.join(differences)}."
            + way_out(learned, env_spec, config, tasks, "trials.")
        )

    def command(model: Path, results: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "pixio_robot.cli.main", "evaluate"),
            *(f"checkpoint={_word(str(model))}", f"out={_word(str(results))}", f"episodes={config.episodes}"),
            *(f"first_seed={config.first_seed}", f"workers={config.workers}", f"device={config.device}", "videos=0"),
            *(
                f"{one.name}={_word(getattr(config, one.name))}"
                for one in (*fields(ActingConfig), *fields(SightConfig))
            ),
            *(f"env.{one.name}={_word(getattr(config.env, one.name))}" for one in fields(config.env)),
        ]

    return Trials(out, config, command, _outcome)


def _word(value: Any) -> str:
    """As Hydra reads it; in quotes, the commas and equal signs of a path are its own."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_word(item)}' for key, item in value.items())}}}"
    return str(value)


def _outcome(results: Path) -> Outcome | None:
    if not (results / SUMMARY).is_file():
        return None
    summary = read_summary(results)
    return Outcome(
        episodes=summary.episodes,
        successes=summary.successes,
        rate=summary.rate,
        low=summary.low,
        high=summary.high,
    )


def words_of_trials(trials: Sequence[Trial]) -> str:
    """The last and the best, each called what it is."""

    def of(trial: Trial) -> str:
        outcome = trial.outcome
        return "failed" if outcome is None else f"{outcome.successes} of {outcome.episodes} at step {trial.step}"

    ranked = ranking(list(trials))
    if not ranked:
        return "train: no rollout during training ended well; see trials/*/log.txt"
    return (
        f"train: rollouts during training: last {of(trials[-1])}; best of {len(ranked)} {of(ranked[0])}, which "
        "flatters: evaluate that one again"
    )
