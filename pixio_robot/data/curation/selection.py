"""Which frames pretraining sees, drawn anew for every epoch; the shards themselves are not changed.

selection.json       settings, counts by reason, and which shards it belongs to
acceptance.npy       float32 (n,): the probability that an epoch includes the frame; 0 for dropped frames
reasons.npy          uint8 (n,): `thresholds.Reason`

Soft sampling (Pixio, arXiv 2512.15715, data curation): a frame whose reconstruction loss is l is accepted with
probability min(1, l), because frames that a model trained on the raw data predicts well are common in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.curation.score_columns import data_digest
from pixio_robot.data.curation.thresholds import Reason
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.images.subsets import BitSubset
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json, write_json

SELECTION, ACCEPTANCE, REASONS = "selection.json", "acceptance.npy", "reasons.npy"
KIND, FORMAT_VERSION = "frame-selection", 1
BLOCK = 1_000_000
"""Number of frames drawn at once, a multiple of 8. Part of the format, because the draws depend on it."""


class Selection:
    """A finished selection, memory-mapped: opening costs no time or memory, whatever the number of frames."""

    def __init__(self, info: Mapping[str, Any], acceptance: np.ndarray) -> None:
        self.info, self.acceptance = info, acceptance

    @classmethod
    def open(cls, path: str | Path) -> Selection:
        """Raises UserError if `path` is not a selection, is damaged, or keeps no frame."""
        path = Path(path)
        if not (path / SELECTION).is_file():
            raise UserError(f"{path} is not a selection: it has no {SELECTION}. Create one with `pixio-robot curate`.")
        info = read_json(path / SELECTION)
        if not isinstance(info, dict) or info.get("kind") != KIND or info.get("format_version") != FORMAT_VERSION:
            raise UserError(f"{path / SELECTION} is not a selection of format {FORMAT_VERSION}; curate again.")
        try:
            acceptance = np.load(path / ACCEPTANCE, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path / ACCEPTANCE} cannot be read ({error}); curate again.") from error
        if acceptance.dtype != np.float32 or acceptance.shape != (info["frames"],):
            raise UserError(f"{path / ACCEPTANCE} does not match {path / SELECTION}; curate again.")
        if info["kept"] == 0:
            raise UserError(f"The selection {path} keeps no frame; see its curation.html and adjust the thresholds.")
        return cls(info, acceptance)

    def __len__(self) -> int:
        """Number of frames it was computed from, kept or not."""
        return int(self.info["frames"])

    def epoch(self, seed: int, epoch: int) -> BitSubset:
        """The frames accepted in this epoch, determined by (seed, epoch) alone; takes one bit per frame."""

        def blocks() -> Iterator[np.ndarray]:
            for number, start in enumerate(range(0, len(self), BLOCK)):
                probability = self.acceptance[start : start + BLOCK]
                u = np.random.default_rng((seed, epoch, number)).random(len(probability))
                # l > u rather than l >= u: the same probability, but a dropped frame (0) stays out even if u is 0.
                yield probability > u

        return BitSubset(blocks())


def acceptance_of(reasons: np.ndarray, losses: np.ndarray | None) -> np.ndarray:
    """float32 (n,): 0 for dropped frames, else min(1, loss), or 1 where the loss is unknown (NaN or no losses)."""
    probability = np.ones(len(reasons), np.float32)
    if losses is not None:
        known = ~np.isnan(losses)
        probability[known] = np.clip(losses[known], 0.0, 1.0)
    probability[reasons != Reason.KEPT] = 0.0
    return probability


def write_selection(
    path: Path, shards: FrameShards, settings: Mapping[str, Any], reasons: np.ndarray, losses: np.ndarray | None
) -> dict[str, Any]:
    """Write the three files, `selection.json` last, and return the contents of that one."""
    probability = acceptance_of(reasons, losses)
    counts = np.bincount(reasons, minlength=len(Reason))
    (path / SELECTION).unlink(missing_ok=True)  # while the arrays are being replaced, there is no valid selection
    for name, array in ((ACCEPTANCE, probability), (REASONS, reasons)):
        with atomic_file(path / name) as temporary:
            np.save(temporary, array)
    info = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "data": data_digest(shards),
        "split": shards.split,
        "frames": len(shards),
        "kept": int((probability > 0).sum()),
        "expected_epoch_frames": round(float(probability.sum(dtype=np.float64)), 3),
        "dropped": {reason.name.lower(): int(counts[reason]) for reason in Reason if reason is not Reason.KEPT},
        "soft_sampling": losses is not None,
        "settings": dict(settings),
    }
    write_json(path / SELECTION, info)
    return info
