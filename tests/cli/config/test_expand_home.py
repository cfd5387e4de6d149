"""`~` is the user's home directory wherever a setting begins with it."""

import pytest
from omegaconf import OmegaConf

from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.config.expand_home import expand_home
from pixio_robot.cli.pretrain import PretrainCommand


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


def test_settings_begin_with_the_home_directory() -> None:
    settings = OmegaConf.create(
        {"path": "~", "data": ["~/a", "b~/c"], "env": {"make": {"file": "~/d", "none": None}}, "label": "~50 episodes"}
    )
    expand_home(settings)
    assert settings == {
        "path": "/home/me",
        "data": ["/home/me/a", "b~/c"],
        "env": {"make": {"file": "/home/me/d", "none": None}},
        "label": "~50 episodes",
    }


def test_settings_that_refer_to_others_do_too() -> None:
    command = load_settings("pretrain", PretrainCommand, ["run='~/runs/a'"])
    assert command.run == "/home/me/runs/a"
    assert command.out == "/home/me/runs/a/pretrain"
