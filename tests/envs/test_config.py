import importlib.metadata
from types import SimpleNamespace

import numpy as np
import pytest

from envs.config import Controller, EnvConfig, Variation
from envs.experts.random_play import RandomPlay
from envs.experts.registry import make_expert
from envs.spec import make_env_spec
from pixio_robot.errors import UserError


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"task": "Lfit"}, "'Lift'"),
        ({"robot": "Sawer"}, "Sawyer"),
        ({"cameras": ["head"]}, "front, frontview, hand"),
        ({"cameras": ["hand", "hand"]}, "duplicates"),
        ({"image_size": 4}, "image_size"),
        ({"start_spread": 0.5}, "start_spread"),
        ({"object_scale": 2.0}, "object_scale"),
        ({"task": "Stack", "object_scale": 0.55}, "object_scale"),
        ({"task": "Door", "start_spread": 0.18}, "start_spread"),
        ({"task": "Wipe", "start_spread": 0.1}, "start_spread"),
        ({"task": "PickPlace", "start_spread": 0.09}, "at least 0.1"),
        ({"task": "hammer-v3", "cameras": ["front"], "start_spread": 0.1}, "start_spread"),
        ({"horizon": 0}, "horizon"),
        ({"control_hz": 30}, "control_hz"),
        ({"task": "TabletopPush", "robot": "UR5e"}, "robot"),
        ({"task": "Wipe", "object_state": True}, "object_state"),
        ({"task": "dm_control:reacher/easy", "cameras": [], "object_state": True}, "object_state"),
        ({"look_seed": 3}, "variation"),
        ({"look_seed": -1, "variation": Variation.ALL}, "look_seed"),
        ({"task": "hammer-v3"}, "front"),
        ({"task": "hammer-v3", "cameras": ["front"], "variation": Variation.ALL}, "variation"),
    ],
)
def test_wrong_values_are_named(wrong, says):
    with pytest.raises(UserError, match=says):
        EnvConfig(**wrong)


def test_the_experts_say_what_they_know():
    with pytest.raises(UserError, match="Panda"):
        make_expert(EnvConfig(robot="UR5e"))
    joints = EnvConfig(controller=Controller.JOINT_POSITION)
    with pytest.raises(UserError, match="osc_pose"):
        make_expert(joints)
    with pytest.raises(UserError, match="osc_pose"):
        RandomPlay().reset(SimpleNamespace(config=joints), np.random.default_rng(0))  # type: ignore[arg-type]


def test_unknown_expert_is_named():
    with pytest.raises(UserError, match="Lift"):
        make_expert(EnvConfig(task="Wipe"))


def test_spec_follows_the_configuration_without_a_simulator():
    spec = make_env_spec(EnvConfig(image_size=64, cameras=["hand"]))
    assert list(spec.cameras) == ["hand"]
    assert spec.cameras["hand"].height == 64
    assert (spec.state_dim, spec.action_dim) == (11, 7)
    assert importlib.metadata.version("robosuite") in spec.simulator_version
    assert not make_env_spec(EnvConfig()).differences(make_env_spec(EnvConfig(start_spread=0.05)))
    assert make_env_spec(EnvConfig()).differences(make_env_spec(EnvConfig(task="Stack")))


def test_names_of_actions_follow_robot_and_controller():
    joints = make_env_spec(EnvConfig(robot="UR5e", controller=Controller.JOINT_POSITION))
    assert (joints.action_dim, joints.controller) == (7, "JOINT_POSITION delta")
    assert joints.action_names[0] == "joint1_delta [0.05 rad]"
    absolute = make_env_spec(EnvConfig(controller=Controller.OSC_POSE_ABSOLUTE))
    assert absolute.action_names[0] == "eef_pos.x [m]"
    assert make_env_spec(EnvConfig()).differences(absolute)
    assert make_env_spec(EnvConfig(task="Wipe")).action_dim == 6
    assert make_env_spec(EnvConfig(task="TabletopPick")).action_dim == 4


def test_levels_of_variation_are_made_of_single_ones():
    single = (Variation.TEXTURES, Variation.LIGHTING, Variation.CAMERA, Variation.DISTRACTORS)
    for level in single:
        assert [level.covers(part) for part in single] == [part is level for part in single]
    assert [Variation.CLUTTERED.covers(part) for part in single] == [True, True, False, True]
    assert all(Variation.ALL.covers(part) for part in single)
    assert not any(Variation.NONE.covers(part) for part in single)
