"""A policy in a loop of one's own does what it does in an evaluation, and refuses what it cannot see."""

import dataclasses
import re
import warnings

import numpy as np
import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.types import Frame
from policies import ActingConfig, ChunkedActor, PolicyPlayer, actor_of
from policies.acting import apply_acting_config
from policies.bc import BCConfig, BCPolicy
from policies.persistence import save_policy


@pytest.fixture
def frames(world):
    rng = np.random.default_rng(0)
    size = world.spec.cameras["front"]

    def frame() -> Frame:
        image = rng.integers(0, 256, (size.height, size.width, 3), np.uint8)
        return Frame({"front": image, "hand.top": image}, rng.normal(size=2).astype(np.float32))

    return [frame() for _ in range(9)]


def test_it_plays_what_an_evaluation_does(make, frames):
    policy = make("diffusion")
    actor = ChunkedActor(policy, policy.config.executed, batch_size=1)
    actor.reset(3, seed=7)
    expected = [actor.act({3: frame})[3] for frame in frames]
    player = PolicyPlayer(policy)
    player.reset(seed=7)
    looked = []
    for frame, action in zip(frames, expected, strict=True):
        looked.append(player.needs_images)
        seen = frame if player.needs_images else Frame({}, frame.state)
        assert np.array_equal(player.act(seen), action)
    # It looks back over two frames and carries out 4 of 8 actions.
    assert looked == [True, False, False, True, True, False, False, True, True]
    player.reset(seed=8)
    assert not np.array_equal(player.act(frames[0]), expected[0])
    player.reset(seed=torch.tensor(7))  # type: ignore[arg-type]
    assert np.array_equal(player.act(frames[0]), expected[0])
    with pytest.raises(TypeError, match="integer"):
        player.reset(seed=7.0)  # type: ignore[arg-type]


def test_it_acts_as_it_is_told(make, frames):
    policy = make("bc")
    player = PolicyPlayer(policy, ActingConfig(execute=1))
    player.act(frames[0])
    assert player.needs_images
    as_trained = PolicyPlayer(policy)
    as_trained.act(frames[0])
    assert not as_trained.needs_images
    with pytest.raises(UserError, match="inference_steps=3 applies only to policies that sample"):
        PolicyPlayer(make("bc"), ActingConfig(inference_steps=3))
    with pytest.raises(UserError, match=r"noise_scale=0\.5 applies only to policies that sample"):
        PolicyPlayer(make("bc"), ActingConfig(noise_scale=0.5))
    with pytest.raises(UserError, match=r"policy\.noise_scale=1\.5 must be from 0 to 1"):
        PolicyPlayer(make("flow"), ActingConfig(noise_scale=1.5))
    apply_acting_config(policy, ActingConfig(ensemble_weight=0.25))
    assert policy.config.ensemble_weight == 0.25
    apply_acting_config(policy, ActingConfig(execute=2))
    assert policy.config.ensemble_weight == 0.25
    apply_acting_config(policy, ActingConfig(ensemble_weight=-1))
    assert policy.config.ensemble_weight is None


def test_a_frames_arrays_may_be_reused(make, frames):
    """As a camera driver does that fills one buffer; the policy looks back over two frames."""
    policy = make("bc")
    fresh, reused = (PolicyPlayer(policy, ActingConfig(execute=2)) for _ in range(2))
    image, state = np.empty_like(frames[0].images["front"]), np.empty_like(frames[0].state)
    for frame in frames[:5]:
        image[:], state[:] = frame.images["front"], frame.state
        assert np.array_equal(fresh.act(frame), reused.act(Frame({"front": image}, state)))


def test_a_frame_that_does_not_fit_is_named_and_forgotten(make, frames):
    player = PolicyPlayer(make("bc"))
    first = frames[0]
    with pytest.raises(UserError, match=r"no image of camera 'front'; the policy uses \['front'\]"):
        player.act(Frame({}, first.state))
    with pytest.raises(UserError, match=r"images\['front'\] must be uint8 .* not float64"):
        player.act(Frame({"front": first.images["front"] / 255}, first.state))
    with pytest.raises(UserError, match=r"state must be float32 of shape \(2,\), not float32 \(3,\)"):
        player.act(Frame(first.images, np.zeros(3, np.float32)))
    again = PolicyPlayer(make("bc"))
    assert np.array_equal(player.act(first), again.act(first))


def test_a_frame_that_the_policy_does_not_look_at_is_checked_too(make, frames):
    player, again = PolicyPlayer(make("bc")), PolicyPlayer(make("bc"))
    for one in (player, again):
        one.act(frames[0])
        assert not one.needs_images
    for message, frame in NO_FRAMES.items():
        with pytest.raises(UserError, match=message):
            player.act(frame)
    state = frames[1].state
    with pytest.raises(UserError, match=r"images\['front'\] must be uint8"):
        player.act(Frame({"front": np.zeros((1, 2, 3), np.uint8)}, state))
    assert np.array_equal(player.act(Frame({}, state)), again.act(Frame({}, state.tolist())))


NO_FRAMES = {
    "non-finite value": Frame({}, np.full(2, np.inf, np.float32)),
    r"of shape \(2,\), not float32 \(3,\)": Frame({}, np.zeros(3, np.float32)),
    "state must be 2 numbers": Frame({}, np.array(["a", "b"])),
    r"A frame must be Frame\(images, state\).*, not dict": {"images": {}, "state": np.zeros(2)},
    r"not Frame\(NoneType, ndarray\)": Frame(None, np.zeros(2)),
}


def test_a_state_in_other_units_is_warned_of_once(make, world):
    player = PolicyPlayer(make("bc", cameras=[]))
    low, high = world.statistics.state.minimum, world.statistics.state.maximum
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        player.act(Frame({}, high + 2 * (high - low)))
    degrees = high + 50 * (high - low) * [0, 1]
    with pytest.warns(UserWarning, match=rf"{re.escape(world.spec.state_names[1])} is .* same units") as said:
        player.act(Frame({}, degrees))
    assert world.spec.state_names[0] not in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        player.act(Frame({}, degrees))


def test_a_player_takes_the_directory_of_a_policy(make, tmp_path):
    policy = make("bc", cameras=[])
    save_policy(tmp_path / "run" / "model", policy)
    frame = Frame({}, np.zeros(2, np.float32))
    expected = PolicyPlayer(policy).act(frame)
    for path in (tmp_path / "run", str(tmp_path / "run" / "model")):
        assert np.array_equal(PolicyPlayer(path).act(frame), expected)
    with pytest.raises(UserError, match="There is no policy directory"):
        PolicyPlayer("some/path")
    with pytest.raises(UserError, match="a policy or a policy directory, not dict"):
        PolicyPlayer({"policy": policy})  # pyright: ignore[reportArgumentType]


def test_a_blind_policy_refuses_a_state_that_does_not_fit(make):
    player = PolicyPlayer(make("bc", cameras=[]))
    with pytest.raises(UserError, match="state contains a non-finite value"):
        player.act(Frame({}, np.full(2, np.nan, np.float32)))
    with pytest.raises(UserError, match=r"state must be float32 of shape \(2,\)"):
        player.act(Frame({}, np.zeros(3, np.float32)))
    assert np.isfinite(player.act(Frame({}, np.zeros(2, np.float32)))).all()


def test_a_policy_of_several_tasks_must_be_told_one(make):
    policy = make("bc", cameras=[], goal_dim=2)
    policy.goals = {"push": [1.0, 0.0], "pull": [0.0, 1.0]}
    with pytest.raises(UserError, match="needs a task: set task= to one of 'push', 'pull'"):
        actor_of(policy)
    with pytest.raises(UserError, match="Did you mean 'pull'"):
        actor_of(policy, task="pul")
    frame = Frame({}, np.zeros(2, np.float32))
    pushed, pulled = (PolicyPlayer(policy, task=task).act(frame) for task in ("push", "pull"))
    assert not np.array_equal(pushed, pulled)


@dataclasses.dataclass(kw_only=True)
class DrawnConfig(BCConfig):
    inference_steps: int = 4


class Drawn(BCPolicy):
    """Of somebody who draws actions in a way of their own."""

    config_class = DrawnConfig
    draws = True


def test_any_policy_that_draws_in_steps_may_take_others(world):
    policy = Drawn(DrawnConfig(), world.spec, world.statistics, None)
    apply_acting_config(policy, ActingConfig(inference_steps=2))
    assert policy.config.inference_steps == 2
