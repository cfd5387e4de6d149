"""The views of every frame for which a frozen encoder's features are cached: the one used for acting, and random ones.

Features that are computed once cannot be augmented anew, so `count` random views of every episode are cached and one is
drawn for every training window. All frames of an episode share a view's box and shift, which preserves the motion
within a window.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """View 0 is what a policy sees when acting: the whole image or its central crop. Views 1..count are random."""

    count: int = 0
    crop: tuple[int, int] | None = None
    """Height and width [px] of the crop: central for view 0, at a random place for the others."""
    shift: int = 0
    """Maximum shift of the random views in pixels, applied after the crop; edges are repeated."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 0 or self.shift < 0:
            raise UserError(f"Feature views: count={self.count} and shift={self.shift} must not be negative.")
        if self.crop is not None and min(self.crop) < 1:
            raise UserError(f"Feature views: crop={self.crop} must be a height and a width of at least 1 pixel each.")
        if self.count and self.crop is None and not self.shift:
            raise UserError(f"Feature views: count={self.count} equal views are useless; set a crop or a shift.")

    def name(self, view: int) -> str:
        """Equal names mean equal pixels, independent of `count`; the name of the whole image is empty."""
        parts = [] if self.crop is None else [f"crop-{self.crop[0]}x{self.crop[1]}"]
        if view:
            parts += [f"shift-{self.shift}", f"seed-{self.seed}", f"view-{view}"]
        return ".".join(parts)

    def apply(self, frames: np.ndarray, camera: str, episode: int, view: int) -> np.ndarray:
        """Apply a view to frames uint8 (n, h, w, 3) of a camera and episode.

        Raises UserError if the crop is larger than the images.
        """
        random = np.random.default_rng([self.seed, zlib.crc32(camera.encode()), episode, view])
        if self.crop is not None:
            frames = _crop(frames, self.crop, random if view else None)
        if view and self.shift:
            down, right = random.integers(-self.shift, self.shift, 2, endpoint=True).tolist()
            rows = np.clip(np.arange(frames.shape[1]) + down, 0, frames.shape[1] - 1)
            columns = np.clip(np.arange(frames.shape[2]) + right, 0, frames.shape[2] - 1)
            frames = frames[:, rows[:, None], columns]
        return frames


def _crop(frames: np.ndarray, size: tuple[int, int], random: np.random.Generator | None) -> np.ndarray:
    """Crop a random box, or the central one without `random`."""
    spare = frames.shape[1] - size[0], frames.shape[2] - size[1]
    if min(spare) < 0:
        raise UserError(f"A crop of {list(size)} pixels does not fit into images of {list(frames.shape[1:3])}.")
    top, left = (part // 2 for part in spare) if random is None else random.integers(0, spare, endpoint=True).tolist()
    return frames[:, top : top + size[0], left : left + size[1]]
