"""`pixio-robot pretrain`: a Pixio learns to see from shards of frames and from demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

from pixio_robot.cli.compose import run
from pixio_robot.cli.stages import run_stage
from pixio_robot.training.pretrain import PretrainConfig, pretrain


@dataclass(kw_only=True)
class PretrainCommand(PretrainConfig):
    """Masked autoencoding (Pixio, arXiv 2512.15715): hide blocks of patches, predict their pixels."""

    run: str = "runs/default"
    overwrite: bool = False


def _pretrain(command: PretrainCommand) -> bool:
    result = pretrain(command)
    if not result.interrupted:
        loss = result.metrics.get("validation_loss", result.metrics["loss"])
        print(f"pretrain: {result.steps} steps in {result.seconds:.0f} s, loss {loss:.3f} -> {command.out}/model")
    return not result.interrupted


def _run(command: PretrainCommand) -> int:
    inputs = [*command.data, *([command.initial_weights] if command.initial_weights else [])]
    return run_stage(
        "pretrain", command.out, command, lambda: _pretrain(command), inputs=inputs, overwrite=command.overwrite
    )


def main(arguments: list[str]) -> int:
    return run("pretrain", PretrainCommand, _run, arguments)
