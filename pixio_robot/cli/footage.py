"""`pixio-robot footage`: record egocentric video of the simulated robot, expert and random motion."""

from __future__ import annotations

from dataclasses import dataclass, field

from envs.config import EnvConfig
from envs.recording.footage import FootageConfig, record_footage
from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.settings import RunSettings
from pixio_robot.cli.stages.stage import Stage, run_stage


@dataclass(kw_only=True)
class FootageCommand(FootageConfig, RunSettings):
    """Record mp4 videos from the moving hand camera (and the fixed front one), as a stand-in for your own footage."""

    env: EnvConfig = field(default_factory=EnvConfig)


def _footage(command: FootageCommand) -> bool:
    report = record_footage(command.env, command)
    print(f"footage: {len(report.videos)} videos, {report.frames} frames in {report.out}")
    return True


def _run(command: FootageCommand) -> int:
    stage = Stage("footage", command.out, command, overwrite=command.overwrite)
    return run_stage(stage, lambda: _footage(command))


def main(arguments: list[str]) -> int:
    return run_command_line("footage", FootageCommand, _run, arguments)
