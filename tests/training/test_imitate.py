"""A small policy with an encoder of its own, on windows of a real demonstration store."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import SPEC
from torch import nn

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.loading import DemoBatches, DemoWindows
from pixio_robot.errors import UserError
from pixio_robot.training.distributed.processes import Processes
from pixio_robot.training.distributed.strategy import DistributedModel
from pixio_robot.training.imitate import ImitateConfig, imitate
from pixio_robot.training.imitation.encoders import encoder_lr_scales, named_encoders
from pixio_robot.training.imitation.validation import Validation, sum_distances
from pixio_robot.training.imitation.weighting import weight_batches
from pixio_robot.training.loop import LoopConfig
from pixio_robot.training.optim import OptimConfig
from pixio_robot.types import Batch, CameraSpec, DemoSpec, Episode, Observation, TrainablePolicy
from pixio_robot.vision.checkpointing import save_checkpoint
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder

HORIZON = 3


class Conditioning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=16, class_tokens=1), seed=1)


class ClassTokenPolicy(nn.Module):
    """The newest frame's class token and state -> a chunk of actions."""

    def __init__(self, spec: DemoSpec, frozen: bool) -> None:
        super().__init__()
        self.spec, self.observation_steps, self.horizon, self.cameras = spec, 2, HORIZON, ["front"]
        self.goals = {}
        self.conditioning = Conditioning()
        self.conditioning.encoder.requires_grad_(not frozen)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(self.conditioning.encoder.feature_dim + spec.state_dim, HORIZON * spec.action_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def act(self, observation, seeds=None):
        features = self.conditioning.encoder(observation.images["front"][:, -1]).cls[:, 0]
        condition = torch.cat([self.dropout(features), observation.state[:, -1]], dim=1)
        return self.head(condition).unflatten(1, (HORIZON, self.spec.action_dim))

    def loss(self, batch: Batch):
        error = (self.act(batch.observation) - batch.actions).square()[~batch.ignored].mean()
        return error, {"loss": error.detach()}

    @property
    def encoders(self):
        return [self.conditioning.encoder]

    def prepare(self, observations):
        pass

    def real_share(self, batch: Batch):
        return (~batch.ignored).float().mean()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DemoStore:
    spec = dataclasses.replace(
        SPEC,
        cameras={"front": CameraSpec(height=16, width=16)},
        state_names=("x [m]", "y [m]"),
        action_names=("dx [m]",),
    )
    store = DemoStore.create(tmp_path_factory.mktemp("demos") / "demos", spec)
    random = np.random.default_rng(0)
    for seed in range(6):
        state = random.normal(size=(9, 2)).astype(np.float32)
        store.append(
            Episode(
                images={"front": np.full((9, 16, 16, 3), 40 * seed, np.uint8)},
                state=state,
                actions=state[:, :1] - 0.5 * state[:, 1:],
                rewards=np.zeros(9, np.float32),
                success=True,
                seed=seed,
            )
        )
    return store


def batches(store: DemoStore, episodes: list[int], batch_size: int = 8) -> DemoBatches:
    windows = DemoWindows(store, observation_steps=2, horizon=HORIZON, cameras=["front"], episodes=episodes)
    return DemoBatches(windows, batch_size=batch_size)


CONFIG = ImitateConfig(
    batch_size=8,
    validation_every=5,
    validation_batches=1,
    optim=OptimConfig(lr=1e-2),
    loop=LoopConfig(steps=12, log_every=4, save_every=5),
    device="cpu",
)


def run(store: DemoStore, run_dir: Path, frozen: bool = False, config: ImitateConfig = CONFIG, stop_at: int = -1):
    policy = ClassTokenPolicy(store.spec, frozen)
    assert isinstance(policy, TrainablePolicy)
    if stop_at >= 0:
        taken, loss = iter(range(100)), policy.loss

        def interrupted(batch):
            if policy.training and next(taken) == stop_at:
                os.kill(os.getpid(), 2)
            return loss(batch)

        policy.loss = interrupted
    save = lambda directory, policy: save_checkpoint(directory, "policy", {}, policy)  # noqa: E731
    return policy, imitate(
        policy, batches(store, [0, 1, 2, 3]), batches(store, [4, 5]), config, run_dir, save, {"data": "demos"}
    )


def test_it_learns_and_validates(store, tmp_path, lab):
    config = dataclasses.replace(CONFIG, loop=LoopConfig(steps=80, log_every=10), validation_every=40)
    _, result = run(store, tmp_path, frozen=True, config=config)
    lines = lab.metric_lines(tmp_path)
    validation = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in validation] == [40, 80]
    assert validation[1]["validation_loss"] < validation[0]["validation_loss"]
    assert next(line["real_share"] for line in lines if "loss" in line) < 1
    assert 0 < validation[1]["validation_action_error"] < validation[0]["validation_action_error"]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    assert result.metrics["validation_loss"] == validation[1]["validation_loss"]


def test_validation_uses_fixed_windows_and_noise(store, tmp_path, lab):
    policy = ClassTokenPolicy(store.spec, frozen=True)
    loss, looks = policy.loss, []

    def noisy(batch):
        value, metrics = loss(batch)
        if not policy.training:
            looks.append(batch.observation.state.sum().item())
        return value + torch.rand(()), metrics

    policy.loss = noisy
    config = dataclasses.replace(
        CONFIG, validation_every=1, validation_batches=2, optim=OptimConfig(lr=1e-12), loop=LoopConfig(steps=3)
    )
    held_out = batches(store, [4, 5], batch_size=4)
    imitate(policy, batches(store, [0, 1]), held_out, config, tmp_path, lambda directory, _: directory.mkdir())
    found = [line["validation_loss"] for line in lab.metric_lines(tmp_path) if "validation_loss" in line]
    assert len(found) == 3
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)
    assert looks == looks[:2] * 3
    assert looks[0] != looks[1]


@pytest.mark.parametrize("frozen", [True, False])
def test_interrupted_and_resumed_equals_uninterrupted(store, tmp_path, lab, frozen):
    run(store, tmp_path / "whole", frozen)
    assert run(store, tmp_path / "stopped", frozen, stop_at=6)[1].interrupted
    torch.manual_seed(1)
    assert run(store, tmp_path / "stopped", frozen)[1].steps == 12
    lab.assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_accumulated_batches_are_one_large_batch_whatever_their_padding(store, tmp_path, lab):
    weights, losses = [], []
    for batch_size, accumulate in ((8, 2), (16, 1)):
        torch.manual_seed(0)
        policy = ClassTokenPolicy(store.spec, frozen=True)
        policy.dropout.p = 0.0
        loop = LoopConfig(steps=6, log_every=1, accumulate=accumulate, dtype="float32")
        config = dataclasses.replace(CONFIG, batch_size=batch_size, use_ema=False, loop=loop)
        stream = batches(store, [0, 1, 2, 3], batch_size)
        run_dir = tmp_path / str(accumulate)
        imitate(policy, stream, None, config, run_dir, lambda directory, _: directory.mkdir())
        weights.append(policy.head.weight.detach())
        losses.append([line["loss"] for line in lab.metric_lines(run_dir)])
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-7)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_batches_of_several_processes_are_weighted_by_the_mean_of_all_of_them(store):
    class Two(Processes):
        def all_reduce_mean(self, values):
            return (values + 0.6) / 2  # the other one's mean share

    policy = ClassTokenPolicy(store.spec, frozen=True)
    observation = Observation({}, torch.zeros(2, 2, 2))
    paddings = torch.tensor([[[False] * 3, [False] * 3], [[False, True, True], [False] * 3]])
    found = [Batch(observation, torch.zeros(2, 3, 1), ignored) for ignored in paddings]
    weighted = weight_batches(policy, found, Two(0, 2), torch.device("cpu"))
    mean = ((1 + 4 / 6) / 2 + 0.6) / 2
    assert [each.weight.item() for each in weighted] == pytest.approx([1 / mean, 4 / 6 / mean])
    assert [each.real_share.item() for each in weighted] == pytest.approx([1, 4 / 6])


def test_frozen_encoder_is_saved_unchanged_and_not_averaged(store, tmp_path, lab):
    from safetensors.torch import load_file

    before = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=16, class_tokens=1), seed=1).fingerprint()
    policy, _ = run(store, tmp_path, frozen=True)
    assert policy.conditioning.encoder.fingerprint() == before
    checkpoint = tmp_path / "checkpoints/step_00000012"
    assert set(lab.load_sharded_part(checkpoint / "ema")) == {"head.weight", "head.bias"}
    assert {key.partition("|")[0] for key in lab.load_sharded_part(checkpoint / "optimizer")} == {
        "head.weight",
        "head.bias",
    }
    assert any(name.startswith("conditioning.encoder.") for name in load_file(tmp_path / "model/model.safetensors"))


def test_trained_encoder_has_its_own_learning_rate(store, tmp_path):
    """Adam's first step moves every parameter by its learning rate."""
    one = LoopConfig(steps=1)
    optim = OptimConfig(lr=1e-3, weight_decay=0.0)
    config = dataclasses.replace(CONFIG, loop=one, optim=optim, encoder_lr_scale=0.1, use_ema=False)
    untouched = ClassTokenPolicy(store.spec, frozen=False)
    # Zero weights of the head would pass no gradient on to the encoder.
    policy = ClassTokenPolicy(store.spec, frozen=False)
    for module in (untouched, policy):
        nn.init.constant_(module.head.weight, 0.1)
    save = lambda directory, policy: save_checkpoint(directory, "policy", {}, policy)  # noqa: E731
    imitate(policy, batches(store, [0, 1]), None, config, tmp_path, save)
    moved = {
        name: (new - old).abs().max().item()
        for (name, new), old in zip(policy.named_parameters(), untouched.parameters(), strict=True)
    }
    assert moved["head.weight"] == pytest.approx(1e-3, rel=0.05)
    assert moved["conditioning.encoder.vit.patch_embed.weight"] == pytest.approx(1e-4, rel=0.05)


def test_layer_decay_gives_deeper_layers_a_higher_learning_rate(store, tmp_path):
    policy = ClassTokenPolicy(store.spec, frozen=False)
    rates = encoder_lr_scales(policy, scale=0.1, layer_decay=0.5)
    assert set(rates) == {name for name, _ in policy.named_parameters() if name.startswith("conditioning.encoder.")}
    blocks = len(policy.conditioning.encoder.vit.blocks)
    assert rates["conditioning.encoder.vit.norm.weight"] == pytest.approx(0.1)
    assert rates[f"conditioning.encoder.vit.blocks.{blocks - 1}.attn.qkv.weight"] == pytest.approx(0.05)
    assert rates["conditioning.encoder.vit.patch_embed.weight"] == pytest.approx(0.1 * 0.5 ** (blocks + 1))


def test_encoders_are_those_that_the_policy_says_under_the_names_of_its_modules():
    policy = nn.Module()
    policy.encoder, policy.eyes = nn.Linear(1, 1), nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    policy.encoders = list(policy.eyes)
    assert [name for name, _ in named_encoders(policy)] == ["eyes.0", "eyes.1"]


def test_action_error_ignores_padding():
    actions = torch.arange(8.0).reshape(1, 4, 2)
    ignored = torch.tensor([[False, False, False, True]])
    batch = Batch(Observation({}, torch.zeros(1, 1, 1)), actions, ignored)
    later = actions[:, 1:] + torch.tensor([1.0, 3.0])
    later[:, 2] = 100.0  # padded
    distances, steps = sum_distances(later, batch)
    assert (distances.tolist(), steps.tolist()) == ([[2.0, 6.0]], [2.0])


class ToldTask(nn.Module):
    """Errs by 1 in x and 3 in y in the first of its tasks, and by 10 times that in the second."""

    def __init__(self):
        super().__init__()
        self.goals = {"push": [1.0, 0.0], "pick it up": [0.0, 1.0], "held out nowhere": [1.0, 1.0]}
        self.spec = dataclasses.replace(SPEC, action_names=("x [m]", "y [m]"))

    def forward(self, batch, seeds=None):
        if seeds is None:
            return torch.tensor(0.5), {}
        errors = torch.tensor([1.0, 3.0]) * (batch.observation.goal @ torch.tensor([1.0, 10.0]))[:, None, None]
        return batch.actions - errors

    def real_share(self, batch):
        return (~batch.ignored).float().mean()


class OneBatch:
    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_the_error_of_every_task_is_that_of_its_steps():
    policy, device = ToldTask(), torch.device("cpu")
    goals = torch.tensor([policy.goals[task] for task in ("push", "pick it up", "push")])
    ignored = torch.tensor([[False, False], [False, True], [False, False]])
    batch = Batch(Observation({}, torch.zeros(3, 1, 1), goal=goals), torch.zeros(3, 2, 2), ignored)
    found = Validation(policy, DistributedModel(policy), OneBatch(batch), 1, LoopConfig(), device)(1)
    assert found == pytest.approx(
        {
            "validation_loss": 0.5,
            "validation_action_error": (4 * 2 + 20) / 5,
            "validation_action_error/x [m]": (4 * 1 + 10) / 5,
            "validation_action_error/y [m]": (4 * 3 + 30) / 5,
            "validation_task_error/push": 2,
            "validation_task_error/pick it up": 20,
        }
    )


def test_mistakes_are_named(store, tmp_path):
    policy = ClassTokenPolicy(store.spec, frozen=True).requires_grad_(False)
    with pytest.raises(UserError, match="no trainable parameter"):
        imitate(policy, batches(store, [0]), None, CONFIG, tmp_path, lambda directory, policy: None)
    with pytest.raises(UserError, match="validation_share=1"):
        ImitateConfig(validation_share=1.0)
    run(store, tmp_path / "a", config=dataclasses.replace(CONFIG, loop=LoopConfig(steps=1)))
    with pytest.raises(UserError, match=r"encoder_lr_scale: 0\.1 there, 0\.5 now"):
        run(store, tmp_path / "a", config=dataclasses.replace(CONFIG, loop=LoopConfig(steps=1), encoder_lr_scale=0.5))
