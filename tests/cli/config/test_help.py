"""`--help` explains every setting, and what it prints can be typed."""

import dataclasses
import enum
import importlib
import re

import pytest
from omegaconf import OmegaConf

from pixio_robot.choice import Choice
from pixio_robot.cli.config.field_help import field_help
from pixio_robot.cli.config.help import format_value
from pixio_robot.cli.settings import RunSettings
from policies.registry import POLICIES

COMMANDS = [
    *([name] for name in ("collect", "footage", "ingest", "curate", "pretrain", "distill", "evaluate", "probe")),
    *([name] for name in ("report", "serve")),
    *(["train", f"policy={policy}"] for policy in sorted(POLICIES)),
]


@pytest.fixture
def help_of(capsys):
    def call(command: str, *words: str) -> list[str]:
        module = importlib.import_module(f"pixio_robot.cli.{command}")
        assert module.main([*words, "--help"]) == 0
        return capsys.readouterr().out.splitlines()

    return call


def settings(lines: list[str]) -> dict[str, tuple[str | None, bool]]:
    """Dotted key -> (the value printed, None for the head of a block; whether an explanation follows)."""
    found, inside = {}, []
    ends = next((i for i, line in enumerate(lines) if line.startswith(("Groups:", "Experiments:"))), len(lines))
    for line, after in zip(lines[:ends], [*lines[1:ends], ""], strict=True):
        match = re.match(r"( +)(\w+):(?: (\S+))?", line)
        if match is None or line.strip().startswith("#"):
            continue
        indent, name, value = match.groups()
        inside = [*inside[: len(indent) // 2 - 1], name]
        value = None if value == "#" else value
        found[".".join(inside)] = value, "#" in line or after.strip().startswith("#")
    return found


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_setting_is_explained_and_can_be_typed_as_printed(help_of, words):
    printed = help_of(*words)
    found = settings(printed)
    assert "run" in found
    assert [key for key, (_, explained) in found.items() if not explained] == []
    typed = [f"{key}={value}" for key, (value, _) in found.items() if value not in (None, "???")]
    again = help_of(*words, *typed)
    assert [line for line in again if "usage:" not in line] == [line for line in printed if "usage:" not in line]


def test_what_a_setting_may_be_is_named(help_of):
    text = " ".join(line.partition("#")[2].strip() for line in help_of("train", "policy=diffusion", "encoder=timm"))
    for names in (
        "One of min_max, mean_std, quantile",
        "One of ddim, ddpm, dpm_solver",
        "pixio: trained weights",
        "lora: low-rank",
    ):
        assert names in text


def test_groups_and_experiments_are_those_that_the_command_takes(help_of):
    train, collect = "\n".join(help_of("train")), "\n".join(help_of("collect"))
    assert re.search(r"^  policy=NAME\n(?:    .*\n)*?   \* bc ", train, re.MULTILINE)
    assert "env@trials.env=NAME" in train
    assert not re.search(r"^  (env|encoder_training)=NAME", train, re.MULTILINE)
    assert "diffusion_policy_cnn" in train
    assert re.search(r"^  env=NAME", collect, re.MULTILINE)
    assert "policy=NAME" not in collect
    assert "diffusion_policy_cnn" not in collect


def test_choices_are_in_the_case_that_is_accepted():
    ours, theirs = Choice("Ours", {"FAST": "fast"}), enum.Enum("Theirs", {"FAST": "fast"})
    schema = dataclasses.make_dataclass("Schema", [("ours", ours, ours.FAST), ("theirs", theirs, theirs.FAST)])
    assert (field_help(schema, "ours"), field_help(schema, "theirs")) == ("One of fast.", "One of FAST.")
    assert [format_value(node) for node in OmegaConf.structured(schema)._content.values()] == ["fast", "FAST"]


def test_settings_whose_source_is_not_there_are_left_unexplained():
    schema = dataclasses.make_dataclass("Schema", [("width", int, 3)], bases=(RunSettings,))
    assert field_help(schema, "width") == ""
    assert field_help(schema, "run").startswith("Run directory shared by the commands")


@pytest.mark.parametrize("words", [["help", "report"], ["report", "help"], ["report", "-h"]], ids=" ".join)
def test_help_is_found_however_it_is_asked_for(words, capsys, monkeypatch):
    from pixio_robot.cli.main import main

    monkeypatch.setattr("sys.argv", ["pixio-robot", *words])
    assert main() == 0
    assert "usage: pixio-robot report" in capsys.readouterr().out
