"""A finished evaluation, without the simulator."""

from collections.abc import Callable
from pathlib import Path

import pytest
from demo_data import SPEC

from pixio_robot.evaluation.evaluate import summarise
from pixio_robot.evaluation.results import EvaluatedPolicy, append_episode, write_summary
from pixio_robot.types import EpisodeResult


@pytest.fixture
def write_evaluation() -> Callable[..., None]:
    """Write an evaluation of two episodes, one of them successful."""

    def write(directory: Path, **policy: object) -> None:
        values = {"name": directory.name, "label": "BC", "policy": "bc", "encoder": "none", "training_seed": 0} | policy
        directory.mkdir(parents=True, exist_ok=True)
        ends = [
            EpisodeResult(seed=seed, success=seed == 1, steps=3, episode_return=1.0, highest_reward=1.0)
            for seed in (1, 2)
        ]
        for end in ends:
            append_episode(directory, end)
        write_summary(directory, summarise(EvaluatedPolicy(**values), SPEC, ends))  # type: ignore[arg-type]

    return write
