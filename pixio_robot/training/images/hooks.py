"""Hooks of a pretraining run: reconstructions of fixed images, and the loss on held-out ones.

Shapes: b batch, h height, w width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixio_robot.data.images.batches import PixelBatches
from pixio_robot.data.images.sources import ImageSource
from pixio_robot.files import atomic_file
from pixio_robot.machine import to_device
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.vision.mae import Pixio

SEED = 0
"""Images, crops and masks are the same at every call and in every run."""


class ReconstructionPanels:
    """Masked, predicted and original, one image per row: `<directory>/step_XXXXXXXX.png`, and in the logs."""

    def __init__(
        self,
        model: Pixio,
        generator: torch.Generator,
        source: ImageSource,
        *,
        count: int,
        image_size: int,
        autocast: torch.autocast,
        directory: Path,
    ) -> None:
        self.model, self.generator, self.autocast, self.directory = model, generator, autocast, directory
        # The largest central square of each image, not a random crop.
        full = (1.0, 1.0)
        count = min(count, len(source))
        with PixelBatches(source, count, image_size, SEED, workers=1, scale=full, ratio=full) as images:
            self.images_bhw3 = next(images).images.to(generator.device)

    def __call__(self, step: int) -> dict[str, Any]:
        import imageio.v3 as imageio

        self.generator.manual_seed(SEED)
        with self.autocast:
            panels_hw3 = self.model.panels(self.images_bhw3, self.generator).flatten(0, 1).cpu().numpy()
        if current_processes().is_main:
            with atomic_file(self.directory / f"step_{step:08d}.png") as temporary:
                imageio.imwrite(temporary, panels_hw3)
        return {"panels": panels_hw3}


class ValidationLoss:
    """Loss on the first `count` of `batches`, which are the same at every call and for any number of processes."""

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator,
        batches: PixelBatches,
        *,
        count: int,
        autocast: torch.autocast,
    ) -> None:
        """`model(images, generator, shares, share)` must return an object with a `loss`."""
        self.model, self.generator, self.batches, self.count, self.autocast = model, generator, batches, count, autocast
        self.beginning = batches.state_dict()

    def __call__(self, step: int) -> dict[str, float]:
        self.generator.manual_seed(SEED)
        self.batches.load_state_dict(self.beginning)
        losses = []
        for _ in range(self.count):
            images_bhw3 = to_device(next(self.batches).images, self.generator.device)
            with self.autocast:
                output = self.model(images_bhw3, self.generator, self.batches.world_size, self.batches.rank)
            losses.append(output.loss)
        return {"validation_loss": current_processes().all_reduce_mean(torch.stack(losses).mean()).item()}
