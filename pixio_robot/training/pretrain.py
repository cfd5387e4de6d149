"""Pretraining of a Pixio on frames from videos and demonstrations."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.fields import number
from pixio_robot.training.images.data import ImageData
from pixio_robot.training.images.hooks import ReconstructionPanels
from pixio_robot.training.images.training import ImageModel, ImageTrainingConfig, train_on_images
from pixio_robot.training.job import Hook
from pixio_robot.training.optim import OptimConfig
from pixio_robot.training.run_record import FitResult
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.flops import pretraining_flop
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weight_init import Weights, add_prefix
from pixio_robot.vision.weights.formats import open_pixio_weights

WHOLE_MODEL = "mae"
PANELS = "panels"


def _default_optim() -> OptimConfig:
    # Betas and weight decay are Pixio's (arXiv 2512.15715). The base learning rate is that of MAE (He et al. 2022);
    # Pixio's own, 2.5e-5, is for batches of 8192.
    return OptimConfig(lr=1.5e-4, betas=[0.9, 0.95], weight_decay=0.05)


@dataclasses.dataclass(kw_only=True)
class PretrainConfig(ImageTrainingConfig):
    out: str
    """Run directory, for `model/` (encoder), `mae/` (encoder and decoder), metrics, panels and checkpoints."""
    image_size: int | None = None
    """Side of the random crops [px]; None: the encoder's `resize`, or else its `image_size`."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    decoder: DecoderConfig = dataclasses.field(default_factory=DecoderConfig)
    mask: MaskConfig = dataclasses.field(default_factory=MaskConfig)
    pixel_normalisation: bool = True
    """Normalise the target pixels of each patch by their mean and standard deviation, as published."""
    initial_weights: str | None = None
    """Weights to start from: a Pixio checkpoint with encoder and decoder, or its run directory; or an encoder alone,
    with a freshly initialised decoder: anything `PixioEncoder.from_pretrained` opens, such as an official `.pth` file
    or a hub name."""
    encoder_begins: int = number(0, at_least=0)
    """Updates for which the encoder stays frozen, so that a fresh decoder cannot spoil it."""
    optim: OptimConfig = dataclasses.field(default_factory=_default_optim)
    """AdamW with linear warm-up and cosine decay. `lr` and `final_lr` are for 256 images per update and are scaled
    linearly with their number."""
    panels_every: int = number(500, at_least=1)
    """Steps between reconstructions of fixed images and, with a validation split, validation losses."""
    panel_images: int = number(6, at_least=1)
    """Number of images to reconstruct."""

    @property
    def crop_size(self) -> int:
        return self.image_size or self.encoder.resize or self.encoder.image_size


def pretrain(config: PretrainConfig) -> FitResult:
    """Train in `config.out`, resuming an existing run. Raises UserError for data, weights or sizes that do not fit."""
    model, weights = build_pixio(config)
    model.encoder.grid(config.crop_size, config.crop_size)  # rejects a size that does not fit before reading any data

    def save(weights: Mapping[str, Tensor], directory: Path) -> None:
        whole = _build_on_meta_device(config)
        whole.load_state_dict(weights, assign=True)
        whole.save(directory.with_name(WHOLE_MODEL))
        whole.encoder.save(directory)

    def make_hooks(images: ImageData, generator: torch.Generator, autocast: torch.autocast) -> list[Hook]:
        panels = ReconstructionPanels(
            model,
            generator,
            images.held_out or images.train,
            count=config.panel_images,
            image_size=config.crop_size,
            autocast=autocast,
            directory=Path(config.out) / PANELS,
        )
        return [Hook(every=config.panels_every, call=panels)]

    learner = ImageModel(
        title="pretrain",
        module=model,
        weights=weights,
        blocks=[*model.encoder.vit.blocks, *model.decoder.blocks],
        image_size=config.crop_size,
        flop=pretraining_flop(config.encoder, config.decoder, config.mask, config.crop_size),
        optim=scale_lr_to_batch(config.optim, config.batch_size * config.loop.accumulate),
        save=save,
        unfreeze_step=lambda name: config.encoder_begins if name.startswith("encoder.") else 0,
    )
    return train_on_images(config, learner, config.panels_every, make_hooks)


def scale_lr_to_batch(optim: OptimConfig, images: int) -> OptimConfig:
    """lr = base_lr * batch / 256, as in Pixio and MAE."""
    return dataclasses.replace(optim, lr=optim.lr * images / 256, final_lr=optim.final_lr * images / 256)


def build_pixio(config: PretrainConfig) -> tuple[Pixio, Weights]:
    """The model on the meta device and its weights, fresh or from `initial_weights`, as an iterable to consume once.

    Raises UserError if `initial_weights` belong to a model of another shape.
    """
    model, source = _build_on_meta_device(config), config.initial_weights
    if source is None:
        return model, model.random_weights(config.loop.seed)
    if Pixio.is_saved_at(Path(source) / WHOLE_MODEL):
        source = str(Path(source) / WHOLE_MODEL)
    if Pixio.is_saved_at(source):
        earlier, weights = Pixio.read(source)
        _check_same_encoder(source, earlier.encoder.config, config)
        _check_same_shape("decoder", source, earlier.decoder_config, config.decoder, ("width", "depth", "heads"))
        return model, weights.items()
    trained = open_pixio_weights(source)
    _check_same_encoder(source, trained.config, config)
    decoder = add_prefix("decoder.", model.decoder.random_weights(config.loop.seed))
    return model, itertools.chain(add_prefix("encoder.", trained.weights.items()), decoder)


def _build_on_meta_device(config: PretrainConfig) -> Pixio:
    encoder = PixioEncoder(config.encoder, seed=None)
    return Pixio(encoder, config.decoder, config.mask, config.pixel_normalisation, seed=None)


def _check_same_encoder(source: str, theirs: EncoderConfig, config: PretrainConfig) -> None:
    _check_same_shape("encoder", source, theirs, config.encoder, ("size", "patch", "image_size", "class_tokens"))


def _check_same_shape(part: str, source: str, theirs: Any, mine: Any, names: tuple[str, ...]) -> None:
    different = [
        f"{part}.{name}={getattr(mine, name)!r} against {getattr(theirs, name)!r}"
        for name in names
        if getattr(mine, name) != getattr(theirs, name)
    ]
    if different:
        raise UserError(
            f"initial_weights={source} were made with another {part} ({', '.join(different)}); set those to match."
        )
