"""`curation.html`: what every threshold keeps and drops, in numbers and pictures. One self-contained file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from pixio_robot.data.curation.contact_sheets import ContactSheet, make_thumbnail, select_closest
from pixio_robot.data.curation.duplicates import NO_FRAME, NOT_COMPARED
from pixio_robot.data.curation.figures import Scale, histogram_svg, number_text
from pixio_robot.data.curation.score_texts import REASON_TEXTS, SCORE_TEXTS
from pixio_robot.data.curation.selection import acceptance_of
from pixio_robot.data.curation.thresholds import Reason, Thresholds, Verdict
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.files import atomic_file
from pixio_robot.html_pages import template_environment

SCALES = {
    "min_sharpness": Scale.LOGARITHMIC,
    "max_dark": Scale.SHARE,
    "max_bright": Scale.SHARE,
    "max_hash_distance": Scale.WHOLE,
}
"""Settings that are not listed are linear."""
PAIRS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """`pixels`: PIXEL_RECORD (n,). `losses`: float32 (n,) or None. `verdict`: the decisions made from them."""

    pixels: np.ndarray
    losses: np.ndarray | None
    verdict: Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One score on the page."""

    setting: str
    title: str
    explanation: str
    threshold: str
    verdict: str
    figure: Markup
    logarithmic: bool
    sheets: list[ContactSheet]


def write_report(path: Path, shards: FrameShards, thresholds: Thresholds, scores: Scores) -> None:
    """Render and write, atomically."""
    page = render(shards, thresholds, scores)
    with atomic_file(path) as temporary:
        # File names may contain bytes that are not valid text.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def render(shards: FrameShards, thresholds: Thresholds, scores: Scores) -> str:
    return (
        template_environment("pixio_robot.data.curation")
        .get_template("curation.html.j2")
        .render(_context(shards, thresholds, scores))
    )


def _context(shards: FrameShards, thresholds: Thresholds, scores: Scores) -> dict[str, Any]:
    reasons = scores.verdict.reasons
    counts = np.bincount(reasons, minlength=len(Reason)).tolist()
    acceptance = acceptance_of(reasons, scores.losses)
    sections = [
        _cut_section(shards, thresholds, scores, setting, values)
        for setting, values in _cut_scores(shards, scores.pixels).items()
    ]
    sections.append(_still_section(shards, thresholds, scores.verdict))
    if scores.verdict.near is not None:
        sections.append(_near_section(shards, thresholds, scores.verdict))
    return {
        "title": shards.path.absolute().name,
        "frames": len(reasons),
        "kept": counts[Reason.KEPT],
        "videos": len(np.unique(shards.reader.records["video"])),
        "expected": float(acceptance.sum(dtype=np.float64)),
        "rows": [
            (REASON_TEXTS[reason], counts[reason], 100 * counts[reason] / len(reasons))
            for reason in Reason
            if reason is not Reason.KEPT
        ],
        "sections": [section for section in sections if section is not None],
        "sampling": None if scores.losses is None else _sampling_section(shards, scores.losses, reasons),
        "has_embeddings": scores.verdict.near is not None,
    }


def _cut_scores(shards: FrameShards, pixels: np.ndarray) -> dict[str, np.ndarray]:
    records = shards.reader.records
    return {
        "min_entropy": pixels["entropy"],
        "min_sharpness": pixels["sharpness"],
        "max_dark": pixels["dark"],
        "max_bright": pixels["bright"],
        "min_side": np.minimum(records["height"], records["width"]),
    }


def _cut_section(
    shards: FrameShards, thresholds: Thresholds, scores: Scores, setting: str, values: np.ndarray
) -> Section | None:
    """The section of a score whose threshold applies to each frame on its own."""
    readable = np.flatnonzero(scores.pixels["readable"])
    if not len(readable):
        return None
    threshold, drops_below = getattr(thresholds, setting), setting.startswith("min_")
    readable_values = values[readable]
    videos = shards.reader.records["video"]
    if threshold is None:
        sheets = [
            _sheet(shards, "Lowest", values, select_closest(values, readable, float(readable_values.min()), videos)),
            _sheet(shards, "Highest", values, select_closest(values, readable, float(readable_values.max()), videos)),
        ]
        verdict = "This rule is disabled."
    else:
        failing = readable_values < threshold if drops_below else readable_values > threshold
        out, kept = readable[failing], readable[~failing]
        sheets = [
            _sheet(shards, "Dropped, closest to the threshold", values, select_closest(values, out, threshold, videos)),
            _sheet(
                shards, "Passing, closest to the threshold", values, select_closest(values, kept, threshold, videos)
            ),
        ]
        side = "below" if drops_below else "above"
        verdict = f"{len(out):,} of {len(readable):,} frames lie {side} {threshold:g}."
    return _section(setting, readable_values, threshold, drops_below, verdict, sheets)


def _still_section(shards: FrameShards, thresholds: Thresholds, verdict: Verdict) -> Section | None:
    still, limit = verdict.still, thresholds.max_hash_distance
    compared = np.flatnonzero(still.distance != NOT_COMPARED)
    if not len(compared):
        return None
    bits, repeats = still.distance, still.repeats[compared]
    if limit is None:
        return _section("max_hash_distance", bits[compared], None, True, "This rule is disabled.", [])
    sheets = [
        _pairs(
            shards,
            f"{side}, beside the frame it was compared with, closest to the threshold",
            bits,
            rows,
            limit,
            still.compared_with,
        )
        for side, rows in (("Dropped", compared[repeats]), ("Passing", compared[~repeats]))
    ]
    text = f"{repeats.sum():,} of {len(compared):,} compared frames differ in at most {limit} of 64 bits."
    return _section("max_hash_distance", bits[compared], limit, True, text, sheets)


def _near_section(shards: FrameShards, thresholds: Thresholds, verdict: Verdict) -> Section | None:
    near, limit = verdict.near, thresholds.max_similarity
    if near is None or limit is None:
        return None
    compared = np.flatnonzero(near.neighbour != NO_FRAME)
    if not len(compared):
        return None
    values, linked = near.similarity, near.similarity[compared] >= limit
    sheets = [
        _pairs(shards, f"{side}, with the most similar frame of another video", values, rows, limit, near.neighbour)
        for side, rows in (("Linked as duplicates", compared[linked]), ("Not linked", compared[~linked]))
    ]
    dropped = int((near.original != NO_FRAME).sum())
    text = f"{dropped:,} of {len(compared):,} compared frames repeat a frame of another video."
    return _section("max_similarity", values[compared], limit, False, text, sheets)


def _sampling_section(shards: FrameShards, losses: np.ndarray, reasons: np.ndarray) -> Section | None:
    known = np.flatnonzero(~np.isnan(losses) & (reasons == Reason.KEPT))
    if not len(known):
        return None
    known_losses, videos = losses[known], shards.reader.records["video"]
    sheets = [
        _sheet(shards, "Most sampled", losses, select_closest(losses, known, float(known_losses.max()), videos)),
        _sheet(shards, "Least sampled", losses, select_closest(losses, known, float(known_losses.min()), videos)),
    ]
    mean = float(np.minimum(known_losses, 1).mean(dtype=np.float64))
    text = f"A kept frame is included in {100 * mean:.0f} % of the epochs on average."
    if known_losses.min() >= 1:
        text = "No loss is below 1, so every epoch includes every kept frame: this Pixio is not trained enough yet."
    return _section("mae_loss", known_losses, None, True, text, sheets)


def _sheet(shards: FrameShards, title: str, values: np.ndarray, rows: np.ndarray) -> ContactSheet:
    pictures = [make_thumbnail(shards, row, number_text(float(values[row]))) for row in rows.tolist()]
    return ContactSheet(title, [one for one in pictures if one is not None])


def _pairs(
    shards: FrameShards, title: str, values: np.ndarray, rows: np.ndarray, target: float, others: np.ndarray
) -> ContactSheet:
    """The frames closest to the threshold, each beside the one it was compared with; every pair is shown once."""
    # Where two frames are each other's neighbour, only the later one is shown.
    mutual = (others[others[rows]] == rows) & (rows < others[rows])
    chosen = select_closest(values, rows[~mutual], target, shards.reader.records["video"], PAIRS).tolist()
    pictures = [make_thumbnail(shards, row, number_text(float(values[row])), beside=int(others[row])) for row in chosen]
    return ContactSheet(title, [one for one in pictures if one is not None])


def _section(
    setting: str,
    values: np.ndarray,
    threshold: float | None,
    drops_below: bool,
    verdict: str,
    sheets: list[ContactSheet],
) -> Section:
    text = SCORE_TEXTS[setting]
    scale = SCALES.get(setting, Scale.LINEAR)
    label = str(escape(f"Histogram: {text.title} of {len(values):,} frames"))
    return Section(
        setting=setting,
        title=text.title,
        explanation=text.explanation,
        threshold="" if threshold is None else f"{threshold:g}",
        verdict=verdict,
        figure=Markup(histogram_svg(values, threshold, drops_below, scale, label)),
        logarithmic=scale is Scale.LOGARITHMIC,
        sheets=[sheet for sheet in sheets if sheet.pictures],
    )
