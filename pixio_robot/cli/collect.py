"""`pixio-robot collect`: record demonstrations of a scripted expert to a Zarr store."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

from envs.config import Engine, EnvConfig
from envs.recording.collect import CollectConfig, collect
from envs.recording.takeovers import Takeovers
from envs.spec import make_env_spec
from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.policy_directory import policy_directory, weights_fingerprint
from pixio_robot.cli.settings import RunSettings
from pixio_robot.cli.stages.stage import Stage, run_stage
from pixio_robot.data.demos.store import EPISODES
from pixio_robot.errors import UserError
from pixio_robot.fields import number
from pixio_robot.files import write_json


@dataclass(kw_only=True)
class CollectCommand(CollectConfig, RunSettings):
    """Record demonstrations of a scripted expert in parallel; failed episodes are dropped and counted."""

    checkpoint: str | None = None
    """Policy (output directory of `train`) that now and then takes over, for 10 to 60 steps, and from whose states the
    expert then goes on (DAgger by stretches; Ross et al. 2011). The expert's own action is recorded."""
    takeovers: float = number(0.02, above=0, at_most=1)
    """Probability per step that the policy `checkpoint` takes over."""
    env: EnvConfig = field(default_factory=EnvConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint is not None and self.env.engine is Engine.WARP:
            raise UserError("A policy that takes over (checkpoint=) needs env.engine=mujoco.")


def _load_takeovers(command: CollectCommand) -> Takeovers | None:
    """Raises UserError if the policy cannot act in the environment."""
    if command.checkpoint is None:
        return None
    from pixio_robot.cli.evaluation_target import finished_policy
    from pixio_robot.cli.fitting_settings import suggest_settings
    from pixio_robot.evaluation.evaluate import check_spec
    from pixio_robot.evaluation.name_mapping import NameMappingConfig
    from policies.player import actor_of

    target = finished_policy(command.checkpoint, command.checkpoint)
    env_spec = make_env_spec(command.env)
    spec = target.spec_for_task(env_spec.task)
    assert spec is not None  # only random actions have none
    hint = suggest_settings(spec, command.env, NameMappingConfig(), target.tasks) if spec.differences(env_spec) else ""
    check_spec(spec, env_spec, hint)
    directory = policy_directory(command.checkpoint)
    load = functools.partial(actor_of, directory, task=env_spec.task)
    return Takeovers(load, weights_fingerprint(directory), command.takeovers)


def _collect(command: CollectCommand) -> bool:
    report = collect(command.env, command, _load_takeovers(command))
    out = Path(report.out)
    summary = {
        "task": report.spec.task,
        "episodes": report.kept,
        "failed_and_dropped": report.failed,
        "first_seed": min(report.seeds),
        "last_seed": max(report.seeds),
        "failed_seeds": report.failed_seeds,
        "cameras": {name: f"{c.height} x {c.width} px" for name, c in report.spec.cameras.items()},
        "source": report.spec.source,
    }
    write_json(out.with_name(f"{out.name}_report.json"), summary)
    print(
        f"collect: {report.kept} demonstrations of {report.spec.task} in {out}; {report.failed} failed and were dropped"
    )
    return True


def _holds_an_episode(out: Path) -> bool:
    """Until this is true the earlier store is kept: a simulator may fail when it is first stepped."""
    return any(out.glob(f"{EPISODES}/[0-9]*"))


def _run(command: CollectCommand) -> int:
    inputs = {} if command.checkpoint is None else {"checkpoint": str(policy_directory(command.checkpoint))}
    stage = Stage(
        "collect",
        command.out,
        command,
        inputs,
        overwrite=command.overwrite,
        has_begun=_holds_an_episode,
        may_grow=("episodes",),
        grows_in_place=True,
    )
    return run_stage(stage, lambda: _collect(command))


def main(arguments: list[str]) -> int:
    return run_command_line("collect", CollectCommand, _run, arguments)
