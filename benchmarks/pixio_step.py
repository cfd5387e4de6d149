"""Pixio's training step, and that of transformers' ViTMAE of the same shape, to be timed by the scripts beside this.

A step is forward, backward and AdamW on uint8 images that are on the device already; both normalise them there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from provenance import provenance as provenance_of
from provenance import torch_device
from torch import Tensor, nn

from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.preprocessing import Preprocess

Step = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Shape:
    """One model and the images of one step."""

    size: str
    image_size: int
    batch: int
    decoder_width: int
    decoder_depth: int
    recompute: bool = False

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


def stepper(model: nn.Module, loss_of: Callable[[], Tensor], device: torch.device) -> Step:
    """One update a call: bfloat16 autocast and fused AdamW on a GPU, float32 on a CPU."""
    on_gpu = device.type == "cuda"
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=on_gpu)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = loss_of()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def build_pixio(shape: Shape, device: torch.device) -> Pixio:
    return Pixio(PixioEncoder(shape.encoder), shape.decoder, shape.mask).train().to(device)


def pixio_step(shape: Shape, device: torch.device, compiled: bool) -> Step:
    model, images_bhw3 = build_pixio(shape, device), images_of(shape, device)
    if compiled:
        model.compile()
    generator = torch.Generator(device).manual_seed(0)
    return stepper(model, lambda: model(images_bhw3, generator).loss, device)


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
    return stepper(model, lambda: model(pixel_values=preprocess(images_bhw3)).loss, device)


def timed(step: Step, device: torch.device) -> float:
    """Seconds, with everything that the device still had to do; on a CPU its own seconds, shared among the threads, so
    that they mean the same on a busy machine."""
    if device.type == "cpu":
        began = time.process_time()
        step()
        return (time.process_time() - began) / torch.get_num_threads()
    torch.cuda.synchronize()  # what is still queued is not this step's
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_memory(steps: Callable[[], None], device: torch.device) -> float:
    """The largest memory while `steps` run [MiB]: allocated by torch on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        steps()
        return torch.cuda.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    steps()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def provenance(device: torch.device) -> dict[str, Any]:
    return provenance_of({package: version(package) for package in ("torch", "transformers")}, torch_device(device))
