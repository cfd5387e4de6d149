"""Curves of every state and action dimension, and the histogram of lengths, as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

COLUMNS = 3
BINS = 30


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
    axes.set_xlabel("steps an episode")
    axes.set_ylabel("episodes")
    return _svg(figure)


def curves(
    names: Sequence[str],
    episodes: Sequence[np.ndarray],
    labels: Sequence[str],
    usual: np.ndarray | None,
    rate_hz: float,
) -> str:
    """One panel a dimension, one line an episode (n, dimensions); `usual` (2, dimensions) is shaded: 1 % to 99 %."""
    from matplotlib.figure import Figure

    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(11, 1.5 * rows))
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
    for i, (panel, name) in enumerate(zip(panels, names, strict=False)):
        if usual is not None:
            panel.axhspan(usual[0, i], usual[1, i], color="#4878a8", alpha=0.12, linewidth=0)
        for values, label in zip(episodes, labels, strict=True):
            panel.plot(np.arange(len(values)) / rate_hz, values[:, i], linewidth=0.9, label=label)
        panel.set_title(name.replace("$", r"\$"), fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in panels[len(names) :]:
        panel.axis("off")
    for panel in panels[max(0, len(names) - COLUMNS) : len(names)]:
        panel.set_xlabel("s", fontsize=8)
        panel.tick_params(labelbottom=True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(labels), fontsize=7)
    figure.set_layout_engine("constrained")
    return _svg(figure)
