"""Our diffusion policy and lerobot's of the same size, and the same input for both: what the policy benchmarks compare.

ResNet18 with GroupNorm from scratch, 32 keypoints, U-Net; one camera, two frames, 16 actions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.synthetic_demos import demo_spec, make_store
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.stats import Range, Statistics
from pixio_robot.types import Batch, DemoSpec, Observation
from pixio_robot.vision.config import EncoderConfig, PoolingConfig
from pixio_robot.vision.encoders.resnet18 import ResNet18Config, ResNet18Encoder
from pixio_robot.vision.pixio import PixioEncoder
from policies.config import ConditioningConfig, DenoiserConfig
from policies.diffusion import DiffusionConfig
from policies.registry import build_policy

STATE, ACTION, FRAMES, HORIZON = 9, 10, 2, 16


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """The options for the size of both."""
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512], help="of the U-Net")
    parser.add_argument("--side", type=int, default=84, help="of the images in pixels")
    parser.add_argument("--crop", type=int, default=76, help="of the images in pixels")


def make_spec(side: int) -> DemoSpec:
    state, actions = [f"s{i} [m]" for i in range(STATE)], [f"a{i} [m]" for i in range(ACTION)]
    return demo_spec(["front"], side, state, actions, controller="position", control_hz=10.0)


def make_demonstrations(path: Path, side: int, episodes: int) -> DemoStore:
    return make_store(path, make_spec(side), episodes, values=lambda random, shape: random.uniform(-1, 1, shape))


def build_ours(side: int, crop: int, widths: list[int], frozen: bool = False, vit: str | None = None) -> Any:
    """`vit`: on a frozen Pixio of that size in place of ResNet18."""
    spec = make_spec(side)

    def unit(count: int) -> Range:
        ones = np.ones(count)
        return Range(-ones, ones, 0 * ones, ones, *[ones] * 5)

    config = DiffusionConfig(
        conditioning=ConditioningConfig(
            cameras=["front"],
            pooling=PoolingConfig(name="spatial_softmax", keypoints=32, activations=False),
            standardise=False,
            crop_shape=None if frozen or crop == side else [crop, crop],
        ),
        observation_steps=FRAMES,
        horizon=HORIZON,
        denoiser=DenoiserConfig(name="unet", widths=widths, step_dim=128),
    )
    encoder: Any = ResNet18Encoder(ResNet18Config()) if vit is None else PixioEncoder(EncoderConfig(size=vit))
    encoder.requires_grad_(not frozen and vit is None)
    return build_policy("diffusion", config, spec, Statistics(unit(STATE), unit(ACTION)), encoder)


def build_lerobot(side: int, crop: int, widths: list[int], scheduler: str = "DDPM", steps: int = 100) -> Any:
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig as Theirs
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    config = Theirs(
        n_obs_steps=FRAMES,
        horizon=HORIZON,
        n_action_steps=8,
        input_features={
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(STATE,)),
            "observation.images.front": PolicyFeature(type=FeatureType.VISUAL, shape=(3, side, side)),
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(ACTION,))},
        crop_shape=(crop, crop),
        pretrained_backbone_weights=None,
        use_group_norm=True,
        down_dims=tuple(widths),
        noise_scheduler_type=scheduler,
        num_inference_steps=steps,
        device="cpu",
    )
    return DiffusionPolicy(config)


def make_batch(rows: int, side: int, device: torch.device) -> tuple[Batch, dict[str, torch.Tensor]]:
    """The same windows as each of the two wants them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, FRAMES, side, side, 3), dtype=torch.uint8, generator=generator)
    state = torch.rand(rows, FRAMES, STATE, generator=generator) * 2 - 1
    actions = torch.rand(rows, HORIZON, ACTION, generator=generator) * 2 - 1
    ignored = torch.zeros(rows, HORIZON, dtype=torch.bool)
    ours = Batch(Observation({"front": images}, state), actions, ignored).to(device)
    theirs = {
        "observation.images.front": images.permute(0, 1, 4, 2, 3).float() / 255,
        "observation.state": state,
        "action": actions,
        "action_is_pad": ignored,
    }
    return ours, {name: value.to(device) for name, value in theirs.items()}


def parameter_count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
