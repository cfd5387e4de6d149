"""Where a policy does not fit the environment, the settings of one that it fits are named."""

import dataclasses

import pytest

from envs.config import Controller, EnvConfig, RenderQuality
from envs.spec import make_env_spec
from envs.suggestion import suggest_env_settings
from pixio_robot.errors import UserError
from pixio_robot.types import SEVERAL

SPARSE = {"cameras": ["hand"], "image_size": 64, "control_hz": 10}


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
    ],
)
def test_the_settings_make_an_environment_that_fits(trained_in: dict, evaluated_in: dict, settings: str) -> None:
    policy = make_env_spec(EnvConfig(**trained_in))
    hint = suggest_env_settings(policy, EnvConfig(**evaluated_in))
    assert hint == f" For an environment that it fits, add {settings}."
    assert suggest_env_settings(policy, EnvConfig(**evaluated_in), prefix="trials.").count("trials.env.") >= 1


def test_of_several_tasks_one_is_named_and_the_others_listed() -> None:
    lift = make_env_spec(EnvConfig())
    tasks = ["Stack", "Door"]
    several = dataclasses.replace(lift, task=SEVERAL.join(tasks))
    hint = suggest_env_settings(several, EnvConfig(), tasks)
    assert hint.endswith("add env.task=Stack (or another of its tasks: Stack, Door).")


def test_nothing_is_said_of_what_no_setting_would_mend() -> None:
    lift = make_env_spec(EnvConfig())
    assert suggest_env_settings(dataclasses.replace(lift, task="fold the towel"), EnvConfig()) == ""
    assert suggest_env_settings(dataclasses.replace(lift, action_names=("x", "y")), EnvConfig()) == ""

    def refuse(spec: object) -> None:
        raise UserError("no such camera")

    assert suggest_env_settings(lift, EnvConfig(), in_names_of_policy=refuse) == ""  # type: ignore[arg-type]
