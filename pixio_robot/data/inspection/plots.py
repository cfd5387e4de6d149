"""Curves of every state and action dimension and the histogram of episode lengths, as SVG markup."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

import numpy as np

from pixio_robot.data.stats import Range

BINS = 30
PANEL = (3.6, 1.6)
"""Size of the plot of one dimension in inches; the page places as many side by side as fit."""
LINES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")


def _svg(figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def length_histogram(lengths: np.ndarray) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.8))
    axes = figure.subplots()
    axes.hist(lengths, bins=min(BINS, int(np.ptp(lengths)) + 1), color="#4878a8")
    axes.set_xlabel("steps per episode")
    axes.set_ylabel("episodes")
    return _svg(figure)


def curves(
    names: Sequence[str],
    episodes: Sequence[np.ndarray],
    labels: Sequence[str],
    usual: Range,
    rate_hz: float,
) -> str:
    """HTML with one plot per dimension and one line per episode (n, dimensions). Shaded: the 1st to 99th percentile."""
    from matplotlib.figure import Figure

    colours = [LINES[number % len(LINES)] for number in range(len(episodes))]
    longest = max((len(values) - 1) / rate_hz for values in episodes)
    panels = []
    for i, name in enumerate(names):
        figure = Figure(figsize=PANEL)
        panel = figure.subplots()
        panel.axhspan(usual.q01[i], usual.q99[i], color="#4878a8", alpha=0.12, linewidth=0)
        for values, colour in zip(episodes, colours, strict=True):
            panel.plot(np.arange(len(values)) / rate_hz, values[:, i], linewidth=0.9, color=colour)
        panel.set_xlim(-0.04 * longest, 1.04 * longest or None)
        panel.set_title(name.replace("$", r"\$"), fontsize=8)
        panel.set_xlabel("s", fontsize=7, labelpad=1)
        panel.tick_params(labelsize=7)
        panels.append(_svg(figure))
    key = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(label)}</span>'
        for label, colour in zip(labels, colours, strict=True)
    )
    return f'<p class="key">{key}</p>\n<div class="plots">\n{"".join(panels)}\n</div>'
