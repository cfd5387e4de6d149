"""The recipes compose by the command in their own header, and say what they cost and what to expect."""

import functools
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest

from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.cli.config.policy_group import register_policies
from pixio_robot.cli.distill import DistillCommand
from pixio_robot.cli.pretrain import PretrainCommand
from pixio_robot.cli.train import TrainCommand
from pixio_robot.training.pretrain import build_pixio
from pixio_robot.vision.flops import pretraining_flop

RECIPES = sorted(config_directory().glob("experiment/pixio_*.yaml"))
POLICIES = sorted(path for path in config_directory().glob("experiment/*.yaml") if path not in RECIPES)
SCHEMAS = {"pretrain": PretrainCommand, "distill": DistillCommand}


def composed(path: Path) -> PretrainCommand | DistillCommand:
    command = re.search(r"# Command: (.*)", path.read_text())
    assert command is not None
    words = shlex.split(command[1])
    name = next(word for word in words if word in SCHEMAS)
    return load_settings(name, SCHEMAS[name], words[words.index(name) + 1 :])


@functools.cache
def trained(name: str) -> TrainCommand:
    """What the training command in a policy recipe's header gives."""
    head = (config_directory() / f"experiment/{name}.yaml").read_text()
    command = re.search(r"^# .*?pixio-robot train ((?:.*\\\n)*.*)", head, re.MULTILINE)
    assert command is not None
    words = shlex.split(re.sub(r"\\\n#|  \(.*\)", "", command[1]))
    register_policies("train", words)
    return load_settings("train", TrainCommand, [*words, "seed=3"])


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_recipe_composes_by_its_own_command(path):
    command = trained(path.stem)
    assert command.out == f"runs/{path.stem}"
    assert command.loop.seed == 3
    assert all(f"# {word}:" in path.read_text() for word in ("Command", "Cost", "Result"))


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("act_chunk100", 0.2),
        ("cortexbench_bc", 0.0),
        ("diffusion_policy_cnn", 0.02),
        ("diffusion_policy_transformer", 0.02),
    ],
)
def test_a_recipe_holds_out_what_was_held_out(name, share):
    assert trained(name).validation_share == share


def test_the_recipe_of_robomimic_keeps_the_split_of_the_file():
    command = trained("robomimic_bc_rnn_gmm")
    assert (command.train_where, command.validation_where) == ("info.mask.train == true", "info.mask.valid == true")


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("robomimic_bc_rnn_gmm", "unit"),
        ("diffusion_policy_cnn", "symmetric"),
        ("diffusion_policy_transformer", "symmetric"),
    ],
)
def test_the_image_head_is_the_published_one(name, pixels):
    command = trained(name)
    assert command.encoder.resnet18.pixels == pixels
    head = {"keypoints": 32, "activations": False, "learn_sharpness": False, "project": 64}
    assert head.items() <= asdict(command.policy.conditioning.pooling).items()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_composes_by_its_own_command(path):
    head = path.read_text()
    for word in ("# Command:", "# Cost:", "# Result:"):
        assert head.count(word) == 1
    assert composed(path).out


def test_the_published_recipe_is_the_published_one():
    """arXiv 2512.15715: 8192 images a step, 400 x 1605 steps, 40 x 1605 of warm-up, 2.5e-5 for 256 images."""
    config = composed(config_directory() / "experiment/pixio_h16_in21k.yaml")
    assert isinstance(config, PretrainCommand)
    assert config.batch_size * config.loop.accumulate == 8192
    assert (config.loop.steps, config.optim.warmup_steps) == (400 * 1605, 40 * 1605)
    assert (config.optim.lr, config.optim.betas, config.optim.weight_decay) == (2.5e-5, [0.9, 0.95], 0.05)
    assert (config.decoder.width, config.decoder.depth, config.decoder.heads) == (512, 32, 16)
    assert (config.mask.ratio, config.mask.block, config.encoder.drop_path) == (0.75, 4, 0.4)
    cost = pretraining_flop(config.encoder, config.decoder, config.mask, config.crop_size)
    assert cost == pytest.approx(449e9, rel=0.02)


def test_the_small_recipe_builds():
    config = composed(config_directory() / "experiment/pixio_micro8_cpu.yaml")
    assert isinstance(config, PretrainCommand)
    assert build_pixio(config)[0].encoder.grid(config.crop_size, config.crop_size) == (12, 12)
