"""`pixio-robot distill`: distil a trained encoder into smaller ones."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.settings import StageSettings
from pixio_robot.cli.stages.training_stage import run_training
from pixio_robot.training.distill import DistillConfig, distill
from pixio_robot.training.run_record import FitResult


@dataclass(kw_only=True)
class DistillCommand(DistillConfig, StageSettings):
    """Train one or more student encoders to predict the tokens of a trained Pixio encoder (Pixio, arXiv 2512.15715)."""

    teacher: str = MISSING
    """Pixio encoder: a pixio-robot or Hugging Face directory, an official `.pth` file, or a hub name."""
    seed: int = 0
    """Seed of the initial weights, the order of images, crops and masks."""


def _run(command: DistillCommand) -> int:
    def describe_result(result: FitResult) -> str:
        loss = result.metrics.get("validation_loss", result.metrics["loss"])
        return (
            f"distill: {result.steps} steps in {result.seconds:.0f} s, loss {loss:.3f} over "
            f"{len(command.students)} students -> {command.out}/model"
        )

    inputs = {"data": command.data, "selection": command.selection, "teacher": command.teacher}
    return run_training("distill", command, lambda: distill(command), describe_result, inputs=inputs)


def main(arguments: list[str]) -> int:
    return run_command_line("distill", DistillCommand, _run, arguments)
