"""Batched augmentation of training images, or of features, on their device, with one random draw per window.

All frames of a window change together, which preserves the motion within it. Shapes: b windows, t frames, h rows,
w columns, d features; images are uint8 (b, t, h, w, 3), before and after.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from pixio_robot.errors import UserError

LUMA = (0.299, 0.587, 0.114)
"""Luma weights of red, green and blue (ITU-R BT.601)."""
RGB_TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Shift every window by up to `pixels` in each direction, repeating edge pixels (Yarats et al. 2021, DrQ)."""
    batch, _, height, width, _ = images.shape
    device = images.device
    down, right = torch.randint(-pixels, pixels + 1, (2, batch, 1), device=device)
    rows_bh = (torch.arange(height, device=device) + down).clamp(0, height - 1)
    columns_bw = (torch.arange(width, device=device) + right).clamp(0, width - 1)
    return _select_pixels(images, rows_bh, columns_bw)


def random_crop(images: Tensor, height: int, width: int) -> Tensor:
    """Crop every window to that size at a random position. Raises UserError if the images are too small."""
    spare_rows, spare_columns = _crop_margins(images, height, width)
    batch, device = len(images), images.device
    top_b1 = torch.randint(spare_rows + 1, (batch, 1), device=device)
    left_b1 = torch.randint(spare_columns + 1, (batch, 1), device=device)
    rows_bh = torch.arange(height, device=device) + top_b1
    return _select_pixels(images, rows_bh, torch.arange(width, device=device) + left_b1)


def centre_crop(images: Tensor, height: int, width: int) -> Tensor:
    """Crop the centre: the input of a policy trained on random crops when it acts."""
    spare_rows, spare_columns = _crop_margins(images, height, width)
    top, left = spare_rows // 2, spare_columns // 2
    return images[:, :, top : top + height, left : left + width]


def color_jitter(images: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Brightness, contrast and saturation factors uniform in 1 +- the given range; hue shift uniform in +-`hue` turns.

    The ranges are those of torchvision's `ColorJitter`, which draws the order of the four; here it is this one. The
    contrast is taken from the window's mean grey. The hue is rotated in YIQ with one matrix per window, whereas
    torchvision converts each pixel to HSV: either is a rotation about the grey axis.
    """
    batch, device = len(images), images.device

    def factor(spread: float) -> Tensor:
        low = max(0.0, 1 - spread)
        return torch.empty(batch, 1, 1, 1, 1, device=device).uniform_(low, 1 + spread)

    luma_3, to_yiq_33, to_rgb_33 = _colour_constants(device)
    with torch.autocast(device.type, enabled=False):  # half precision cannot represent 255 levels accurately
        x = (images.float() * factor(brightness)).clamp(0, 255)
        grey_b1111 = (x @ luma_3).mean(dim=(1, 2, 3))[:, None, None, None, None]
        x = (grey_b1111 + (x - grey_b1111) * factor(contrast)).clamp(0, 255)
        grey_bthw1 = (x @ luma_3)[..., None]
        x = (grey_bthw1 + (x - grey_bthw1) * factor(saturation)).clamp(0, 255)
        turn_b = torch.empty(batch, device=device).uniform_(-hue, hue) * (2 * torch.pi)
        x = torch.einsum("bij,bthwj->bthwi", to_rgb_33 @ _hue_rotation(turn_b) @ to_yiq_33, x)
    return x.round().clamp(0, 255).to(torch.uint8)


def _colour_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`LUMA`, `RGB_TO_YIQ` and its inverse, copied to a device once: a copy in each step would block the host."""
    return _copied_colour_constants(device)


# torch.compile would trace through the cache and recreate the tensors in every step. This line does the same as
# `torch.compiler.assume_constant_result`, which takes seconds to import.
_colour_constants._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@functools.cache
def _copied_colour_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    to_yiq_33 = torch.tensor(RGB_TO_YIQ)
    return torch.tensor(LUMA).to(device), to_yiq_33.to(device), torch.linalg.inv(to_yiq_33).to(device)


def _hue_rotation(turn_b: Tensor) -> Tensor:
    """Rotation matrices about the luma axis, (b, 3, 3)."""
    cosine, sine, one, zero = turn_b.cos(), turn_b.sin(), torch.ones_like(turn_b), torch.zeros_like(turn_b)
    rows = [(one, zero, zero), (zero, cosine, -sine), (zero, sine, cosine)]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)


def _crop_margins(images: Tensor, height: int, width: int) -> tuple[int, int]:
    rows, columns = images.shape[2:4]
    if height > rows or width > columns:
        raise UserError(f"crop_shape = [{height}, {width}] does not fit into images of {rows} x {columns} pixels.")
    return rows - height, columns - width


def _select_pixels(images: Tensor, rows_bh: Tensor, columns_bw: Tensor) -> Tensor:
    """Select the given rows and columns of every window, in all its frames."""
    window_b = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1, 4)[window_b, rows_bh[:, :, None], columns_bw[:, None, :]]
    return moved.permute(0, 3, 1, 2, 4)


def shift_and_jitter(images: Tensor, shift: int, jitter: Sequence[float] | None) -> Tensor:
    """Shift, then colour jitter, as requested. Crops are applied elsewhere: they determine the encoder's input size."""
    if shift:
        images = random_shift(images, shift)
    if jitter is not None:
        images = color_jitter(images, *jitter)
    return images


def add_feature_noise(features: Tensor, deviation: float, frames: int) -> Tensor:
    """Add Gaussian noise of this standard deviation to standardised features (b * frames, ..., d): to each of them, and
    to each channel of a window as a whole, at all positions and in all frames, as another light would."""
    windows, middle, width = len(features) // frames, features.ndim - 2, features.shape[-1]
    of_window = torch.randn(windows, *[1] * middle, width, device=features.device).repeat_interleave(frames, 0)
    return features + deviation * (torch.randn_like(features) + of_window)
