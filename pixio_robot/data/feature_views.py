"""Which versions of every frame a frozen encoder is shown: the one of acting, and random ones to train on.

Augmentation cannot be drawn anew for features that are computed once, so `count` versions of every episode are cached
and one is drawn for every training window. All frames of an episode share a version's box and shift, so that motion
within a window stays what it was.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """View 0 is what a policy sees when it acts: the whole image, or its middle. Views 1..count are random."""

    count: int = 0
    crop: tuple[int, int] | None = None
    """Height and width [px] of the box that is seen: in the middle for view 0, anywhere for the others."""
    shift: int = 0
    """Pixels by which the random views are moved at most, edges repeated, after the crop."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 0 or self.shift < 0:
            raise UserError(f"Feature views: count={self.count} and shift={self.shift} must not be negative.")
        if self.crop is not None and min(self.crop) < 1:
            raise UserError(f"Feature views: crop={self.crop} must be a height and a width of at least 1 pixel.")
        if self.count and self.crop is None and not self.shift:
            raise UserError(f"Feature views: count={self.count} equal views are of no use; set a crop or a shift.")

    def name(self, view: int) -> str:
        """Equal names mean equal pixels, whatever `count` is; the whole image has the empty one."""
        parts = [] if self.crop is None else [f"crop-{self.crop[0]}x{self.crop[1]}"]
        if view:
            parts += [f"shift-{self.shift}", f"seed-{self.seed}", f"view-{view}"]
        return ".".join(parts)

    def apply(self, frames: np.ndarray, camera: str, episode: int, view: int) -> np.ndarray:
        """Frames uint8 (n, h, w, 3) of that camera and episode as this view shows them.

        Raises UserError when the crop does not fit.
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
    """A random box, or the one in the middle."""
    spare = frames.shape[1] - size[0], frames.shape[2] - size[1]
    if min(spare) < 0:
        raise UserError(f"A crop of {list(size)} pixels does not fit into images of {list(frames.shape[1:3])}.")
    top, left = (part // 2 for part in spare) if random is None else random.integers(0, spare, endpoint=True).tolist()
    return frames[:, top : top + size[0], left : left + size[1]]
