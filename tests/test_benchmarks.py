"""The scripts of benchmarks/ as a user meets them."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_mistake_is_one_line() -> None:
    words = ["--size=micro", "--image-size=63", "--steps=1", "--batch=1", "--device=cpu"]
    result = subprocess.run(
        [sys.executable, BENCHMARKS / "training_step.py", *words], capture_output=True, text=True, timeout=250
    )
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("training_step.py: ")


def test_sides_are_measured_in_turn_and_warming_up_does_not_count() -> None:
    timing, seen = runpy.run_path(str(BENCHMARKS / "common" / "timing.py")), []

    def measure(name: str, round_: int) -> float:
        seen.append((name, round_))
        return {"ours": 1.0, "theirs": 2.0}[name] * round_

    found = timing["measure_alternating"](["ours", "theirs"], measure, rounds=3, warm_up=1)
    assert seen == [(name, round_) for round_ in range(4) for name in ("ours", "theirs")]
    assert found == {"ours": [1, 2, 3], "theirs": [2, 4, 6]}
    assert timing["medians"](found) == {"ours": 2, "theirs": 4}


def test_a_fit_line_points_of_a_line() -> None:
    fit_line = runpy.run_path(str(BENCHMARKS / "common" / "timing.py"))["fit_line"]
    found = fit_line([{"hours": hours, "cpu_s": 3 + 2 * hours} for hours in (1, 2, 4)], "hours", "cpu_s")
    assert found == pytest.approx((2, 3, 1))
