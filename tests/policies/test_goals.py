"""What is wanted, told to every method: it is learned from, it decides what is done, and it travels along."""

import numpy as np
import pytest
import torch

from pixio_robot.cli.evaluation_target import finished_policy
from pixio_robot.cli.serve import load_served_policy
from pixio_robot.errors import UserError
from pixio_robot.types import Batch, Frame, Observation
from policies.acting import ActingConfig
from policies.chunking import ChunkedActor
from policies.config import ConditioningConfig, DenoiserConfig
from policies.persistence import load_policy, save_policy
from policies.player import PolicyPlayer
from policies.registry import POLICIES, build_policy

GOALS = {"left": [1.0, 0.0, 0.2], "right": [-1.0, 0.5, 0.2]}


def told(world, small_config, name: str, **options):
    torch.manual_seed(0)
    conditioning = ConditioningConfig(goal_dim=3, goal_width=8, **options.pop("conditioning", {}))
    policy = build_policy(name, small_config(name, conditioning, **options), world.spec, world.statistics, None)
    policy.goals = GOALS
    return policy


def batch_of(world, count: int, goal) -> Batch:
    batch = world.windows(count, 0)
    return Batch(Observation({}, batch.observation.state, goal=goal), batch.actions, batch.ignored)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_goal_is_learned_from_and_decides(world, small_config, name, tmp_path):
    policy = told(world, small_config, name)
    batch = batch_of(world, 4, torch.tensor([GOALS["left"], GOALS["right"]] * 2))
    policy.loss(batch)[0].backward()
    assert policy.conditioning.goal.weight.grad.abs().sum() > 0
    policy.eval()
    state = batch.observation.state[:1]
    left, right = (policy.act(Observation({}, state, goal=torch.tensor([goal])), [1]) for goal in GOALS.values())
    assert not torch.allclose(left, right)
    policy.goals = {task: np.array(goal) for task, goal in GOALS.items()}
    save_policy(tmp_path / "policy", policy)
    again = load_policy(tmp_path / "policy")
    assert again.goals == GOALS
    assert torch.equal(again.act(Observation({}, state, goal=torch.tensor([GOALS["left"]])), [1]), left)


def test_the_transformer_is_told_in_every_frame(world, small_config):
    denoiser = DenoiserConfig(name="transformer", widths=[32], dropout=0.0)
    policy = told(world, small_config, "flow", denoiser=denoiser)
    policy.loss(batch_of(world, 2, torch.tensor([GOALS["left"]] * 2)))[0].backward()
    assert policy.conditioning.goal.weight.grad.abs().sum() > 0


def test_differences_of_frames_leave_the_goal_alone(world, small_config):
    policy = told(world, small_config, "bc", conditioning={"fusion": "difference"})
    assert policy.act(batch_of(world, 2, torch.tensor([GOALS["left"]] * 2)).observation).shape == (2, 8, 3)


def test_an_actor_tells_its_policy(world, small_config):
    policy = told(world, small_config, "bc")
    actions = {}
    for task, goal in GOALS.items():
        actor = ChunkedActor(policy, 2, batch_size=2, goal=goal)
        actor.reset(0, 1)
        actions[task] = torch.from_numpy(
            actor.act({0: Frame({}, world.windows(1, 0).observation.state[0, 0].numpy())})[0]
        )
    assert not torch.allclose(actions["left"], actions["right"])


def test_a_missing_or_strange_goal_is_named(world, small_config):
    policy = told(world, small_config, "bc")
    with pytest.raises(UserError, match=r"goal of shape \(2, 3\), but the observation has none"):
        policy.act(batch_of(world, 2, None).observation)
    with pytest.raises(UserError, match=r"one of shape \(2, 4\)"):
        policy.act(batch_of(world, 2, torch.zeros(2, 4)).observation)
    with pytest.raises(UserError, match="goal_dim=-1 must be at least 0"):
        ConditioningConfig(goal_dim=-1)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_actions_of_the_past_are_learned_and_not_carried_out(world, small_config, name):
    torch.manual_seed(0)
    config = small_config(name, ConditioningConfig(), past_actions=1)
    policy = build_policy(name, config, world.spec, world.statistics, None)
    assert (policy.chunk, policy.horizon) == (8, 7)
    batch = world.windows(3, 0)
    observation = Observation({}, batch.observation.state)
    policy.loss(Batch(observation, batch.actions, batch.ignored))[0].backward()
    policy.eval()
    acted = policy.act(observation, [1, 2, 3])
    assert acted.shape == (3, 7, 3)
    with torch.no_grad():
        whole = policy.actions.bounded_inverse(
            policy.sample(policy.encode_observation(observation, augment=False), [1, 2, 3])
        )
    torch.testing.assert_close(acted, whole[:, 1:])
    with pytest.raises(UserError, match="past_actions = 8"):
        small_config(name, ConditioningConfig(), past_actions=8)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_episode_may_have_a_goal_of_its_own(world, small_config, batch_size):
    policy = told(world, small_config, "flow")
    frame = Frame({}, np.zeros(world.spec.state_dim, np.float32))
    alone = {}
    for task, goal in GOALS.items():
        actor = ChunkedActor(policy, 2, goal=goal, batch_size=batch_size)
        actor.reset(0, 5)
        alone[task] = actor.act({0: frame})[0]
    actor = ChunkedActor(policy, 2, goal=GOALS["left"], batch_size=batch_size)
    actor.reset(0, 5, GOALS["right"])
    actor.reset(1, 5)
    acted = actor.act({0: frame, 1: frame})
    np.testing.assert_allclose(acted[0], alone["right"], atol=1e-5)
    np.testing.assert_allclose(acted[1], alone["left"], atol=1e-5)
    assert not np.allclose(acted[0], acted[1])


def test_a_policy_without_goals_is_refused_when_it_is_loaded_and_not_at_its_first_call(world, small_config, tmp_path):
    policy = told(world, small_config, "bc")
    policy.goals = {}
    save_policy(tmp_path / "policy", policy)
    target = finished_policy(str(tmp_path / "policy"), "mine")
    for load in (
        lambda: target.make_actor("t", ActingConfig(), 1, torch.device("cpu")),
        lambda: load_served_policy(str(tmp_path / "policy"), ActingConfig(), "cpu"),
        lambda: PolicyPlayer(tmp_path / "policy"),
    ):
        with pytest.raises(UserError, match="goal-conditioned but has no goals"):
            load()
