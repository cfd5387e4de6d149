"""Distillation: small encoders learn what a large one makes of images (vision/distill.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.data.frames import PixelBatch
from pixio_robot.errors import UserError
from pixio_robot.machine import to_device
from pixio_robot.training.device import pick_device
from pixio_robot.training.distributed import current
from pixio_robot.training.image_data import open_image_data
from pixio_robot.training.job import Hook, Job
from pixio_robot.training.looks import ValidationLoss
from pixio_robot.training.loop import LoopConfig, fit
from pixio_robot.training.optim import OptimConfig, parameter_groups
from pixio_robot.training.record import FitResult
from pixio_robot.training.spreading import spread, whole_on_cpu
from pixio_robot.vision.distill import Distillation, StudentConfig
from pixio_robot.vision.flops import distillation_flop
from pixio_robot.vision.weights.formats import read_any


def _optim() -> OptimConfig:
    # Betas and decay as in pretraining; the rate is for batches of 8192 (pixio.md, Distillation).
    return OptimConfig(lr=1e-3, betas=[0.9, 0.95], weight_decay=0.05)


@dataclasses.dataclass(kw_only=True)
class DistillConfig:
    data: list[str]
    """Folders of frame shards and demonstration stores."""
    selection: list[str] = dataclasses.field(default_factory=list)
    """What `pixio-robot curate` chose of those shards; shards without a selection are shown whole."""
    teacher: str
    """A Pixio encoder: a directory of ours or of Hugging Face, an official `.pth` file, or a hub name."""
    out: str
    """Run directory: `model/NAME` (the encoder of each student), metrics, checkpoints."""
    students: list[StudentConfig] = dataclasses.field(default_factory=list)
    """A list, such as students=[{encoder: {size: small}, mask: {ratio: 0.5}}]. They share the teacher's pass and the
    gradient's clipping, nothing else."""
    batch_size: int = 64
    """Images of all processes together."""
    image_size: int | None = None
    """Side of the random crops [px]; None: what the teacher resizes to, else its own size."""
    optim: OptimConfig = dataclasses.field(default_factory=_optim)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    validation_every: int = 500
    """Steps between losses on held-out frames, where there is a validation split."""
    validation_batches: int = 4
    """Batches of held-out frames of each such loss."""
    workers: int = 2
    """Threads that decode images."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "validation_every", "validation_batches", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1.")
        if not self.students:
            raise UserError("students is empty; give at least one, such as students=[{encoder: {size: small}}].")


def distill(config: DistillConfig) -> FitResult:
    """Train in `config.out`, continuing what is there. Raises UserError for data, weights or sizes that do not fit."""
    device, processes = pick_device(config.device), current()
    teacher = read_any(config.teacher).build(device)
    image_size = config.image_size or teacher.config.resize or teacher.config.image_size
    model = Distillation(teacher, config.students, seed=None)
    model.check(image_size)
    images = open_image_data(
        config.data,
        config.selection,
        batch_size=config.batch_size,
        image_size=image_size,
        seed=config.loop.seed,
        workers=config.workers,
        device=device,
    )
    blocks = [block for student in model.students.values() for block in student.encoder.vit.blocks]  # type: ignore[union-attr]
    loop = config.loop
    fresh = model.fresh(loop.seed)
    spread_model = spread(model, blocks, loop.parallel, device, loop.compile, loop.precision(device), weights=fresh)
    generator = torch.Generator(device)
    hooks = []
    if images.validation is not None:
        autocast = config.loop.autocast(device)
        look = ValidationLoss(model, generator, images.validation, count=config.validation_batches, autocast=autocast)
        hooks.append(Hook(every=config.validation_every, call=look))

    def step(batch: PixelBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        images_bhw3 = to_device(batch.images, device)
        output = spread_model.module(images_bhw3, generator, processes.count, processes.rank)
        return output.loss, {f"loss/{name}": loss.detach() for name, loss in output.losses.items()}

    def save_model(directory: Path) -> None:
        weights = whole_on_cpu(model.state_dict())
        if processes.first:
            whole = Distillation(teacher, config.students, seed=None)
            whole.load_state_dict(weights, assign=True)
            for name, student in whole.students.items():
                student.encoder.save(directory / name)  # type: ignore[union-attr]

    job = Job(
        title="distill",
        model=model,
        device=device,
        batches=images.batches,
        batch_size=config.batch_size,
        step=step,
        groups=parameter_groups(model),
        optim=config.optim,
        save_model=save_model,
        settings=dataclasses.asdict(config),
        generators={"masks": generator},
        hooks=hooks,
        spread=spread_model,
        found=lambda: {"unreadable_images": images.batches.corrupt},
        flop_per_example=distillation_flop(teacher.config, config.students, image_size),
    )
    try:
        return fit(job, config.loop, config.out)
    finally:
        images.close()
