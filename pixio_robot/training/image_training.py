"""Training on images alone, which pretraining and distillation share: their data, their processes, their job."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.data.frames import PixelBatch
from pixio_robot.errors import UserError
from pixio_robot.machine import to_device
from pixio_robot.training.device import pick_device
from pixio_robot.training.distributed import current
from pixio_robot.training.image_data import ImageData, open_image_data
from pixio_robot.training.job import Hook, Job
from pixio_robot.training.looks import ValidationLoss
from pixio_robot.training.loop import LoopConfig, fit
from pixio_robot.training.optim import OptimConfig, parameter_groups
from pixio_robot.training.record import FitResult
from pixio_robot.training.settings import defaults
from pixio_robot.training.spreading import spread, spread_frozen, whole_on_cpu
from pixio_robot.vision.initial import Weights
from pixio_robot.vision.pixio import PixioEncoder


@dataclasses.dataclass(kw_only=True)
class ImageTrainingConfig:
    """A subclass adds the model, `optim`, and how often it is looked at."""

    data: list[str]
    """Folders of frame shards and demonstration stores."""
    data_weights: list[float] | None = None
    """How often each of `data` is drawn, in any scale: [3,1] shows three images of the first for one of the second;
    null: by their numbers of images. Each goes on through its own images, all of them before any comes again."""
    selection: list[str] = dataclasses.field(default_factory=list)
    """What `pixio-robot curate` chose of those shards; shards without a selection are shown whole."""
    out: str
    """Run directory."""
    batch_size: int = 64
    """Images of all processes together."""
    image_size: int | None = None
    """Side of the random crops [px]."""
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    validation_batches: int = 4
    """Batches of held-out frames of each validation loss."""
    workers: int = 2
    """Threads that decode images."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""

    def __post_init__(self) -> None:
        self._at_least_1("batch_size", "validation_batches", "workers")

    def _at_least_1(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1.")


@dataclasses.dataclass(kw_only=True)
class Teacher:
    """An encoder that `ImageModel.module` learns from, made without weights. It stays as it is, and is no part of the
    module."""

    encoder: PixioEncoder
    weights: Weights


@dataclasses.dataclass(kw_only=True)
class ImageModel:
    """What learns. `module(images, generator, shares, share)`, as of `mae.Pixio`, gives an output with a `loss`."""

    title: str
    module: nn.Module
    """Made without weights."""
    weights: Weights
    """Those to begin with."""
    blocks: Sequence[nn.Module]
    image_size: int
    """Of the crops that it is shown [px]."""
    flop: float
    """Of a training step, of one image."""
    optim: OptimConfig
    save: Callable[[Mapping[str, Tensor], Path], None]
    """Write the deployable model of this whole state; only the first process calls it."""
    logged: Callable[[Any], Mapping[str, Tensor]] = lambda output: {}
    """What is logged of an output, beside its loss."""
    begins: Callable[[str], int] = lambda name: 0
    """Updates for which the parameter of that name stays as it is."""
    teacher: Teacher | None = None


Looks = Callable[[ImageData, torch.Generator, torch.autocast], Sequence[Hook]]
"""Hooks on a run with these images, whose masks are drawn from that generator."""


def train_on_images(
    config: ImageTrainingConfig, model: ImageModel, look_every: int, looks: Looks = lambda *_: ()
) -> FitResult:
    """Train in `config.out`, continuing what is there. The loss on held-out images, where there are any, is looked at
    every `look_every` steps. Raises UserError for data that is none, and a batch that cannot be shared."""
    device, loop = pick_device(config.device), config.loop
    images = open_image_data(
        config.data,
        config.selection,
        config.data_weights,
        batch_size=config.batch_size,
        image_size=model.image_size,
        seed=loop.seed,
        workers=config.workers,
        device=device,
    )
    try:
        return fit(_job(config, model, look_every, looks, images, device), loop, config.out)
    finally:
        images.close()


def _job(
    config: ImageTrainingConfig,
    model: ImageModel,
    look_every: int,
    looks: Looks,
    images: ImageData,
    device: torch.device,
) -> Job:
    processes, loop = current(), config.loop
    dtype = loop.precision(device)
    spread_model = spread(model.module, model.blocks, loop.parallel, device, loop.compile, dtype, model.weights)
    if (teacher := model.teacher) is not None:
        encoder = teacher.encoder
        spread_frozen(encoder, encoder.vit.blocks, loop.parallel, device, dtype, teacher.weights, "intermediate")
    generator, autocast = torch.Generator(device), loop.autocast(device)
    hooks = list(looks(images, generator, autocast))
    if images.validation is not None:
        look = ValidationLoss(
            model.module, generator, images.validation, count=config.validation_batches, autocast=autocast
        )
        hooks.append(Hook(every=look_every, call=look))

    def step(batch: PixelBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        images_bhw3 = to_device(batch.images, device)
        output = spread_model.module(images_bhw3, generator, processes.count, processes.rank)
        return output.loss, model.logged(output)

    def save_model(directory: Path) -> None:
        weights = whole_on_cpu(model.module.state_dict())
        if processes.first:
            model.save(weights, directory)

    return Job(
        title=model.title,
        model=model.module,
        device=device,
        batches=images.batches,
        batch_size=config.batch_size,
        step=step,
        groups=parameter_groups(model.module, begins=model.begins),
        optim=model.optim,
        save_model=save_model,
        settings=dataclasses.asdict(config),
        unsaid=defaults(config),
        generators={"masks": generator},
        hooks=hooks,
        spread=spread_model,
        found=lambda: {"unreadable_images": images.batches.corrupt},
        flop_per_example=model.flop,
    )
