"""Settings of robomimic, diffusion_policy and LeRobot are answered with ours, which are there."""

import pytest

from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.config.foreign_settings import EQUIVALENT_SETTINGS
from pixio_robot.cli.config.policy_group import register_policies
from pixio_robot.cli.evaluate import EvaluateCommand
from pixio_robot.cli.train import TrainCommand
from pixio_robot.errors import UserError

TRAIN = ["data=a", "out=b", "policy=diffusion"]


def told(command: str, word: str) -> str:
    needed = TRAIN if command == "train" else ["checkpoint=x", "out=y"]
    register_policies("train", TRAIN)
    with pytest.raises(UserError) as error:
        load_settings(command, TrainCommand if command == "train" else EvaluateCommand, [*needed, word])
    return str(error.value)


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("n_obs_steps=2", "policy.observation_steps"),
        ("policy.n_obs_steps=2", "policy.observation_steps"),
        ("policy.n_action_steps=8", "policy.execute"),
        ("policy.chunk_size=100", "policy.horizon"),
        ("horizon=16", "policy.horizon"),
        ("train.seq_length=10", "policy.horizon"),
        ("train.hdf5_filter_key=train", "train_where"),
        ("dataloader.batch_size=64", "batch_size"),
        ("dataset.repo_id=lerobot/pusht", "data"),
        ("optimizer.lr=1e-4", "optim.lr"),
        ("steps=1000", "loop.steps"),
        ("policy.path=runs/x", "initial_policy"),
    ],
)
def test_a_setting_of_another_project_is_answered_with_ours(word, ours):
    assert f"Did you mean '{ours}'?" in told("train", word)


def test_epochs_are_no_steps():
    assert "Did you mean 'loop.steps' (training steps, not passes over the data)?" in told(
        "train", "training.num_epochs=600"
    )


@pytest.mark.parametrize(
    ("command", "word", "ours"),
    [
        ("train", "--policy.type=act", "policy"),
        ("train", "--batch_size=64", "batch_size"),
        ("train", "--dataset.repo_id=lerobot/pusht", "data"),
        ("evaluate", "--policy.path=runs/x", "checkpoint"),
        ("evaluate", "--eval.n_episodes=50", "episodes"),
    ],
)
def test_options_with_dashes_are_answered_with_settings(command, word, ours):
    assert f"without dashes: {ours}=..." in told(command, word)


@pytest.mark.slow
def test_every_name_of_ours_is_a_setting():
    for names in EQUIVALENT_SETTINGS.values():
        for name in names:
            command, schema, needed = ("train", TrainCommand, TRAIN)
            if name in ("checkpoint", "episodes"):
                command, schema, needed = ("evaluate", EvaluateCommand, ["checkpoint=x", "out=y"])
            register_policies("train", TRAIN)
            value = load_settings(command, schema, needed)
            for part in name.split("."):
                value = getattr(value, part)
