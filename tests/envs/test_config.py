import importlib.metadata

import pytest

from envs.config import EnvConfig
from envs.experts import make_expert
from envs.registry import spec_of
from pixio_robot.errors import UserError


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"task": "Lfit"}, "'Lift'"),
        ({"robot": "Sawyer"}, "Panda"),
        ({"cameras": ["head"]}, "front, hand"),
        ({"cameras": ["hand", "hand"]}, "twice"),
        ({"image_size": 4}, "image_size"),
        ({"start_spread": 0.5}, "start_spread"),
        ({"object_scale": 2.0}, "object_scale"),
        ({"horizon": 0}, "horizon"),
        ({"control_hz": 30}, "control_hz"),
    ],
)
def test_wrong_values_are_named(wrong, says):
    with pytest.raises(UserError, match=says):
        EnvConfig(**wrong)


def test_unknown_expert_is_named():
    with pytest.raises(UserError, match="Lift, Stack"):
        make_expert("Door")


def test_spec_follows_the_configuration_without_a_simulator():
    spec = spec_of(EnvConfig(image_size=64, cameras=["hand"]))
    assert list(spec.cameras) == ["hand"]
    assert spec.cameras["hand"].height == 64
    assert (spec.state_dim, spec.action_dim) == (11, 7)
    assert importlib.metadata.version("robosuite") in spec.simulator_version
    assert not spec_of(EnvConfig()).differences(spec_of(EnvConfig(start_spread=0.05)))
    assert spec_of(EnvConfig()).differences(spec_of(EnvConfig(task="Stack")))
