"""Distillation: train small encoders to reproduce the features of a large one (vision/distill.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.fields import number
from pixio_robot.training.images.training import ImageModel, ImageTrainingConfig, Teacher, train_on_images
from pixio_robot.training.optim import OptimConfig
from pixio_robot.training.run_record import FitResult
from pixio_robot.vision.distill import Distillation, StudentConfig
from pixio_robot.vision.flops import distillation_flop
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weights.formats import open_pixio_weights


def _default_optim() -> OptimConfig:
    # As published (arXiv 2512.15715): betas and weight decay as in pretraining, a learning rate for batches of 8192.
    return OptimConfig(lr=1e-3, betas=[0.9, 0.95], weight_decay=0.05)


@dataclasses.dataclass(kw_only=True)
class DistillConfig(ImageTrainingConfig):
    teacher: str
    """Pixio encoder to learn from: a pixio-robot or Hugging Face directory, an official `.pth` file, or a hub name."""
    out: str
    """Run directory, for `model/NAME` (the encoder of each student), metrics and checkpoints."""
    image_size: int | None = None
    """Side of the random crops [px]; None: the teacher's `resize`, or else its `image_size`."""
    students: list[StudentConfig] = dataclasses.field(default_factory=list)
    """List of students, such as students=[{encoder: {size: small}, mask: {ratio: 0.5}}]. They share the teacher's
    forward pass and gradient clipping, nothing else."""
    optim: OptimConfig = dataclasses.field(default_factory=_default_optim)
    """AdamW with linear warm-up and cosine decay; betas and weight decay as in pretraining. Unlike there, `lr` is not
    scaled with the batch size. The default is for batches of 8192; use a lower one for smaller batches."""
    validation_every: int = number(500, at_least=1)
    """Steps between validation losses on held-out frames, if there is a validation split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.students:
            raise UserError("students is empty; set at least one, such as students=[{encoder: {size: small}}].")


def distill(config: DistillConfig) -> FitResult:
    """Train in `config.out`, resuming an existing run. Raises UserError for data, weights or sizes that do not fit."""
    trained = open_pixio_weights(config.teacher)
    teacher = PixioEncoder(trained.config, seed=None)
    image_size = config.image_size or teacher.config.resize or teacher.config.image_size
    model = Distillation(teacher, config.students, seed=None)
    model.check(image_size)

    def save(weights: Mapping[str, Tensor], directory: Path) -> None:
        whole = Distillation(teacher, config.students, seed=None)
        whole.load_state_dict(weights, assign=True)
        for name, student in whole.students.items():
            student.encoder.save(directory / name)  # type: ignore[union-attr]

    learner = ImageModel(
        title="distill",
        module=model,
        weights=model.random_weights(config.loop.seed),
        blocks=[block for student in model.students.values() for block in student.encoder.vit.blocks],  # type: ignore[union-attr]
        image_size=image_size,
        flop=distillation_flop(teacher.config, config.students, image_size),
        optim=config.optim,
        save=save,
        logged=lambda output: {f"loss/{name}": loss.detach() for name, loss in output.losses.items()},
        teacher=Teacher(encoder=teacher, weights=trained.weights.items()),
    )
    return train_on_images(config, learner, config.validation_every)
