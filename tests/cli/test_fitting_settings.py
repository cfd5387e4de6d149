"""Where a policy does not fit the environment, the settings of one that it fits are named."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from envs.config import Controller, Engine, EnvConfig, RenderQuality, Variation
from envs.fitting_env import find_fitting_env
from envs.spec import make_env_spec
from pixio_robot.cli.fitting_settings import suggest_settings
from pixio_robot.errors import UserError
from pixio_robot.evaluation.name_mapping import NameMappingConfig
from pixio_robot.types import SEVERAL, DemoSpec

SPARSE = {"cameras": ["hand"], "image_size": 64, "control_hz": 10}


def suggest(policy: DemoSpec, env: EnvConfig, tasks: Sequence[str] = (), prefix: str = "") -> str:
    return suggest_settings(policy, env, NameMappingConfig(), tasks, prefix)


@pytest.mark.parametrize(
    ("trained_in", "evaluated_in", "settings"),
    [
        ({"task": "PickPlaceCan"}, {}, "env.task=PickPlaceCan"),
        ({"variation": "cluttered"}, {"robot": "Sawyer"}, "env.robot=Panda"),
        ({"robot": "Sawyer", **SPARSE}, {}, "env.robot=Sawyer env.image_size=64 env.control_hz=10"),
        ({}, SPARSE, "'env.cameras=[front,hand]' env.image_size=96 env.control_hz=20"),
        (
            {"task": "Stack", "controller": Controller.OSC_POSE_ABSOLUTE, "object_state": True},
            {},
            "env.task=Stack env.controller=osc_pose_absolute env.object_state=true",
        ),
        ({"render_quality": RenderQuality.FULL}, {}, "env.render_quality=full"),
        ({"task": "TabletopPush"}, {}, "env.task=TabletopPush"),
        # MetaWorld has its own rate and robot, and no camera `hand`.
        (
            {"task": "hammer-v3", "cameras": ["front"], "image_size": 256},
            {},
            "env.task=hammer-v3 'env.cameras=[front]' env.image_size=256",
        ),
        ({}, {"task": "TabletopPush", "image_size": 64}, "env.task=Lift env.image_size=96"),
        # A policy that sees no images takes any camera, and `evaluate` makes videos from one.
        ({"task": "hammer-v3", "cameras": []}, {}, "env.task=hammer-v3 'env.cameras=[front]'"),
        # What the other task does not have is set back.
        (
            {"task": "hammer-v3", "cameras": ["front"]},
            {"variation": Variation.CLUTTERED},
            "env.task=hammer-v3 'env.cameras=[front]' env.variation=none",
        ),
        ({"task": "Door"}, {"start_spread": 0.2}, "env.task=Door env.start_spread=0.15"),
        (
            {"task": "TabletopReach"},
            {"engine": Engine.WARP, "task": "TabletopPush"},
            "env.task=TabletopReach env.engine=mujoco",
        ),
        ({}, {"task": "gymnasium:Pendulum-v1", "horizon": 50, "make": {"g": 9.0}}, "env.task=Lift"),
    ],
)
def test_the_settings_make_an_environment_that_fits(trained_in: dict, evaluated_in: dict, settings: str) -> None:
    policy = make_env_spec(EnvConfig(**trained_in))
    hint = suggest(policy, EnvConfig(**evaluated_in))
    assert hint == f" For an environment that it fits, add {settings}."
    assert suggest(policy, EnvConfig(**evaluated_in), prefix="trials.").count("trials.env.") >= 1


def test_of_several_tasks_one_is_named_and_the_others_listed() -> None:
    lift = make_env_spec(EnvConfig())
    tasks = ["Stack", "Door"]
    several = dataclasses.replace(lift, task=SEVERAL.join(tasks))
    hint = suggest(several, EnvConfig(), tasks)
    assert hint.endswith("add env.task=Stack (or another of its tasks: Door).")
    hint = suggest(several, EnvConfig(task="Door", image_size=64), tasks)
    assert hint.endswith("add env.image_size=96 (or another of its tasks: Stack).")


def test_a_task_that_is_mapped_stays() -> None:
    lift = make_env_spec(EnvConfig())
    policy = dataclasses.replace(lift, task="lift the cube")
    hint = suggest_settings(policy, EnvConfig(image_size=64), NameMappingConfig(task="lift the cube"))
    assert hint.endswith("add env.image_size=96.")


def test_a_task_of_a_strangers_policy_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "surprise.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    lift = make_env_spec(EnvConfig())
    for task in ("gymnasium:surprise:Env-v0", "robomimic:nowhere", "libero:x/1"):
        assert suggest(dataclasses.replace(lift, task=task), EnvConfig()) == ""
        assert suggest(lift, EnvConfig(image_size=64), [task]) == ""
    assert "surprise" not in sys.modules


def test_nothing_is_said_of_what_no_setting_would_mend() -> None:
    lift = make_env_spec(EnvConfig())
    assert suggest(dataclasses.replace(lift, task="fold the towel"), EnvConfig()) == ""
    assert suggest(dataclasses.replace(lift, action_names=("x", "y")), EnvConfig()) == ""

    def refuse(spec: object) -> None:
        raise UserError("no such camera")

    assert find_fitting_env(lift, EnvConfig(), in_names_of_policy=refuse) is None  # type: ignore[arg-type]
