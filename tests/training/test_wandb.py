"""Weights & Biases gets what the other sinks get; offline, into the run directory."""

import json
import sys

import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.training.sinks import MetricsLog


@pytest.mark.slow
def test_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    picture = np.zeros((4, 6, 3), np.uint8)
    with MetricsLog(tmp_path, 0, wandb=True) as log:
        log.write(7, {"loss": 0.25, "panels": picture})
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    assert list(run.glob("files/media/images/panels_*.png"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 7, "loss": 0.25}


def test_without_wandb_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'pixio-robot\[wandb\]'"):
        MetricsLog(tmp_path, 0, wandb=True)
