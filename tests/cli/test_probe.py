"""`probe` on a real environment: a card a run, a page over all cards."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("pixio-robot")
SMALL = ["encoder=random", "encoder.encoder.size=micro", "encoder.encoder.patch=8", "encoder.encoder.image_size=48"]
FEW = ["env=lift_cluttered", "env.image_size=48", "truth.episodes=6", "truth.frames_per_episode=2", "device=cpu"]


@pytest.mark.slow
@pytest.mark.sim
def test_two_encoders_side_by_side(tmp_path: Path) -> None:
    for seed in (0, 1):
        command = [PROGRAM, "probe", *SMALL, *FEW, f"encoder.seed={seed}", f"out={tmp_path}/probes/seed{seed}"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        # The frames are gathered once.
        assert ("gathering" in result.stdout) == (seed == 0)
    cards = [json.loads((tmp_path / f"probes/seed{seed}/probe.json").read_text()) for seed in (0, 1)]
    assert cards[0]["truth"] == cards[1]["truth"]
    assert cards[0]["fingerprint"] != cards[1]["fingerprint"]
    assert {"cube", "eef"} <= set(cards[0]["positions"])
    assert cards[0]["train_frames"] + cards[0]["test_frames"] == 12
    assert 0 < cards[0]["depth_delta1"] <= 1
    page = (tmp_path / "probes" / "probes.html").read_text()
    assert page.count("<img") == 2
    assert "http" not in page
    assert len(list(csv.DictReader((tmp_path / "probes" / "probes.csv").open()))) == 2


def test_no_encoder_is_nothing_to_probe(tmp_path: Path) -> None:
    command = [PROGRAM, "probe", "encoder=none", f"out={tmp_path}/x"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "nothing to probe" in result.stderr
    assert not (tmp_path / "x").exists()
