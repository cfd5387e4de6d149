"""Histograms a threshold can be read off: bars and labels mean what they say, also for odd distributions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pixio_robot.data.curation.figures import HEAD, HEIGHT, Scale, histogram_svg


def texts(svg: str, attribute: str) -> list[str]:
    return re.findall(rf"<text[^>]*{attribute}[^>]*>([^<]*)</text>", svg)


def ticks(svg: str) -> list[str]:
    return texts(svg, f'y="{HEIGHT - 7}"')


@pytest.mark.parametrize(
    ("values", "threshold", "scale"),
    [
        (np.full(300, 320.0), 320, Scale.LINEAR),
        (np.full(300, 320.0), None, Scale.LINEAR),
        (np.linspace(0.9991, 0.9999, 300), 0.99, Scale.LINEAR),
        (np.linspace(0.99991, 0.99999, 300), None, Scale.LINEAR),
        (np.zeros(300), 0.9, Scale.SHARE),
        (np.zeros(300), None, Scale.LINEAR),
        (np.full(300, 12.0), 4, Scale.WHOLE),
        (np.full(300, 500.0), 2.0, Scale.LOGARITHMIC),
        (np.array([7.0]), None, Scale.LOGARITHMIC),
    ],
)
def test_tick_labels_differ_and_rise(values: np.ndarray, threshold: float | None, scale: Scale) -> None:
    svg = histogram_svg(values, threshold, True, scale, "x")
    numbers = [float(text.replace(",", "")) for text in ticks(svg)]
    assert 1 <= len(numbers) < 14
    assert numbers == sorted(set(numbers))
    assert "nan" not in svg


def test_the_tallest_bar_says_how_many_it_is() -> None:
    values = np.concatenate([np.full(700, 2.0), np.linspace(0, 9, 300)])
    svg = histogram_svg(values, 1.5, True, Scale.LINEAR, "x")
    (count,) = texts(svg, f'y="{HEAD - 4}"')
    assert 700 <= int(count) < 760
    assert texts(svg, 'class="threshold"') == ["1.5"]


def test_no_bar_is_half_dropped() -> None:
    values = np.random.default_rng(0).uniform(0, 9, 5000)
    for threshold in (0.3, 4.2, 8.99):
        svg = histogram_svg(values, threshold, True, Scale.LINEAR, "x")
        line = float(re.search(r'class="threshold" d="M([\d.]+)', svg).group(1))
        for kind, left, width in re.findall(r'class="bar( out)?" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg):
            assert (float(left) + float(width) <= line) if kind else (float(left) >= line - 0.1)
