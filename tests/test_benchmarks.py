"""The scripts of benchmarks/ as a user meets them."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_mistake_is_one_line() -> None:
    words = ["--size=micro", "--image-size=63", "--steps=1", "--batch=1", "--device=cpu"]
    result = subprocess.run(
        [sys.executable, BENCHMARKS / "training_step.py", *words], capture_output=True, text=True, timeout=250
    )
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("training_step.py: ")
