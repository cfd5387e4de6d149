"""`pixio-robot collect`: record demonstrations of a scripted expert to a Zarr store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from envs.config import EnvConfig
from envs.recording.collect import CollectConfig, collect
from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.settings import RunSettings
from pixio_robot.cli.stages.stage import Stage, run_stage
from pixio_robot.data.demos.store import EPISODES
from pixio_robot.files import write_json


@dataclass(kw_only=True)
class CollectCommand(CollectConfig, RunSettings):
    """Record demonstrations of a scripted expert in parallel; failed episodes are dropped and counted."""

    env: EnvConfig = field(default_factory=EnvConfig)


def _collect(command: CollectCommand) -> bool:
    report = collect(command.env, command)
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
    stage = Stage(
        "collect",
        command.out,
        command,
        overwrite=command.overwrite,
        has_begun=_holds_an_episode,
        may_grow=("episodes",),
        grows_in_place=True,
    )
    return run_stage(stage, lambda: _collect(command))


def main(arguments: list[str]) -> int:
    return run_command_line("collect", CollectCommand, _run, arguments)
