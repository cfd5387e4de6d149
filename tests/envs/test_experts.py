import numpy as np
import pytest

from envs.config import EnvConfig, Variation
from envs.disturbance import Disturbance
from envs.recording import run_expert
from envs.registry import make_env
from envs.tasks import TASKS, Simulator

pytestmark = pytest.mark.sim


def solved(env, seeds, noise=0.0):
    return [run_expert(env, seed, Disturbance(noise=noise)).success for seed in seeds]


def unseen(task, **config):
    return make_env(EnvConfig(task=task, cameras=[], **config))


@pytest.mark.parametrize("task", ["Lift", "Stack"])
def test_the_expert_solves_its_task(task):
    env = unseen(task)
    assert all(solved(env, range(5)))
    assert all(solved(env, range(2), noise=0.1))
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("Lift", 48), ("Stack", 47)])
@pytest.mark.parametrize("variation", list(Variation))
def test_the_expert_is_reliable_over_the_whole_spread(task, least, variation):
    env = unseen(task, start_spread=0.18, variation=variation)
    assert sum(solved(env, range(1000, 1050))) >= least
    env.close()


def test_noise_is_executed_but_not_recorded(lift):
    clean, noisy = run_expert(lift, 1), run_expert(lift, 1, Disturbance(noise=0.3))
    assert np.array_equal(clean.actions[0], noisy.actions[0])
    assert not np.array_equal(clean.state[1], noisy.state[1])
    assert len(clean) == len(clean.state) == len(clean.rewards) == len(clean.images["front"])
    assert clean.rewards[-1] == 1
    assert clean.rewards[:-1].sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("PickPlaceCan", 19), ("NutAssemblySquare", 18), ("Door", 19)])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_experts_of_longer_tasks_are_reliable(task, least, noise):
    env = unseen(task)
    assert sum(solved(env, range(2000, 2020), noise)) >= least - 2 * (noise > 0)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name, known in TASKS.items() if known.simulator is Simulator.METAWORLD])
def test_metaworlds_policies_hold_success_at_the_last_step(task):
    env = unseen(task)
    assert sum(solved(env, range(4))) >= 3
    env.close()
