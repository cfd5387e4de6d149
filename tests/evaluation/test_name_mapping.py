"""Policies in environments that call things otherwise: what is said is taken up, what is not said is no accident."""

import dataclasses

import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.name_mapping import NameMappingConfig, map_names, suggest_name_mapping
from pixio_robot.types import OF_THE_TASK, UNKNOWN, CameraSpec, Frame

SIZE = CameraSpec(height=24, width=32)


@pytest.fixture
def env(make_spec):
    """Somebody's environment: two pictures, four numbers."""
    return make_spec(
        task="gymnasium:Theirs-v0",
        robot=OF_THE_TASK,
        controller=OF_THE_TASK,
        render_quality=UNKNOWN,
        cameras={"pixels": SIZE, "wrist": CameraSpec(height=16, width=16)},
        state_names=("block.0 [?]", "block.1 [?]", "agent_pos.0 [?]", "agent_pos.1 [?]"),
        action_names=("action.0 [?]", "action.1 [?]"),
    )


@pytest.fixture
def policy(make_spec):
    """Of imported demonstrations."""
    return make_spec(
        task="pusht",
        robot=UNKNOWN,
        controller=UNKNOWN,
        simulator=UNKNOWN,
        cameras={"image": SIZE},
        state_names=("state.0", "state.1"),
        action_names=("action.0", "action.1"),
        render_quality=UNKNOWN,
    )


ALL = NameMappingConfig(cameras={"image": "pixels"}, state=["agent_pos"], by_position=True)


def test_what_is_said_to_be_the_same_fits_and_nothing_else_does(policy, env):
    assert policy.differences(map_names(policy, env, ALL).spec) == []
    for less, field in (
        (dataclasses.replace(ALL, cameras={}), "cameras"),
        (dataclasses.replace(ALL, state=[]), "state_names"),
        (dataclasses.replace(ALL, by_position=False), "action_names"),
    ):
        assert any(found.startswith(field) for found in policy.differences(map_names(policy, env, less).spec))


def test_sizes_and_the_rate_must_agree_whatever_is_said(policy, env):
    small = dataclasses.replace(env, cameras={"pixels": CameraSpec(height=24, width=24)})
    (found,) = policy.differences(map_names(policy, small, ALL).spec)
    assert "24x32 against 24x24" in found
    (found,) = policy.differences(map_names(policy, dataclasses.replace(env, control_hz=5.0), ALL).spec)
    assert found.startswith("control_hz")
    (found,) = policy.differences(map_names(policy, dataclasses.replace(env, action_names=("a",)), ALL).spec)
    assert found == "action_names: missing action.0, action.1, unexpected a"


def test_what_both_sides_know_is_no_matter_of_position(make_spec):
    ours = make_spec()
    for changes in ({"robot": "Panda"}, {"controller": "torque"}, {"task": "Plane"}, {"render_quality": "fast"}):
        other = dataclasses.replace(ours, **changes)
        assert len(ours.differences(map_names(ours, other, NameMappingConfig(by_position=True)).spec)) == 1
        assert suggest_name_mapping(ours, other, NameMappingConfig()) == ""


def test_the_actor_is_shown_the_frames_under_its_names(policy, env):
    class Actor:
        def reset(self, slot, seed):
            self.begun = slot, seed

        def needs_images(self, slot):
            return slot == 3

        def act(self, frames):
            self.frames = frames
            return {slot: np.zeros(2) for slot in frames}

    actor = Actor()
    shown = map_names(policy, env, ALL).actor(actor)
    image, wrist = np.full((24, 32, 3), 7, np.uint8), np.zeros((16, 16, 3), np.uint8)
    frames = {0: Frame({"pixels": image, "wrist": wrist}, np.arange(4.0)), 1: Frame({}, np.arange(4.0) + 4)}
    shown.reset(2, 9)
    assert actor.begun == (2, 9)
    assert [shown.needs_images(slot) for slot in (2, 3)] == [False, True]
    assert list(shown.act(frames)) == [0, 1]
    assert actor.frames[0].images["image"] is image
    assert actor.frames[1].images == {}
    assert [frame.state.tolist() for frame in actor.frames.values()] == [[2.0, 3.0], [6.0, 7.0]]
    assert map_names(policy, env, NameMappingConfig(by_position=True)).actor(actor) is actor


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (NameMappingConfig(cameras={"img": "pixels"}), "camera of the policy .*'img'.*Valid choices: image"),
        (NameMappingConfig(cameras={"image": "pixel"}), "camera of the environment .*'pixel'.*Did you mean 'pixels'"),
        (NameMappingConfig(state=["agent"]), "part of the environment's state .*'agent'.*agent_pos, block"),
    ],
)
def test_names_that_are_not_there_are_answered_with_those_that_are(policy, env, config, says):
    with pytest.raises(UserError, match=says):
        map_names(policy, env, config)


def test_the_way_out_is_named_where_there_is_one(policy, env):
    state = NameMappingConfig(state=["agent_pos.1", "agent_pos.0"])
    said = "add cameras='{image: pixels}' state=[agent_pos.1,agent_pos.0] by_position=true."
    assert suggest_name_mapping(policy, env, state).endswith(said)
    assert map_names(policy, env, state).columns == [3, 2]
    assert "trials.by_position=true" in suggest_name_mapping(policy, env, state, prefix="trials.")
    assert suggest_name_mapping(policy, env, NameMappingConfig()) == ""  # four numbers are not two
    twins = dataclasses.replace(env, cameras={"left": SIZE, "right": SIZE})
    assert "(check which camera is which)" in suggest_name_mapping(policy, twins, state)


def test_no_more_is_said_than_is_needed(make_spec):
    """A camera that the policy sees by its own name is no candidate, and names that agree are left to agree."""
    policy = make_spec(cameras={"front": SIZE, "image": SIZE})
    env = dataclasses.replace(policy, cameras={"front": SIZE, "pixels": SIZE})
    assert suggest_name_mapping(policy, env, NameMappingConfig()).endswith("add cameras='{image: pixels}'.")


def test_of_several_tasks_one_is_to_be_named(policy, env):
    several = dataclasses.replace(policy, task="push + pull")
    state = NameMappingConfig(state=["agent_pos"])
    said = suggest_name_mapping(several, env, state, ["push", "pull"])
    assert "task='push' by_position=true (check which task of push, pull)" in said
    told = dataclasses.replace(several, task="pull")
    assert told.differences(map_names(told, env, dataclasses.replace(ALL, task="pull")).spec) == []
    (found,) = several.differences(map_names(several, env, ALL).spec)
    assert found.startswith("task")


def test_rotations_that_a_policy_says_in_another_form_are_turned_into_the_environments(make_spec):
    place = [f"eef_pos.{axis} [m]" for axis in "xyz"]
    turn = [f"eef_axis_angle.{axis} [rad]" for axis in "xyz"]
    six = [f"eef_rot6d.{column}{axis} [1]" for column in "xy" for axis in "xyz"]
    theirs = make_spec(action_names=(*place, *turn, "gripper"))
    mine = dataclasses.replace(theirs, action_names=(*place, *six, "gripper"))

    class Actor:
        def act(self, frames):
            return {slot: np.array([1, 2, 3, 1, 0, 0, 0, 0, 1, -1], np.float32) for slot in frames}

    names = map_names(mine, theirs, NameMappingConfig())
    assert mine.differences(names.spec) == []
    (action,) = names.actor(Actor()).act({0: Frame({}, np.zeros(3))}).values()  # type: ignore[arg-type]
    assert action.dtype == np.float32
    np.testing.assert_allclose(action, [1, 2, 3, np.pi / 2, 0, 0, -1], atol=1e-6)
    deltas = dataclasses.replace(theirs, action_names=tuple(f"eef_delta_pos.{axis} [0.05 m]" for axis in "xyz"))
    assert mine.differences(map_names(mine, deltas, NameMappingConfig()).spec)
