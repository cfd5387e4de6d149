"""What pretraining and distillation share: training on images alone, from settings to the `Job`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.data.images.batches import PixelBatch
from pixio_robot.fields import check_fields, number
from pixio_robot.machine import to_device
from pixio_robot.training.device import pick_device
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.distributed.strategy import distribute_frozen_model, distribute_model, gather_full_state_dict
from pixio_robot.training.images.data import ImageData, open_image_data
from pixio_robot.training.images.hooks import ValidationLoss
from pixio_robot.training.job import Hook, Job
from pixio_robot.training.loop import LoopConfig, fit
from pixio_robot.training.optim import OptimConfig, parameter_groups
from pixio_robot.training.run_record import FitResult
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weight_init import Weights


@dataclasses.dataclass(kw_only=True)
class ImageTrainingConfig:
    """Base of the settings; a subclass adds the model, `optim` and the validation interval."""

    data: list[str]
    """Directories of frame shards and demonstration stores."""
    data_weights: list[float] | None = None
    """Relative sampling weights of the entries of `data`: [3,1] draws three images of the first for each one of the
    second; null: in proportion to their size. An entry's images are all drawn once before any is repeated."""
    selection: list[str] = dataclasses.field(default_factory=list)
    """Selections of these shards made by `pixio-robot curate`; shards without a selection are used in full."""
    out: str
    """Run directory."""
    batch_size: int = number(64, at_least=1)
    """Images per batch, over all processes."""
    image_size: int | None = None
    """Side of the random crops [px]."""
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    validation_batches: int = number(4, at_least=1)
    """Batches of held-out frames per validation loss."""
    workers: int = number(2, at_least=1)
    """Image decoding threads."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if available."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(kw_only=True)
class Teacher:
    """The encoder that `ImageModel.module` learns from, on the meta device. It is frozen and not a submodule."""

    encoder: PixioEncoder
    weights: Weights


@dataclasses.dataclass(kw_only=True)
class ImageModel:
    """What to train. `module(images, generator, shares, share)`, as in `mae.Pixio`, returns something with a `loss`."""

    title: str
    module: nn.Module
    """On the meta device, without weights."""
    weights: Weights
    """Initial weights."""
    blocks: Sequence[nn.Module]
    image_size: int
    """Side of the training crops [px]."""
    flop: float
    """FLOP of a training step per image."""
    optim: OptimConfig
    save: Callable[[Mapping[str, Tensor], Path], None]
    """Save the deployable model, given its full state; only called by the first process."""
    logged: Callable[[Any], Mapping[str, Tensor]] = lambda output: {}
    """Values of an output to log in addition to its loss."""
    unfreeze_step: Callable[[str], int] = lambda name: 0
    """Number of updates for which the named parameter stays frozen."""
    teacher: Teacher | None = None


HookFactory = Callable[[ImageData, torch.Generator, torch.autocast], Sequence[Hook]]
"""Creates the hooks of a run with these images, whose masks are drawn from the generator."""


def train_on_images(
    config: ImageTrainingConfig, model: ImageModel, validation_every: int, make_hooks: HookFactory = lambda *_: ()
) -> FitResult:
    """Train in `config.out`, resuming an existing run. The loss on held-out images, if there are any, is computed every
    `validation_every` steps. Raises UserError for invalid data and for a batch size that the processes cannot share."""
    device, loop = pick_device(config.device), config.loop
    images = open_image_data(
        config.data,
        config.selection,
        config.data_weights,
        batch_size=config.batch_size,
        image_size=model.image_size,
        seed=loop.seed,
        workers=config.workers,
    )
    try:
        return fit(_build_job(config, model, validation_every, make_hooks, images, device), loop, config.out)
    finally:
        images.close()


def _build_job(
    config: ImageTrainingConfig,
    model: ImageModel,
    validation_every: int,
    make_hooks: HookFactory,
    images: ImageData,
    device: torch.device,
) -> Job:
    processes, loop = current_processes(), config.loop
    dtype = loop.precision(device)
    distributed_model = distribute_model(
        model.module, model.blocks, loop.parallel, device, loop.compile, dtype, model.weights
    )
    if (teacher := model.teacher) is not None:
        encoder = teacher.encoder
        distribute_frozen_model(
            encoder, encoder.vit.blocks, loop.parallel, device, dtype, teacher.weights, "intermediate"
        )
    generator, autocast = torch.Generator(device), loop.autocast(device)
    hooks = list(make_hooks(images, generator, autocast))
    if images.validation is not None:
        validate = ValidationLoss(
            model.module, generator, images.validation, count=config.validation_batches, autocast=autocast
        )
        hooks.append(Hook(every=validation_every, call=validate))

    def step(batch: PixelBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        images_bhw3 = to_device(batch.images, device)
        output = distributed_model.module(images_bhw3, generator, processes.world_size, processes.rank)
        return output.loss, model.logged(output)

    def save_model(directory: Path) -> None:
        weights = gather_full_state_dict(model.module.state_dict())
        if processes.is_main:
            model.save(weights, directory)

    return Job(
        title=model.title,
        model=model.module,
        device=device,
        batches=images.batches,
        batch_size=config.batch_size,
        step=step,
        groups=parameter_groups(model.module, unfreeze_step=model.unfreeze_step),
        optim=model.optim,
        save_model=save_model,
        settings=dataclasses.asdict(config),
        generators={"masks": generator},
        hooks=hooks,
        distributed_model=distributed_model,
        distinct_items=lambda: {"unreadable_images": images.batches.corrupt},
        flop_per_example=model.flop,
    )
