"""Environments that draw from the global generators have numbers of their own."""

import random

import numpy as np

from envs.seeding import IsolatedGenerators, global_seed


def draw() -> tuple[float, float]:
    return random.random(), np.random.random()  # noqa: NPY002 - what a stranger's environment uses


def test_each_environment_continues_its_own_numbers_and_leaves_ours_alone() -> None:
    with global_seed(2**32 + 5):
        whole = [draw() for _ in range(3)]
    with global_seed(1):
        ours = [draw() for _ in range(2)]
    with global_seed(1):
        found = [draw()]
        first, second = IsolatedGenerators(), IsolatedGenerators()
        with first.reset(2**32 + 5):
            drawn = [draw()]
        with second.reset(6):
            draw()
        for _ in range(2):
            with first.activated():
                drawn.append(draw())
        assert drawn == whole
        assert [*found, draw()] == ours
