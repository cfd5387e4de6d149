"""`probe` on a real environment: a card a run, a page over all cards."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixio_robot.cli.main import dispatch
from pixio_robot.errors import UserError

PROGRAM = Path(sys.executable).with_name("pixio-robot")
SMALL = ["encoder=random", "encoder.encoder.size=micro", "encoder.encoder.patch=8", "encoder.encoder.image_size=48"]
FEW = ["env=tabletop_pick", "env.image_size=48", "truth.episodes=8", "truth.frames_per_episode=3", "device=cpu"]


@pytest.mark.slow
@pytest.mark.sim
def test_two_encoders_side_by_side_over_two_levels(tmp_path: Path) -> None:
    for seed in (0, 1):
        levels = ["levels=[NONE,ALL]", f"encoder.seed={seed}", f"out={tmp_path}/probes/seed{seed}"]
        result = subprocess.run([PROGRAM, "probe", *SMALL, *FEW, *levels], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        # The frames are gathered once.
        assert ("gathering" in result.stdout) == (seed == 0)
    cards = [json.loads((tmp_path / f"probes/seed{seed}/probe.json").read_text()) for seed in (0, 1)]
    assert cards[0]["fingerprint"] != cards[1]["fingerprint"]
    for first, second in zip(cards[0]["levels"], cards[1]["levels"], strict=True):
        assert first["truth"] == second["truth"]
        own = first["own"]
        assert {"cube", "eef"} <= set(own["positions"])
        assert own["train_frames"] + own["test_frames"] == 24
        for way in ("linear", "knn", "no_features"):
            assert 0 < own[way]["depth_delta1"] <= 1
            assert 0 < own[way]["miou"] <= 1
    plain, varied = cards[0]["levels"]
    assert (plain["variation"], varied["variation"]) == ("none", "all")
    # Only the second level moves the camera, and only it has something to be carried over from.
    assert plain["own"]["camera_angle"] is None
    assert varied["own"]["camera_angle"]["mean"] > 0
    assert "camera" in varied["own"]["positions"]
    assert plain["carried"] is None
    assert varied["carried"]["linear"]["depth_rmse_m"] > 0
    page = (tmp_path / "probes" / "probes.html").read_text()
    assert page.count("<img") == 4
    assert "http" not in page
    # What one has without looking is no matter of the encoder.
    assert plain["own"]["no_features"] == cards[1]["levels"][0]["own"]["no_features"]
    # Two encoders, three results (two of their own and a carried one), two ways of reading, and without.
    assert len(list(csv.DictReader((tmp_path / "probes" / "probes.csv").open()))) == 2 * 3 * 3


def test_no_encoder_is_nothing_to_probe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no encoder with encoder=none"):
        dispatch(["probe", "encoder=none", f"out={tmp_path}/x"])
    assert not (tmp_path / "x").exists()
