"""Whether an environment clips what was demonstrated."""

from dataclasses import replace
from pathlib import Path

import pytest
from demo_data import make_store

from envs.config import EnvConfig
from envs.registry import make_env
from envs.spec import make_env_spec
from pixio_robot.cli.clipped_actions import clipped_actions_note
from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.evaluate import EvaluateCommand, _map_names
from pixio_robot.cli.evaluation_target import finished_policy
from pixio_robot.data.stats import compute_statistics
from pixio_robot.errors import UserError
from policies.bc import BCConfig
from policies.persistence import save_policy
from policies.registry import build_policy

DOT = "gymnasium:painted:painted/Dot-v0"
"""An environment that moves its dot by whatever it is told, and declares bounds of -1 to 1."""
NAMES = ("u [rad]", "v [rad]")


def test_actions_beyond_the_bounds_are_told_with_the_way_out() -> None:
    note = clipped_actions_note(NAMES, [-0.96, -1.0], [1.16, 1.0], EnvConfig(task=DOT))
    assert note.startswith("the environment clips actions that the demonstrations contain: u [rad] -0.96 to 1.16 (its")
    assert "(its bounds: -1 to 1)" in note
    assert "env.clip_actions=false" in note
    # Our own controllers cannot execute them either.
    names = tuple("abcdefg")
    note = clipped_actions_note(names, [-2.0] * 7, [1.0] * 7, EnvConfig(task="Lift"))
    assert note.endswith("a -2 to 1, b -2 to 1, c -2 to 1, and 4 more (its bounds: -1 to 1)")


def test_an_evaluation_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statistics = compute_statistics(make_store(tmp_path / "demos"), range(4))
    spec = replace(make_env_spec(EnvConfig(task=DOT)), cameras={})
    size, bounds = spec.action_dim, statistics.actions
    action_range = replace(bounds, **{name: values[:size] for name, values in vars(bounds).items()})
    action_range.maximum[:] = 3.0
    state = replace(statistics.state, **{name: values.repeat(2)[:4] for name, values in vars(statistics.state).items()})
    save_policy(
        tmp_path / "bc",
        build_policy("bc", BCConfig(), spec, replace(statistics, state=state, actions=action_range), None),
    )
    target = finished_policy(str(tmp_path / "bc"), "bc")
    for words, told in (([], True), (["env.clip_actions=false"], False)):
        command = load_settings("evaluate", EvaluateCommand, ["checkpoint=x", f"env.task={DOT}", *words])
        _map_names(command, target, make_env_spec(command.env))
        assert ("the environment clips actions" in capsys.readouterr().out) is told


def test_nothing_is_said_where_actions_arrive_as_they_are() -> None:
    # Rounding, and what the user asked for.
    assert not clipped_actions_note(NAMES, [-1.001, -1.0], [1.0, 1.001], EnvConfig(task=DOT))
    assert not clipped_actions_note(NAMES, [-9.0, -9.0], [9.0, 9.0], EnvConfig(task=DOT, clip_actions=False))
    # Another number of actions is an error of its own.
    assert not clipped_actions_note(NAMES, [-9.0, -9.0], [9.0, 9.0], EnvConfig(task="Lift"))


def test_actions_beyond_the_bounds_are_passed_on_request() -> None:
    moved = {}
    for clip in (True, False):
        env = make_env(EnvConfig(task=DOT, clip_actions=clip))
        before = env.reset(0, False).state[:2]
        moved[clip] = (env.step(before * 0 - 1.5, False).frame.state[:2] - before).tolist()
        env.close()
    assert moved[True] == pytest.approx([-0.05, -0.05], abs=1e-6)
    assert moved[False] == pytest.approx([-0.075, -0.075], abs=1e-6)
    with pytest.raises(UserError, match=r"clip_actions applies only to third-party environments"):
        EnvConfig(task="Lift", clip_actions=False)
