import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

import pytest

from envs.config import EnvConfig, Variation
from envs.registry import make_env


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
