"""Laws of receding-horizon execution, with a policy that writes down what it was shown."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pixio_robot.errors import UserError
from pixio_robot.receding_horizon import RecedingHorizon
from pixio_robot.types import Frame, Observation
from policies.chunking import ChunkedActor, get_call_seed
from policies.config import PolicyConfig


class Recorder:
    """Answers with chunks [time * 100 + 0, 1, ...] of the newest frame's time, which is its state and its pixel."""

    spec = SimpleNamespace(action_names=["number"])

    def __init__(self, observation_steps=2, horizon=8, cameras=("front",)):
        self.observation_steps, self.horizon, self.cameras = observation_steps, horizon, list(cameras)
        self.calls = []

    def act(self, observation: Observation, seeds=None):
        times = observation.state[:, :, 0]
        for camera in self.cameras:
            assert torch.equal(observation.images[camera][:, :, 0, 0, 0].float(), times)
        self.calls.append((times.clone(), list(seeds)))
        return times[:, -1, None, None] * 100 + torch.arange(self.horizon)[None, :, None]


def frame(time: int, rendered: bool) -> Frame:
    images = {"front": np.full((2, 2, 3), time, np.uint8)} if rendered else {}
    return Frame(images, np.array([time], np.float32))


def run(actor: ChunkedActor, slots: dict[int, int], steps: int) -> tuple[dict[int, list[float]], dict[int, list[int]]]:
    """Actions of each slot, and the times whose frame it asked for; `slots` maps a slot to its seed."""
    for slot, seed in slots.items():
        actor.reset(slot, seed)
    actions, rendered = {slot: [] for slot in slots}, {slot: [] for slot in slots}
    for time in range(steps):
        wanted = {slot: actor.needs_images(slot) for slot in slots}
        for slot, want in wanted.items():
            rendered[slot] += [time] if want else []
        for slot, action in actor.act({slot: frame(time, wanted[slot]) for slot in slots}).items():
            assert action.shape == (1,)
            actions[slot].append(float(action[0]))
    return actions, rendered


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 30))
def test_renders_exactly_the_frames_that_calls_look_at(observation_steps, execute, steps):
    policy = Recorder(observation_steps)
    # The calls as arithmetic would have them, over a longer run so that frames for the call after the end count too.
    calls = range(0, steps + execute, execute)
    looked_at = {max(call - back, 0) for call in calls for back in range(observation_steps)}
    actions, rendered = run(ChunkedActor(policy, execute, batch_size=1), {0: 7}, steps)
    assert rendered[0] == sorted(time for time in looked_at if time < steps)
    assert actions[0] == [time // execute * execute * 100 + time % execute for time in range(steps)]
    for call, (times, seeds) in zip(calls, policy.calls, strict=False):
        assert times[0].tolist() == [max(call - back, 0) for back in reversed(range(observation_steps))]
        assert seeds == [get_call_seed(7, call)]


def test_blind_policies_need_no_frame():
    actor = ChunkedActor(Recorder(cameras=()), 4)
    _, rendered = run(actor, {0: 1, 1: 2}, 9)
    assert rendered == {0: [], 1: []}


def test_every_call_has_the_same_number_of_rows():
    policy = Recorder()
    actions, _ = run(ChunkedActor(policy, 3, batch_size=4), {5: 1, 2: 2, 9: 3, 1: 4, 0: 5}, 6)
    assert {len(times) for times, _ in policy.calls} == {4}
    assert len(policy.calls) == 2 * 2
    assert all(row == actions[5] for row in actions.values())


@pytest.mark.parametrize("step", [0, 1, 5])
def test_a_frame_whose_call_failed_gives_way_to_the_next_one(step):
    episode = RecedingHorizon(3, 1)
    for time in range(step + 1):
        if time == step:
            episode.add_frame(frame(99, rendered=False))
        episode.add_frame(frame(time, rendered=False))
        looked_at = [int(seen.state[0]) for seen in episode.frames]
        episode.add_chunk(np.zeros((1, 1), np.float32))
        episode.next_action()
    assert looked_at == [max(step - back, 0) for back in (2, 1, 0)]


def test_actions_that_are_not_finite_are_refused():
    policy = Recorder(horizon=1)
    actor = ChunkedActor(policy, 1, batch_size=1)
    actor.reset(0, 7)
    actor.act({0: frame(0, rendered=True)})
    policy.act = lambda observation, seeds: torch.tensor([[[torch.nan]]])
    with pytest.raises(UserError, match=r"non-finite action at step 1 of the episode with seed 7: its training"):
        actor.act({0: frame(1, rendered=True)})


def test_slots_restart_independently():
    actor = ChunkedActor(Recorder(), 4, batch_size=2)
    run(actor, {0: 1, 1: 2}, 3)
    actor.reset(1, 3)
    assert actor.needs_images(1)
    actions = actor.act({0: frame(3, actor.needs_images(0)), 1: frame(50, True)})
    assert actions[0][0] == 3
    assert actions[1][0] == 5000


def test_temporal_ensembling_averages_all_predictions_for_a_step():
    weight = 0.5
    actor = ChunkedActor(Recorder(horizon=3), 1, batch_size=1, ensemble_weight=weight)
    actions, rendered = run(actor, {0: 1}, 5)
    assert rendered[0] == list(range(5))
    for time in range(5):
        starts = range(max(time - 2, 0), time + 1)
        weights = np.exp(-weight * np.arange(len(starts)))
        expected = np.average([start * 100 + time - start for start in starts], weights=weights)
        assert actions[0][time] == pytest.approx(expected, rel=1e-5)


class Gripper:
    """Moves on with every call, and closes the gripper from the time `closes` on, as it foresees at any time."""

    spec, observation_steps, horizon, cameras = SimpleNamespace(action_names=["x", "gripper"]), 1, 6, ()

    def __init__(self, closes=4, foresees=True):
        self.closes, self.foresees, self.now = closes, foresees, 0

    def act(self, observation: Observation, seeds=None):
        times = self.now + torch.arange(self.horizon)
        closed = (times if self.foresees else torch.full_like(times, self.now)) >= self.closes
        self.now += 1
        return torch.stack([0.1 * times + 0.01 * self.now, torch.where(closed, 0.9, -0.3)], dim=1)[None]


def grips(policy: Gripper, weight: float, steps: int = 12) -> np.ndarray:
    actor = ChunkedActor(policy, 1, batch_size=1, ensemble_weight=weight)
    actor.reset(0, 1)
    return np.stack([actor.act({0: frame(time, False)})[0] for time in range(steps)])


def test_a_gripper_with_two_values_takes_the_one_nearer_to_the_average():
    actions = grips(Gripper(foresees=False), weight=0.1)
    assert set(actions[:, 1]) == {np.float32(-0.3), np.float32(0.9)}
    # Of the six predictions for a step, the three older ones weigh more than the three newer ones.
    assert actions[:, 1].tolist() == pytest.approx([-0.3] * 7 + [0.9] * 5)
    assert len(set(actions[:, 0])) == 12, "other dimensions are averaged"
    assert grips(Gripper(), weight=0.1)[:, 1].tolist() == pytest.approx([-0.3] * 4 + [0.9] * 8)


def test_a_dimension_with_a_third_value_is_averaged():
    policy = Gripper(foresees=False)
    act = policy.act
    policy.act = lambda *args: torch.where(act(*args) == -0.3, 0.1 * min(policy.now, 2), act(*args))
    assert len(set(grips(policy, weight=0.1)[:, 1])) > 3


def test_two_chunks_that_each_hold_still_are_averaged():
    episode = RecedingHorizon(1, 1, ensemble_weight=0.0)
    found = []
    for value in (0.0, 0.2):
        episode.add_frame(frame(0, False))
        episode.add_chunk(np.full((2, 1), value, np.float32))
        found.append(float(episode.next_action()[0]))
    assert found == pytest.approx([0.0, 0.1])


@pytest.mark.parametrize("form", ["xyzw", "wxyz"])
def test_quaternions_are_averaged_as_rotations_whichever_of_their_signs_is_predicted(form):
    axis, degrees = np.array([0.6, 0.0, 0.8]), (10, 40, 25)
    stem = "eef_quat" if form == "xyzw" else "eef_quat_wxyz"
    quaternions = Rotation.from_rotvec(np.outer(np.radians(degrees), axis)).as_quat(scalar_first=form == "wxyz")
    predictions = np.array([[1], [-1], [1]]) * quaternions

    class Turning:
        spec = SimpleNamespace(action_names=["x [m]", *(f"{stem}.{axis} [1]" for axis in form)])
        observation_steps, horizon, cameras = 1, 4, ()
        calls = iter(predictions)

        def act(self, observation: Observation, seeds=None):
            chunk = np.tile([len(predictions), *next(self.calls)], (1, self.horizon, 1))
            return torch.from_numpy(chunk.astype(np.float32))

    actor = ChunkedActor(Turning(), 1, batch_size=1, ensemble_weight=0.0)
    actor.reset(0, 1)
    actions = np.stack([actor.act({0: frame(time, False)})[0] for time in range(3)])
    turns = Rotation.from_quat(actions[:, 1:], scalar_first=form == "wxyz").as_rotvec(degrees=True)
    np.testing.assert_allclose(turns, np.outer([10, 25, 25], axis), atol=0.1)
    np.testing.assert_allclose(np.linalg.norm(actions[:, 1:], axis=1), 1, atol=1e-6)
    assert (actions[:, 1:] @ predictions[-1] * [1, -1, 1] > 0).all(), "of the two signs, the newest prediction's"


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_a_weight_that_means_nothing_is_refused(weight):
    with pytest.raises(UserError, match=r"ensemble_weight=.* must be at least 0, or null"):
        PolicyConfig(ensemble_weight=weight)


@pytest.mark.parametrize(
    ("settings", "executed"),
    [({}, 4), ({"horizon": 1}, 1), ({"horizon": 16, "past_actions": 1}, 8), ({"execute": 7}, 7)],
)
def test_half_of_a_chunk_is_carried_out_unless_said_otherwise(settings, executed):
    assert PolicyConfig(**settings).executed == executed


def test_a_policy_cannot_carry_out_more_than_it_predicts():
    with pytest.raises(UserError, match="execute = 8 must lie between 1 and the policy's horizon, 7"):
        PolicyConfig(horizon=8, past_actions=1, execute=8)


def test_seeds_of_calls_differ_and_stay():
    seeds = {get_call_seed(episode, step) for episode, step in itertools.product(range(50), range(50))}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert get_call_seed(3, 8) == get_call_seed(3, 8) == get_call_seed(3, 8, noise_seed=0)
    assert len({get_call_seed(3, 8, noise_seed) for noise_seed in range(5)}) == 5


def test_the_same_episode_is_played_with_other_noise():
    policies = [Recorder(), Recorder()]
    for noise_seed, policy in enumerate(policies):
        run(ChunkedActor(policy, 4, noise_seed=noise_seed), {0: 7}, 5)
    (_, first), (_, again) = policies[0].calls[0], policies[1].calls[0]
    assert first[0] == get_call_seed(7, 0)
    assert again[0] == get_call_seed(7, 0, 1)


@pytest.mark.parametrize("execute", [0, 9])
def test_execute_must_fit_the_horizon(execute):
    with pytest.raises(UserError, match="between 1 and the policy's horizon, 8"):
        ChunkedActor(Recorder(), execute)
