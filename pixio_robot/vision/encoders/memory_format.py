"""Convolutional encoders in the memory format that is fastest on their device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pixio_robot.vision.preprocessing import Preprocess


class ConvolutionalEncoder(nn.Module):
    """Keeps kernels and images channels_last on a CPU, and contiguous on any other device.

    Only on a CPU does GroupNorm have a kernel for channels_last (torch 2.11). Elsewhere it returns contiguous maps, so
    that every norm and every convolution after it would copy its input.
    """

    preprocess: Preprocess
    stride: int

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map for images of this size [px], rounded up."""
        height, width = self.preprocess.size(height, width)
        return -(-height // self.stride), -(-width // self.stride)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConvolutionalEncoder:
        super()._apply(fn, recurse)  # every move to a device, of this module or of one around it
        self.convert_kernels()
        return self

    def convert_kernels(self) -> None:
        """Convert the kernels; call after creating them. They stay as they are where FSDP has sharded them."""
        for kernel in self.parameters():
            if kernel.ndim == 4 and not hasattr(kernel, "device_mesh"):  # which a DTensor has
                kernel.data = to_native_memory_format(kernel.data)


def to_native_memory_format(images_bchw: Tensor) -> Tensor:
    """The images, or kernels, in the format of their device."""
    on_cpu = images_bchw.device.type == "cpu"
    return images_bchw.contiguous(memory_format=torch.channels_last if on_cpu else torch.contiguous_format)
