"""A policy may be evaluated in another scene than that of its demonstrations, but not without a word."""

import dataclasses

import pytest
from demo_data import SPEC

from envs.config import EnvConfig, Variation
from envs.spec import make_env_spec
from pixio_robot.evaluation.scenes import other_scene_note

EXPERT = "scripted expert, noise 0.1; "


@pytest.mark.parametrize(
    ("recorded", "note"),
    [
        ({}, ""),
        ({"horizon": 50}, ""),
        (
            {"variation": Variation.CLUTTERED},
            "variation none, start_spread 0.15 m, not variation cluttered, start_spread",
        ),
        ({"start_spread": 0.05}, "start_spread 0.15 m, not variation none, start_spread 0.05 m"),
    ],
)
def test_a_scene_other_than_the_demonstrations_is_told(recorded: dict, note: str) -> None:
    spec = make_env_spec(EnvConfig(**recorded))
    trained = dataclasses.replace(spec, source=EXPERT + spec.source)
    found = other_scene_note(trained, make_env_spec(EnvConfig()))
    assert note in found
    assert bool(found) == bool(note)


def test_one_of_several_scenes_suffices_and_unknown_ones_are_not_told() -> None:
    here = make_env_spec(EnvConfig())
    cluttered = make_env_spec(EnvConfig(variation=Variation.CLUTTERED))
    both = dataclasses.replace(here, source=f"{EXPERT}{cluttered.source} + rollouts of BC (bc); {here.source}")
    assert other_scene_note(both, here) == ""
    bright = make_env_spec(EnvConfig(variation=Variation.LIGHTING))
    assert "not variation cluttered, start_spread 0.15 m or variation none" in other_scene_note(both, bright)
    assert other_scene_note(SPEC, here) == other_scene_note(both, SPEC) == ""
