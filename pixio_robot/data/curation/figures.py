"""Histograms as SVG: the distribution of a score, and what a threshold cuts off."""

from __future__ import annotations

import enum
import math

import numpy as np

from pixio_robot.axes import round_step

WIDTH, HEIGHT, FOOT, HEAD, SIDE = 640, 184, 24, 44, 16
"""HEAD leaves room for two lines of text above the bars, also at the larger text size used on phones."""
BINS = 60
TAIL = 0.002
"""Fraction of frames at each end that is gathered in the outermost bars, so that outliers do not squeeze the rest."""
SMALLEST_LOGARITHM = 0.1
NARROWEST = 1e-5
"""Relative range below which all values are treated as equal."""


class Scale(enum.Enum):
    LINEAR = "linear"
    LOGARITHMIC = "logarithmic"
    WHOLE = "whole"
    """One bar per whole number."""
    SHARE = "share"
    """Always from 0 to 1."""


def histogram_svg(values: np.ndarray, threshold: float | None, drops_below: bool, scale: Scale, label: str) -> str:
    """Histogram of `values` (n,), n > 0, with the bars on the dropped side of `threshold` marked.

    `label` is the text for screen readers. The tallest bar is labelled with its count. With WHOLE, `threshold` itself
    belongs to the dropped side.
    """
    cut = threshold
    if scale is Scale.LOGARITHMIC:
        values = np.log10(np.maximum(values, SMALLEST_LOGARITHM))
        cut = None if threshold is None else math.log10(max(threshold, SMALLEST_LOGARITHM))
    elif scale is Scale.WHOLE and threshold is not None:
        cut = threshold + (0.5 if drops_below else -0.5)
    edges = _edges(values, cut, scale)
    low, high = edges[0], edges[-1]
    counts = np.histogram(np.clip(values, low, high), edges)[0]

    def x(value: float) -> float:
        return SIDE + (value - low) / (high - low) * (WIDTH - 2 * SIDE)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for count, left, right in zip(counts.tolist(), edges, edges[1:], strict=False):
        if count == 0:
            continue
        tall = max(1.5, (HEIGHT - FOOT - HEAD) * count / counts.max())
        middle = (left + right) / 2
        out = cut is not None and (middle < cut if drops_below else middle > cut)
        parts.append(
            f'<rect class="bar{" out" if out else ""}" x="{x(left) + 0.5:.1f}" y="{HEIGHT - FOOT - tall:.1f}" '
            f'width="{x(right) - x(left) - 1:.1f}" height="{tall:.1f}"/>'
        )
    tallest = int(counts.argmax())
    place = min(max(x((edges[tallest] + edges[tallest + 1]) / 2), 2 * SIDE), WIDTH - 2 * SIDE)
    parts.append(f'<text x="{place:.1f}" y="{HEAD - 4}" text-anchor="middle">{counts[tallest]:,}</text>')
    parts.append(f'<path class="axis" d="M{SIDE} {HEIGHT - FOOT}H{WIDTH - SIDE}"/>')
    for tick, text in _ticks(low, high, scale):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - 7}" text-anchor="middle">{text}</text>')
    if cut is not None and threshold is not None:
        anchor, shift = ("end", -5) if x(cut) > WIDTH / 2 else ("start", 5)
        parts.append(f'<path class="threshold" d="M{x(cut):.1f} 2V{HEIGHT - FOOT}"/>')
        parts.append(
            f'<text class="threshold" x="{x(cut) + shift:.1f}" y="17" text-anchor="{anchor}">{threshold:g}</text>'
        )
    return "".join(parts) + "</svg>"


def _edges(values: np.ndarray, cut: float | None, scale: Scale) -> list[float]:
    """Equal bins with one edge at `cut`, so that no bar is partly dropped."""
    if scale is Scale.SHARE:
        low, high = 0.0, 1.0
    else:
        low, high = (float(edge) for edge in np.quantile(values, (TAIL, 1 - TAIL)))
        low, high = (low, high) if cut is None else (min(low, cut), max(high, cut))
        if high - low <= NARROWEST * max(1.0, abs(high)):  # all equal
            low, high = low - 0.05 * max(1.0, abs(low)), high + 0.05 * max(1.0, abs(high))
    if scale is Scale.WHOLE:
        return (np.arange(math.floor(low), math.ceil(high) + 2) - 0.5).tolist()
    step = (high - low) / BINS or 1 / BINS
    if cut is None:
        return (low + step * np.arange(BINS + 1)).tolist()
    before, after = math.ceil((cut - low) / step - 1e-9), math.ceil((high - cut) / step - 1e-9)
    return (cut + step * np.arange(-max(before, 1), max(after, 1) + 1)).tolist()


def _ticks(low: float, high: float, scale: Scale) -> list[tuple[float, str]]:
    """About five round numbers within [low, high], and their labels."""
    if scale is Scale.LOGARITHMIC and math.floor(high) > math.ceil(low):
        powers = range(math.ceil(low), math.floor(high) + 1)
        return [(float(power), number_text(10.0**power)) for power in powers]
    size = round_step((high - low) / 6)
    size = max(1.0, round(size)) if scale is Scale.WHOLE else size
    ticks = [size * number for number in range(math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9) + 1)]
    if scale is Scale.LOGARITHMIC:
        return [(tick, number_text(10**tick)) for tick in ticks]
    # As many digits as distinguish neighbouring ticks.
    digits = next(n for n in range(12) if abs(size * 10**n - round(size * 10**n)) < 1e-6 * size * 10**n)
    return [(tick, f"{tick + 0.0:,.{digits}f}") for tick in ticks]


def number_text(value: float) -> str:
    """Format with three significant digits, more for values near 1: `4.31`, `320`, `12,400`, `0.9987`."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.4f}" if 0.99 <= abs(value) < 0.99995 else f"{value:.3g}"
