"""All stages at toy size, by the console command, as a user runs them; then a second time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest

PROGRAM = Path(sys.executable).with_name("pixio-robot")


def quickstart(run: Path) -> str:
    command = [PROGRAM, "quickstart", "experiment=smoke", f"run={run}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=run.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.timeout(600)
def test_footage_to_report(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = quickstart(run)
    assert first.count("pixio-robot ") >= 11

    html = (run / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", html)
    for label in ("Random actions", "Frozen Pixio", "No vision"):
        assert label in html
    rows = (run / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 3

    results = run / "evaluations" / "bc-pixio"
    episodes = [json.loads(line) for line in (results / "episodes.jsonl").read_text().splitlines()]
    assert sorted(episode["seed"] for episode in episodes) == [100000, 100001, 100002, 100003]
    summary = json.loads((results / "summary.json").read_text())
    assert summary["low"] <= summary["rate"] <= summary["high"]
    for video in results.glob("videos/*.mp4"):
        with av.open(video) as container:
            assert sum(1 for _ in container.decode(video=0)) > 1
    assert list(run.glob("pretrain/panels/*.png"))

    before = {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")}
    second = quickstart(run)
    assert second.count("is up to date") == 10  # every stage but the report
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors")}
