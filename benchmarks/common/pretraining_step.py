"""Pixio's training step, and that of transformers' ViTMAE of the same shape, to be timed by the scripts beside this.

A step is forward, backward and AdamW on uint8 images that are on the device already; both normalise them there.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from common.training_loop import Step, make_training_step
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.preprocessing import Preprocess


@dataclasses.dataclass(frozen=True)
class Shape:
    """One model and the images of one step."""

    size: str
    image_size: int
    batch: int
    decoder_width: int
    decoder_depth: int
    recompute: bool = False
    bfloat16: bool = False
    """On a CPU, too."""

    @property
    def encoder(self) -> EncoderConfig:
        return EncoderConfig(size=self.size, image_size=self.image_size, recompute=self.recompute)

    @property
    def decoder(self) -> DecoderConfig:
        heads = self.decoder_width // 32
        return DecoderConfig(width=self.decoder_width, depth=self.decoder_depth, heads=heads, recompute=self.recompute)

    @property
    def mask(self) -> MaskConfig:
        return MaskConfig(block=4)


def images_of(shape: Shape, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    side = shape.image_size
    return torch.randint(0, 256, (shape.batch, side, side, 3), generator=generator, dtype=torch.uint8).to(device)


def build_pixio(shape: Shape, device: torch.device) -> Pixio:
    return Pixio(PixioEncoder(shape.encoder), shape.decoder, shape.mask).train().to(device)


def pixio_step(shape: Shape, device: torch.device, compiled: bool) -> Step:
    model, images_bhw3 = build_pixio(shape, device), images_of(shape, device)
    if compiled:
        model.compile()
    generator = torch.Generator(device).manual_seed(0)
    return make_training_step(model, lambda: model(images_bhw3, generator).loss, device, bfloat16=shape.bfloat16)


def vitmae_step(shape: Shape, device: torch.device) -> Step:
    """The same blocks and share of visible patches; it has one class token where Pixio has eight."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    encoder, decoder = shape.encoder, shape.decoder
    config = ViTMAEConfig(
        hidden_size=encoder.width,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads,
        intermediate_size=4 * encoder.width,
        image_size=shape.image_size,
        patch_size=encoder.patch,
        decoder_num_attention_heads=decoder.heads,
        decoder_hidden_size=decoder.width,
        decoder_num_hidden_layers=decoder.depth,
        decoder_intermediate_size=4 * decoder.width,
        mask_ratio=shape.mask.ratio,
        norm_pix_loss=True,
    )
    config._attn_implementation = "sdpa"
    model = ViTMAEForPreTraining(config).train().to(device)
    preprocess, images_bhw3 = Preprocess().to(device), images_of(shape, device)
    return make_training_step(
        model, lambda: model(pixel_values=preprocess(images_bhw3)).loss, device, bfloat16=shape.bfloat16
    )
