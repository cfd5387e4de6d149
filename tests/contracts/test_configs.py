"""Every configuration that is shipped composes, and none can run code."""

import dataclasses
import enum
import itertools
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pixio_robot.choice import Choice
from pixio_robot.cli import collect, curate, distill, evaluate, footage, ingest, pretrain, probe, report, serve, train
from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.config.examples import EXAMPLES, PAGES
from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.cli.config.policy_group import register_policies
from pixio_robot.cli.main import COMMANDS
from pixio_robot.cli.quickstart import load_steps

SCHEMAS = {
    "collect": collect.CollectCommand,
    "footage": footage.FootageCommand,
    "ingest": ingest.IngestCommand,
    "curate": curate.CurateCommand,
    "pretrain": pretrain.PretrainCommand,
    "distill": distill.DistillCommand,
    "train": train.TrainCommand,
    "evaluate": evaluate.EvaluateCommand,
    "probe": probe.ProbeCommand,
    "report": report.ReportCommand,
    "serve": serve.ServeCommand,
}
NEEDED = {
    "train": ["out=x"],
    "evaluate": ["checkpoint=random"],
    "probe": ["out=x"],
    "serve": ["checkpoint=x"],
}
ROOT = config_directory()
EXPERIMENTS = sorted({path.parent.name for path in ROOT.glob("experiment/*/steps.yaml")})


@pytest.fixture(autouse=True, scope="module")
def _policies() -> None:
    register_policies("train", [])


def test_every_command_with_a_config_is_tested_here() -> None:
    assert {path.stem for path in ROOT.glob("*.yaml")} == set(SCHEMAS)
    assert set(SCHEMAS) <= set(COMMANDS)


@pytest.mark.parametrize("command", SCHEMAS)
def test_defaults_compose(command: str) -> None:
    assert isinstance(load_settings(command, SCHEMAS[command], NEEDED.get(command, [])), SCHEMAS[command])


def _enumerations(kind: Any) -> Iterator[type[enum.Enum]]:
    """Of a schema and of all that it nests."""
    for part in (kind, *typing.get_args(kind)):
        if dataclasses.is_dataclass(part):
            for hint in typing.get_type_hints(part).values():
                yield from _enumerations(hint)
        elif isinstance(part, type) and issubclass(part, enum.Enum):
            yield part


@pytest.mark.parametrize("command", SCHEMAS)
def test_a_choice_may_be_written_in_any_case(command: str) -> None:
    assert [one.__name__ for one in _enumerations(SCHEMAS[command]) if not issubclass(one, Choice)] == []


@pytest.mark.parametrize(
    ("command", "group"),
    [("train", "policy"), ("train", "encoder"), ("collect", "env"), ("footage", "env"), ("evaluate", "env")],
)
def test_every_choice_of_a_group_composes(command: str, group: str) -> None:
    names = sorted(path.stem for path in (ROOT / group).glob("*.yaml"))
    assert names
    for name in names:
        load_settings(command, SCHEMAS[command], [*NEEDED.get(command, []), f"{group}={name}"])


@pytest.mark.parametrize("command", SCHEMAS)
def test_the_examples_of_help_compose(command: str) -> None:
    assert (ROOT.parent / "docs" / f"{PAGES[command]}.md").is_file()
    for example in EXAMPLES[command]:
        called, *words = shlex.split(example)
        assert called == command
        for run in _runs(words):
            load_settings(command, SCHEMAS[command], list(run))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_step_of_an_experiment_composes(experiment: str) -> None:
    steps = load_steps(experiment, None)
    assert steps.steps
    composed = set()
    for step in steps.steps:
        command, *words = shlex.split(step)
        for run in _runs(words):
            # Steps that differ only in where things lie compose alike.
            kind = (command, *(word.split("=")[0] if "/" in word.partition("=")[2] else word for word in run))
            if kind not in composed:
                load_settings(command, SCHEMAS[command], [f"experiment={experiment}", f"run={steps.run}", *run])
            composed.add(kind)


def _runs(words: list[str]) -> list[tuple[str, ...]]:
    """The words of the runs of a sweep (`-m`), whose `out` names what only a run knows; else just the words.

    Each choice of a group composes in its own way; of a plain setting, such as a seed, one value stands for all."""
    if "-m" not in words:
        return [tuple(words)]
    assert all("${hydra:" not in word or word.startswith("out=") for word in words)
    words = ["out=x" if word.startswith("out=") else word for word in words if word != "-m"]
    keys_and_values = [word.split("=", maxsplit=1) for word in words]
    values = [value.split(",") if (ROOT / key).is_dir() else value.split(",")[:1] for key, value in keys_and_values]
    return list(
        itertools.product(
            *([f"{key}={one}" for one in of] for (key, _), of in zip(keys_and_values, values, strict=True))
        )
    )


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_configuration_names_code(path: Path) -> None:
    assert "_target_" not in path.read_text()
    OmegaConf.load(path)


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiment/*/steps.yaml")), ids=lambda path: path.parent.name)
def test_an_experiment_opens_with_command_cost_and_result(path: Path) -> None:
    head = path.read_text().split("run:")[0]
    assert "Cost:" in head
    assert "Result:" in head or "result" in head.lower()
