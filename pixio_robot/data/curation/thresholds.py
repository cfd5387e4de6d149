"""The rules a frame must satisfy to be kept, and the reasons for dropping one."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

import numpy as np

from pixio_robot.data.curation.duplicates import NO_FRAME, NearDuplicates, StillFrames, near_duplicates, still_frames
from pixio_robot.fields import check_fields, number

RULES = 2
"""Increased whenever the same thresholds drop other frames than before."""


class Reason(enum.IntEnum):
    """Why a frame was dropped: the first reason that applies, in this order."""

    KEPT = 0
    UNREADABLE = 1
    SMALL = 2
    DARK = 3
    BRIGHT = 4
    FEW_COLOURS = 5
    BLURRED = 6
    STILL = 7
    NEAR_DUPLICATE = 8


@dataclasses.dataclass(kw_only=True)
class Thresholds:
    """null disables a rule. `curation.html` shows the effect of each value on your frames."""

    min_side: int | None = number(320, at_least=1, at_most=10**6)
    """Minimum length of the shorter side in pixels (Pixio's rule)."""
    min_entropy: float | None = number(1.5, at_least=0, at_most=9)
    """Minimum entropy of the colour histogram in bits."""
    min_sharpness: float | None = number(2.0, at_least=0, at_most=10**6)
    """Minimum variance of the Laplacian, in squared grey levels."""
    max_dark: float | None = number(0.9, at_least=0, at_most=1)
    """Maximum fraction of pixels with grey level 15 or less."""
    max_bright: float | None = number(0.9, at_least=0, at_most=1)
    """Maximum fraction of pixels with grey level 240 or more."""
    max_hash_distance: int | None = number(4, at_least=0, at_most=63)
    """Drop a frame whose perceptual hash differs from that of the last kept frame of its video in at most this many of
    64 bits."""
    max_similarity: float | None = number(0.99, at_least=-1, at_most=1)
    """Drop a frame whose embedding has at least this cosine similarity to that of a kept frame of another video; needs
    an encoder."""

    def __post_init__(self) -> None:
        check_fields(self)

    def values(self) -> dict[str, float | None]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Thresholds)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """`reasons`: uint8 (n,) of Reason. `still`, `near`: which frames repeat which (near: None without embeddings)."""

    reasons: np.ndarray
    still: StillFrames
    near: NearDuplicates | None


def judge(
    thresholds: Thresholds, pixels: np.ndarray, records: np.ndarray, embeddings: np.ndarray | None, device: str = "cpu"
) -> Verdict:
    """Apply the rules in the order of Reason.

    pixels: PIXEL_RECORD (n,); records: the frame index, FRAME_RECORD (n,); embeddings: (n, d) or None.
    """
    reasons = np.zeros(len(pixels), np.uint8)

    def drop(reason: Reason, failing: np.ndarray) -> None:
        reasons[failing & (reasons == Reason.KEPT)] = reason

    drop(Reason.UNREADABLE, ~pixels["readable"])
    rules: Mapping[Reason, np.ndarray | None] = {
        Reason.SMALL: _below(np.minimum(records["height"], records["width"]), thresholds.min_side),
        Reason.DARK: _above(pixels["dark"], thresholds.max_dark),
        Reason.BRIGHT: _above(pixels["bright"], thresholds.max_bright),
        Reason.FEW_COLOURS: _below(pixels["entropy"], thresholds.min_entropy),
        Reason.BLURRED: _below(pixels["sharpness"], thresholds.min_sharpness),
    }
    for reason, failing in rules.items():
        if failing is not None:
            drop(reason, failing)
    still = still_frames(records["phash"], records["video"], reasons == Reason.KEPT, thresholds.max_hash_distance)
    drop(Reason.STILL, still.repeats)
    near = None
    if embeddings is not None and thresholds.max_similarity is not None:
        import torch

        place = torch.device(device)
        usable = reasons == Reason.KEPT
        near = near_duplicates(embeddings, records["video"], usable, thresholds.max_similarity, place)
        drop(Reason.NEAR_DUPLICATE, near.original != NO_FRAME)
    return Verdict(reasons=reasons, still=still, near=near)


def _below(values: np.ndarray, limit: float | None) -> np.ndarray | None:
    return None if limit is None else values < limit


def _above(values: np.ndarray, limit: float | None) -> np.ndarray | None:
    return None if limit is None else values > limit
