"""Figures of the report: small inline SVGs coloured by CSS variables, so that they follow light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pixio_robot.axes import round_step
from pixio_robot.evaluation.checkpoint_series import CheckpointSeries
from pixio_robot.evaluation.report.curves import Curve

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34
_MOST_POINTS = 300
_SMOOTH_ABOVE = 40
"""Curves with more points than this are drawn faint, with a running median on top."""


def interval_svg(low: float, rate: float, high: float, parts: Sequence[float] = ()) -> str:
    """A dot with its interval on a 0 to 100 % axis; stretches to any width without scaling text. `parts`: individual
    rates whose mean is `rate`, drawn as ticks."""
    ticks = "".join(
        f'<line class="grid" x1="{percent}%" x2="{percent}%" y1="0" y2="24"/>' for percent in (0, 25, 50, 75, 100)
    )
    strokes = "".join(
        f'<line class="part" x1="{100 * part:.2f}%" x2="{100 * part:.2f}%" y1="5" y2="19"/>' for part in parts
    )
    return (
        f'<svg class="interval" width="100%" height="24" role="img" '
        f'aria-label="{100 * rate:.0f} percent, interval {100 * low:.0f} to {100 * high:.0f}">{ticks}'
        f'<line class="whisker" x1="{100 * low:.2f}%" x2="{100 * high:.2f}%" y1="12" y2="12"/>{strokes}'
        f'<circle class="dot" cx="{100 * rate:.2f}%" cy="12" r="5.5"/></svg>'
    )


def loss_svg(curve: Curve, label: str) -> str:
    """Loss over training steps, on held-out data as a dashed line; logarithmic if the losses are positive and span more
    than a factor of ten."""
    steps, losses = np.asarray(curve.steps, float), np.asarray(curve.losses, float)
    finite = np.isfinite(losses)
    if not finite.any():
        return '<p class="missing">No finite loss was logged.</p>'
    held_out = curve.held_out.get("loss", {})
    shown = np.array([*losses[finite], *held_out.values()])
    logarithmic = bool(shown.min() > 0 and shown.max() / shown.min() > 10)
    low, high, ticks = _log_ticks(shown) if logarithmic else _linear_ticks(float(shown.min()), float(shown.max()))

    def y(loss: float) -> float:
        return _y_pixel(math.log(loss / low) / math.log(high / low) if logarithmic else (loss - low) / (high - low))

    parts, x = _step_chart(label, float(steps[-1]), [(y(tick), _format_number(tick)) for tick in ticks])
    if finite.sum() > _SMOOTH_ABOVE:
        parts.append(_polyline(steps, losses, x, y, "raw"))
        drawn = _drawn_points(len(steps))
        steps, losses = steps[drawn], _running_median(losses, drawn)
    parts.append(_polyline(steps, losses, x, y, "line"))
    if held_out:
        parts.append(_polyline(np.array(list(held_out), float), np.array(list(held_out.values())), x, y, "held-out"))
    return "".join(parts) + "</svg>"


def series_svg(series: CheckpointSeries, label: str) -> str:
    """Success rates of checkpoints over training steps, with intervals, and the mean of the last ten as a line."""
    ticks = [(_y_pixel(percent / 100), f"{percent} %") for percent in (0, 25, 50, 75, 100)]
    parts, x = _step_chart(f"Success of {label}", float(series.steps[-1]), ticks)
    for step, low, high in zip(series.steps, series.lows, series.highs, strict=True):
        bottom, top = _y_pixel(low), _y_pixel(high)
        parts.append(f'<line class="whisker" x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>')
    parts.append(_polyline(np.asarray(series.steps, float), np.asarray(series.rates, float), x, _y_pixel, "line"))
    for step, rate in zip(series.steps, series.rates, strict=True):
        parts.append(f'<circle class="dot" cx="{x(step):.1f}" cy="{_y_pixel(rate):.1f}" r="3.5"/>')
    mean, since = _y_pixel(series.mean_of_last), x(series.steps[-series.averaged])
    parts.append(
        f'<line class="mean" x1="{since:.1f}" x2="{x(series.steps[-1]):.1f}" y1="{mean:.1f}" y2="{mean:.1f}"/>'
    )
    return "".join(parts) + "</svg>"


def _step_chart(
    label: str, last_step: float, ticks: Sequence[tuple[float, str]]
) -> tuple[list[str], Callable[[float], float]]:
    """The opening of a chart over training steps, with a grid line and its text at each height [px] in `ticks`, and the
    map from step to x [px]."""
    _, last, step_ticks = _linear_ticks(0.0, max(last_step, 1.0))

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for y, text in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for tick in step_ticks:
        anchor = "end" if x(tick) > _WIDTH - _RIGHT - 14 else "middle"
        parts.append(
            f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="{anchor}">{_format_number(tick)}</text>'
        )
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">step</text>')
    return parts, x


def _y_pixel(share: float) -> float:
    """Height [px] of a share of the axis, from 0 at the bottom to 1 at the top."""
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _polyline(steps: np.ndarray, losses: np.ndarray, x, y, css_class: str) -> str:
    """A polyline with at most `_MOST_POINTS` points, interrupted where the loss is not finite."""
    keep = _drawn_points(len(steps))
    commands, pen_down = [], False
    for step, loss in zip(steps[keep], losses[keep], strict=True):
        if math.isfinite(loss):
            commands.append(f"{'L' if pen_down else 'M'}{x(step):.1f} {y(loss):.1f}")
        pen_down = math.isfinite(loss)
    if len(commands) == 1:
        cx, cy = commands[0][1:].split()
        return f'<circle class="dot" cx="{cx}" cy="{cy}" r="3"/>'
    return f'<path class="{css_class}" d="{"".join(commands)}"/>'


def _drawn_points(count: int) -> np.ndarray:
    """The numbers of at most `_MOST_POINTS` of `count` points, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(int))


def _running_median(losses: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Running median at some points, over a window of a twentieth of the curve; gaps are preserved."""
    half = max(1, len(losses) // 40)
    windows = (losses[max(0, index - half) : index + half + 1] for index in at.tolist())
    gaps = ~np.isfinite(losses[at])
    return np.array([np.nan if gap else np.nanmedian(window) for gap, window in zip(gaps, windows, strict=True)])


def _linear_ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round tick values that enclose [low, high], about five of them: (first tick, last tick, ticks)."""
    span = high - low if high > low else max(abs(high), 1.0)
    size = round_step(span / 4)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    last = max(last, first + 1)
    ticks = [size * index for index in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _log_ticks(values: np.ndarray) -> tuple[float, float, Sequence[float]]:
    first, last = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    last = max(last, first + 1)
    stride = max(1, (last - first) // 4)
    return 10.0**first, 10.0**last, [10.0**power for power in range(first, last + 1, stride)]


def _format_number(value: float) -> str:
    if abs(value) >= 1000:
        for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"
