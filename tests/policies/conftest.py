"""A two-camera world small enough for tests, and a task in it whose answer is known.

A bright square lies somewhere in each image; the action at step j of a chunk is a fixed function of where it lies and
of the state.
"""

import dataclasses

import numpy as np
import pytest
import torch
from demo_data import SPEC

from pixio_robot.data.stats import Range, Statistics
from pixio_robot.types import Batch, CameraSpec, DemoSpec, Observation
from pixio_robot.vision.config import EncoderConfig, PoolingConfig
from pixio_robot.vision.pixio import PixioEncoder
from policies.act import ACTConfig
from policies.bc import BCConfig
from policies.bc_gmm import BCGMMConfig
from policies.bc_rnn import BCRNNConfig
from policies.config import ConditioningConfig, DenoiserConfig
from policies.diffusion import DiffusionConfig
from policies.flow import FlowConfig
from policies.registry import build_policy
from policies.shortcut import ShortcutConfig

SIDE, HORIZON = 32, 8


@dataclasses.dataclass
class World:
    """`windows(n)` draws n training windows of the task."""

    spec: DemoSpec
    statistics: Statistics
    observation_steps: int = 2

    def windows(self, count: int, seed: int) -> Batch:
        rng = np.random.default_rng(seed)
        place = rng.integers(0, SIDE - 8, size=(count, 2))
        images = np.full((count, self.observation_steps, SIDE, SIDE, 3), 30, np.uint8)
        for image, (row, column) in zip(images, place, strict=True):
            image[:, row : row + 8, column : column + 8] = (250, 180, 20)
        state = rng.uniform(-1, 1, size=(count, self.observation_steps, 2)).astype(np.float32) * [0.5, 3.0]
        goal = np.concatenate([place / (SIDE - 8) * 2 - 1, state[:, -1, :1]], axis=1)
        ramp = np.linspace(0.3, 1.0, HORIZON)[None, :, None]
        actions = torch.from_numpy(goal[:, None] * ramp * [1.0, 0.5, 2.0]).float()
        ignored = torch.zeros(count, HORIZON, dtype=torch.bool)
        pixels = torch.from_numpy(images)
        both = {"front": pixels, "hand.top": pixels.flip(2)}
        return Batch(Observation(both, torch.from_numpy(state).float()), actions, ignored)


@pytest.fixture(scope="session")
def world() -> World:
    spec = dataclasses.replace(
        SPEC,
        control_hz=20.0,
        cameras={name: CameraSpec(height=SIDE, width=SIDE) for name in ("front", "hand.top")},
        state_names=("x [m]", "y [m]"),
        action_names=("dx [m]", "dy [m]", "grip"),
    )
    uniform = 3**-0.5
    state = np.array([0.5, 3.0])
    action = np.array([1.0, 0.5, 1.0])
    statistics = make_statistics(
        -state, state, 0 * state, uniform * state, -action, action, 0 * action, uniform * action
    )
    return World(spec, statistics)


def make_statistics(*values: np.ndarray) -> Statistics:
    """Minimum, maximum, mean and std of the state, then of the actions."""

    def span(low: np.ndarray, high: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Range:
        return Range(low, high, mean, std, low, low, mean, high, high)

    return Statistics(span(*values[:4]), span(*values[4:]))


@pytest.fixture(scope="session")
def encoder() -> PixioEncoder:
    """Frozen and random."""
    encoder = PixioEncoder(EncoderConfig(size="micro", patch=8, image_size=SIDE, class_tokens=4), seed=0)
    return encoder.requires_grad_(False).eval()


SMALL = {"denoiser": DenoiserConfig(name="mlp", widths=[128, 128])}
CONFIGS = {
    "bc": (BCConfig, {"width": 64}),
    "bc_gmm": (BCGMMConfig, {"width": 64}),
    "bc_rnn": (BCRNNConfig, {"rnn_hidden_dim": 64, "rnn_num_layers": 1}),
    "act": (
        ACTConfig,
        {"dim_model": 32, "n_heads": 4, "dim_feedforward": 64, "n_encoder_layers": 1, "n_vae_encoder_layers": 1},
    ),
    "diffusion": (DiffusionConfig, SMALL),
    "flow": (FlowConfig, SMALL),
    "shortcut": (ShortcutConfig, SMALL),
}


def make_config(name: str, conditioning: ConditioningConfig, **options):
    config, small = CONFIGS[name]
    return config(conditioning=conditioning, **{"observation_steps": 2, "horizon": HORIZON} | small | options)


@pytest.fixture(scope="session")
def small_config():
    """small_config(name, conditioning, **options) -> a config of that policy, small enough to train in a test."""
    return make_config


@pytest.fixture
def make(world, encoder):
    """make(name, cameras=[...], **conditioning options) -> a policy of that name."""

    def build(name: str, cameras: list[str] | None = None, encoder=encoder, **options):
        options.setdefault("pooling", PoolingConfig(name="spatial_softmax", keypoints=8))
        conditioning = ConditioningConfig(cameras=["front"] if cameras is None else cameras, **options)
        torch.manual_seed(0)
        seen_through = encoder if conditioning.cameras else None
        return build_policy(name, make_config(name, conditioning), world.spec, world.statistics, seen_through)

    return build
