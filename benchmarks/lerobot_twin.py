"""Our diffusion policy and lerobot's of the same size, and the same input for both: what the policy benchmarks compare.

ResNet18 with GroupNorm from scratch, 32 keypoints, U-Net; one camera, two frames, 16 actions.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixio_robot.data.stats import Range, Statistics
from pixio_robot.types import Batch, CameraSpec, DemoSpec, Observation
from pixio_robot.vision.config import PoolingConfig
from pixio_robot.vision.resnet18 import ResNet18Config, ResNet18Encoder
from policies.config import ConditioningConfig, DenoiserConfig, DiffusionConfig
from policies.registry import build_policy

STATE, ACTION, FRAMES, HORIZON = 9, 10, 2, 16


def build_ours(side: int, crop: int, widths: list[int], frozen: bool = False) -> Any:
    spec = DemoSpec(
        task="benchmark",
        robot="none",
        simulator="none",
        simulator_version="0",
        controller="position",
        control_hz=10.0,
        cameras={"front": CameraSpec(height=side, width=side)},
        state_names=[f"s{i} [m]" for i in range(STATE)],
        action_names=[f"a{i} [m]" for i in range(ACTION)],
    )

    def unit(count: int) -> Range:
        ones = np.ones(count)
        return Range(-ones, ones, 0 * ones, ones)

    config = DiffusionConfig(
        conditioning=ConditioningConfig(
            cameras=["front"],
            pooling=PoolingConfig(name="spatial_softmax", keypoints=32, activations=False),
            standardise=False,
            crop_shape=None if frozen else [crop, crop],
        ),
        observation_steps=FRAMES,
        horizon=HORIZON,
        denoiser=DenoiserConfig(name="unet", widths=widths, step_dim=128),
    )
    encoder = ResNet18Encoder(ResNet18Config()).requires_grad_(not frozen)
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
    is_pad = torch.zeros(rows, HORIZON, dtype=torch.bool)
    ours = Batch(Observation({"front": images}, state), actions, is_pad).to(device)
    theirs = {
        "observation.images.front": images.permute(0, 1, 4, 2, 3).float() / 255,
        "observation.state": state,
        "action": actions,
        "action_is_pad": is_pad,
    }
    return ours, {name: value.to(device) for name, value in theirs.items()}


def provenance(device: torch.device) -> dict[str, Any]:
    import diffusers
    import lerobot

    root = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return {
        "commit": commit.stdout.strip(),
        "device": f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "lerobot": lerobot.__version__, "diffusers": diffusers.__version__},
    }


def parameter_count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
