"""Several processes train one thing: they are refused if each was told to train something else."""

import dataclasses
from typing import Any

import pytest

from pixio_robot.cli.stages.training_stage import _check_same_settings
from pixio_robot.errors import UserError
from pixio_robot.training.distributed.processes import Processes


@dataclasses.dataclass(kw_only=True)
class Settings:
    out: str = "runs/a"
    data: str = "disk0/demos"
    workers: int = 1
    seed: int = 0


class Two(Processes):
    """This process and another one, of given settings."""

    other: dict[str, Any]

    def all_gather(self, value: Any) -> list[Any]:
        return [value, {**value, **{name: self.other[name] for name in value.keys() & self.other.keys()}}]


def two(**other: Any) -> Two:
    processes = Two(0, 2)
    object.__setattr__(processes, "other", other)
    return processes


def test_processes_with_other_settings_are_refused():
    inputs = {"data": "disk0/demos"}
    _check_same_settings(two(), Settings(), inputs)
    _check_same_settings(two(data="disk1/demos", workers=3), Settings(), inputs)
    for name, value in {"out": "runs/b", "seed": 1}.items():
        with pytest.raises(UserError, match=f"^{name} is .* in the first of 2 processes and '?{value}'? in number 2"):
            _check_same_settings(two(**{name: value}), Settings(), inputs)
