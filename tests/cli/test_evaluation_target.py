"""Who is evaluated, as the actor that plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import SPEC, make_store

from pixio_robot.cli.evaluation_target import finished_policy
from pixio_robot.data.stats import compute_statistics
from pixio_robot.types import Frame
from policies.acting import ActingConfig
from policies.bc import BCConfig
from policies.persistence import save_policy
from policies.registry import build_policy


def test_states_in_other_units_are_told_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statistics = compute_statistics(make_store(tmp_path / "demos"), range(4))
    save_policy(tmp_path / "policy", build_policy("bc", BCConfig(), SPEC, statistics, None))
    actor, _ = finished_policy(str(tmp_path / "policy"), "x").make_actor("Test", ActingConfig(), 1, torch.device("cpu"))
    actor.reset(0, 1)
    for state in (np.zeros(3), np.array([0, 1e4, 0]), np.array([0, 1e4, 0])):
        actor.act({0: Frame({}, state.astype(np.float32))})
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert told[0].startswith("evaluate: The state is far outside the range of the training demonstrations: y [m]")
