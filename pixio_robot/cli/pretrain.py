"""`pixio-robot pretrain`: pretrain a Pixio encoder on shards of frames and on demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.settings import StageSettings
from pixio_robot.cli.stages.training_stage import run_training
from pixio_robot.data.curation.curate import CurateConfig
from pixio_robot.data.curation.selection import SELECTION
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.pretrain import PretrainConfig, pretrain
from pixio_robot.training.run_record import FitResult


@dataclass(kw_only=True)
class PretrainCommand(PretrainConfig, StageSettings):
    """Pretrain an encoder by masked autoencoding (Pixio, arXiv 2512.15715): predict pixels of masked patch blocks."""

    seed: int = 0
    """Seed of the initial weights, the order of images, crops and masks."""


def _run(command: PretrainCommand) -> int:
    def describe_result(result: FitResult) -> str:
        loss = result.metrics.get("validation_loss", result.metrics["loss"])
        return f"pretrain: {result.steps} steps in {result.seconds:.0f} s, loss {loss:.3f} -> {command.out}/model"

    def train() -> FitResult:
        for data in [] if command.selection else command.data:
            curation = CurateConfig(data=data).output_directory()
            if current_processes().is_main and (curation / SELECTION).is_file():
                print(f"pretrain: using all of {data}; to use only what `curate` selected, set selection=[{curation}]")
        return pretrain(command)

    inputs: dict[str, str | list[str]] = {"data": command.data, "selection": command.selection}
    if command.initial_weights:
        inputs["initial_weights"] = command.initial_weights
    return run_training("pretrain", command, train, describe_result, inputs=inputs)


def main(arguments: list[str]) -> int:
    return run_command_line("pretrain", PretrainCommand, _run, arguments)
