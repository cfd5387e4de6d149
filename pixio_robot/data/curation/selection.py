"""Which frames pretraining sees, decided anew in every epoch; the shards themselves stay as they are.

selection.json       settings, counts by reason, and which shards it belongs to
acceptance.npy       float32 (n,): the probability of being taken when a frame comes up; 0 for dropped ones
reasons.npy          uint8 (n,): `thresholds.Reason`

Soft sampling (Pixio, arXiv 2512.15715, data curation): a frame whose reconstruction loss is l is accepted with
probability min(1, l), because what a model of the raw data predicts well is common there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.chosen import ChosenBits
from pixio_robot.data.curation.columns import data_digest
from pixio_robot.data.curation.thresholds import Reason
from pixio_robot.data.shards import FrameShards
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file, read_json, write_json

SELECTION, ACCEPTANCE, REASONS = "selection.json", "acceptance.npy", "reasons.npy"
KIND, FORMAT_VERSION = "frame-selection", 1
BLOCK = 1_000_000
"""Frames whose numbers are drawn at once, a multiple of 8; part of the format, because the draws depend on it."""


class Selection:
    """A finished selection, memory-mapped: opening takes no time and no memory, whatever the number of frames."""

    def __init__(self, info: Mapping[str, Any], acceptance: np.ndarray) -> None:
        self.info, self.acceptance = info, acceptance

    @classmethod
    def open(cls, path: str | Path) -> Selection:
        """Raises UserError: not a selection, damaged, or not one frame is left in it."""
        path = Path(path)
        if not (path / SELECTION).is_file():
            raise UserError(f"{path} is not a selection: it has no {SELECTION}. `pixio-robot curate` makes one.")
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
            raise UserError(f"The selection {path} keeps no frame; see its curation.html and move the thresholds.")
        return cls(info, acceptance)

    def __len__(self) -> int:
        """Frames it was made of, kept or not."""
        return int(self.info["frames"])

    def epoch(self, seed: int, epoch: int) -> ChosenBits:
        """The frames accepted in this epoch, a function of (seed, epoch) alone; a bit for every frame there is."""

        def blocks() -> Iterator[np.ndarray]:
            for number, start in enumerate(range(0, len(self), BLOCK)):
                probability = self.acceptance[start : start + BLOCK]
                u = np.random.default_rng((seed, epoch, number)).random(len(probability))
                # l > u rather than l >= u: the same probability, and a dropped frame's 0 stays out when u is 0.
                yield probability > u

        return ChosenBits(blocks())


def acceptance_of(reasons: np.ndarray, losses: np.ndarray | None) -> np.ndarray:
    """float32 (n,): 0 where dropped, else min(1, loss), or 1 without losses (n,) and where a loss is unknown (NaN)."""
    probability = np.ones(len(reasons), np.float32)
    if losses is not None:
        known = ~np.isnan(losses)
        probability[known] = np.clip(losses[known], 0.0, 1.0)
    probability[reasons != Reason.KEPT] = 0.0
    return probability


def write_selection(
    path: Path, shards: FrameShards, settings: Mapping[str, Any], reasons: np.ndarray, losses: np.ndarray | None
) -> dict[str, Any]:
    """Write the three files, `selection.json` last, and return what it says."""
    probability = acceptance_of(reasons, losses)
    counts = np.bincount(reasons, minlength=len(Reason))
    (path / SELECTION).unlink(missing_ok=True)  # the arrays are replaced one after the other
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
