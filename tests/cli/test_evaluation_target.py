"""Who is evaluated, as the actor that plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import SPEC, make_store

from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.evaluate import EvaluateCommand, _map_names
from pixio_robot.cli.evaluation_target import checkpoint_fingerprint, finished_policy
from pixio_robot.data.stats import compute_statistics
from pixio_robot.errors import UserError
from pixio_robot.files import read_json, write_json
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


def test_a_checkpoint_is_known_by_its_weights_and_their_averages(tmp_path: Path) -> None:
    seen = set()
    for number, part in enumerate(("model", "ema", "optimizer")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "one.safetensors").write_text(part)
        seen.add(checkpoint_fingerprint(tmp_path))
        assert len(seen) == min(number + 1, 2)


def test_a_policy_of_relative_poses_needs_the_state_though_it_is_not_shown_it(tmp_path: Path) -> None:
    statistics = compute_statistics(make_store(tmp_path / "demos"), range(4))
    save_policy(tmp_path / "policy", build_policy("bc", BCConfig(), SPEC, statistics, None))
    path = tmp_path / "policy" / "config.json"
    description = read_json(path)
    description["config"]["conditioning"]["use_state"] = False
    for poses, names in (("absolute", ()), ("relative", SPEC.state_names)):
        description["config"]["action_pose_repr"] = poses
        write_json(path, description)
        spec = finished_policy(str(tmp_path / "policy"), "x").spec
        assert spec is not None
        assert spec.state_names == names


def test_a_task_that_a_policy_of_several_does_not_know_is_named_with_those_it_knows(tmp_path: Path) -> None:
    statistics = compute_statistics(make_store(tmp_path / "demos"), range(4))
    save_policy(tmp_path / "policy", build_policy("bc", BCConfig(), SPEC, statistics, None))
    path = tmp_path / "policy" / "config.json"
    write_json(path, read_json(path) | {"goals": {"Lift": [1.0, 0.0], "Stack": [0.0, 1.0]}})
    target = finished_policy(str(tmp_path / "policy"), "x")
    command = load_settings("evaluate", EvaluateCommand, ["checkpoint=x", "task=Lfit"])
    with pytest.raises(UserError, match=r"Unknown task 'Lfit'\. Did you mean 'Lift'"):
        _map_names(command, target, SPEC)
