import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

import numpy as np
import pytest

from envs.config import EnvConfig, Variation
from envs.registry import make_env
from envs.seeding import global_seed


@pytest.fixture(scope="session")
def lift():
    env = make_env(EnvConfig(image_size=48))
    yield env
    env.close()


@pytest.fixture(scope="session")
def cluttered():
    env = make_env(EnvConfig(task="Stack", image_size=48, variation=Variation.CLUTTERED))
    yield env
    env.close()


@pytest.fixture(scope="session")
def begin_recording():
    """begin_recording(env) -> (model_file, state): robosuite's environment as its recorder starts an episode."""

    def begin(env) -> tuple[str, np.ndarray]:
        with global_seed(3):
            env.reset()
            model_file, state = env.sim.model.get_xml(), env.sim.get_state().flatten()
            env.reset_from_xml_string(model_file)
        env.sim.reset()
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        return model_file, state

    return begin
