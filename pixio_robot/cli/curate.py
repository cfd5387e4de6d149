"""`pixio-robot curate`: which frames are worth learning from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.settings import RunSettings
from pixio_robot.cli.stages.stage import Stage, run_stage
from pixio_robot.data.curation.curate import REPORT, CurateConfig, curate
from pixio_robot.data.curation.score_columns import ScoreColumn
from pixio_robot.data.curation.score_texts import REASON_TEXTS
from pixio_robot.errors import UserError
from pixio_robot.vision.build import EncoderKind, EncoderSource


@dataclass(kw_only=True)
class CurateCommand(CurateConfig, RunSettings):
    """Score, filter, deduplicate and weight the frames of an ingest; the shards themselves stay as they are.

    null switches a rule off. The report `curation.html` shows the effect of each threshold on your own frames.
    """

    pixio: str | None = None
    """Pixio model with its decoder, pretrained on the raw frames; its loss drives soft sampling. The pretraining run's
    directory, or the `mae` directory in it."""
    mae_masks: int = 4
    """Random masks per frame; the loss is averaged over them."""
    encoder: EncoderSource = field(default_factory=lambda: EncoderSource(kind=EncoderKind.NONE))
    """Encoder whose embeddings are compared to find duplicate frames across videos."""
    embedding_size: int = 256
    """Side of the square image that this encoder is given, in pixels."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto` (a GPU if there is one)."""
    gpus: float = 0.0
    """GPUs (or a fraction of one) that each model worker reserves on a Ray cluster; 0 runs the models on its CPUs."""
    overwrite: bool = False
    """Start over instead of updating an existing result at `out`."""


def _score_columns(command: CurateCommand) -> list[ScoreColumn]:
    if command.pixio is None and command.encoder.kind is EncoderKind.NONE:
        return []
    from pixio_robot.training.images.frame_scores import embedding_column, mae_loss_column

    columns, where = [], (command.device, command.gpus, command.executor)
    if command.pixio is not None:
        columns.append(mae_loss_column(str(_find_mae_model(Path(command.pixio))), command.mae_masks, *where))
    embedding = embedding_column(command.encoder, command.embedding_size, *where)
    return columns if embedding is None else [*columns, embedding]


def _find_mae_model(path: Path) -> Path:
    """Path of the Pixio model with its decoder: `path` itself, or the model inside a pretraining run at `path`. Raises
    UserError if `path` is the exported encoder alone."""
    from pixio_robot.training.pretrain import WHOLE_MODEL
    from pixio_robot.vision.mae import Pixio

    if Pixio.is_saved_at(path / WHOLE_MODEL):
        return path / WHOLE_MODEL
    if not Pixio.is_saved_at(path) and Pixio.is_saved_at(beside := path.with_name(WHOLE_MODEL)):
        raise UserError(f"pixio={path} holds the encoder alone; the loss also needs the decoder: use pixio={beside}.")
    return path


def _curate(command: CurateCommand) -> bool:
    device = "cpu"
    models = _score_columns(command)
    if any(model.name == "embedding" for model in models):
        from pixio_robot.training.device import pick_device

        device = str(pick_device(command.device))
    report = curate(command, models, device=device)
    state = "kept" if report.changed else "is up to date: kept"
    print(f"curate: {state} {report.kept} of {report.frames} frames in {report.out}")
    for reason, text in REASON_TEXTS.items():
        if report.dropped[reason.name.lower()]:
            print(f"curate: {report.dropped[reason.name.lower()]:>8} {text}")
    if command.pixio is not None or command.sidecars is not None:
        print(f"curate: an epoch sees {report.expected_epoch_frames:.0f} frames on average")
    if report.kept == 0:
        print("curate: nothing is left to train on; look at the thresholds in the report")
    print(f"curate: {report.out / REPORT}")
    return True


def _run(command: CurateCommand) -> int:
    # Computed scores stay valid when a threshold changes, so `curate` itself decides what is left to do.
    named = {"data": command.data, "pixio": command.pixio, "sidecars": command.sidecars}
    named["encoder.path"] = command.encoder.path
    inputs = {name: path for name, path in named.items() if path}
    out = str(command.output_directory())
    stage = Stage("curate", out, command, inputs, overwrite=command.overwrite, always=True)
    return run_stage(stage, lambda: _curate(command))


def main(arguments: list[str]) -> int:
    return run_command_line("curate", CurateCommand, _run, arguments)
