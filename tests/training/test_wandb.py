"""Weights & Biases gets what the other sinks get; offline, into the run directory."""

import json
import sys
import types

import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.training.monitoring.loggers import MetricLoggers


@pytest.mark.slow
def test_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    picture = np.zeros((4, 6, 3), np.uint8)
    with MetricLoggers(tmp_path, 0, wandb=True) as log:
        log.write(7, {"loss": 0.25, "panels": picture})
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    assert list(run.glob("files/media/images/panels_*.png"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 7, "loss": 0.25}


def test_without_wandb_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'pixio-robot\[wandb\]'"):
        MetricLoggers(tmp_path, 0, wandb=True)


class Failing(Exception):
    pass


def fake(monkeypatch, init):
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Image=None))
    monkeypatch.setitem(sys.modules, "wandb.errors", types.SimpleNamespace(Error=Failing))


def test_a_resumed_training_continues_its_run_and_a_new_one_does_not(tmp_path, monkeypatch):
    asked = []

    def init(**settings):
        asked.append(settings)
        return types.SimpleNamespace(finish=lambda: None)

    fake(monkeypatch, init)
    out = tmp_path / "mine" / "pretrain"
    out.mkdir(parents=True)
    (out / "config.json").write_text('{"settings": {"batch_size": 4}}')
    for step in (0, 20, 0):
        with MetricLoggers(out, step, wandb=True):
            pass
    first, resumed, anew = (settings["id"] for settings in asked)
    assert first == resumed != anew
    assert asked[0]["name"] == "mine/pretrain"
    assert asked[0]["config"] == {"batch_size": 4}


def test_missing_wandb_login_is_reported(tmp_path, monkeypatch):
    def init(**settings):
        raise Failing("No API key configured.")

    fake(monkeypatch, init)
    with pytest.raises(UserError, match=r"No API key configured.*wandb login.*WANDB_MODE=offline"):
        MetricLoggers(tmp_path, 0, wandb=True)
