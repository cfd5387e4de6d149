"""Our diffusion policy and lerobot's of the same size, and the same input for both: what the policy benchmarks compare.

ResNet18 with GroupNorm from scratch, 32 keypoints, U-Net; one camera, two frames, 16 actions.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import provenance as provenance_of
from provenance import torch_device

from pixio_robot.data.demos import DemoStore
from pixio_robot.data.stats import Range, Statistics
from pixio_robot.types import Batch, CameraSpec, DemoSpec, Episode, Observation
from pixio_robot.vision.config import EncoderConfig, PoolingConfig
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.resnet18 import ResNet18Config, ResNet18Encoder
from policies.config import ConditioningConfig, DenoiserConfig
from policies.diffusion import DiffusionConfig
from policies.registry import build_policy

STATE, ACTION, FRAMES, HORIZON = 9, 10, 2, 16
HZ, STEPS = 10.0, 50


def make_spec(side: int) -> DemoSpec:
    return DemoSpec(
        task="benchmark",
        robot="none",
        simulator="none",
        simulator_version="0",
        controller="position",
        control_hz=HZ,
        cameras={"front": CameraSpec(height=side, width=side)},
        state_names=[f"s{i} [m]" for i in range(STATE)],
        action_names=[f"a{i} [m]" for i in range(ACTION)],
    )


def make_store(path: Path, side: int, episodes: int) -> DemoStore:
    """Demonstrations of STEPS steps, whose images compress about as a simulator's do."""
    store, random = DemoStore.create(path, make_spec(side)), np.random.default_rng(0)
    for seed in range(episodes):
        coarse = random.integers(0, 240, (STEPS, -(-side // 12), -(-side // 12), 3), np.uint8)
        images = coarse.repeat(12, 1).repeat(12, 2)[:, :side, :side]
        store.append(
            Episode(
                images={"front": images + random.integers(0, 4, images.shape, np.uint8)},
                state=random.uniform(-1, 1, (STEPS, STATE)).astype(np.float32),
                actions=random.uniform(-1, 1, (STEPS, ACTION)).astype(np.float32),
                rewards=np.zeros(STEPS, np.float32),
                success=True,
                seed=seed,
            )
        )
    return store


def make_lerobot_dataset(store: DemoStore, path: Path, side: int) -> Any:
    """The same demonstrations as a LeRobotDataset with video, its default, that gives their policy's windows."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    camera, values = "observation.images.front", {"dtype": "float32", "names": None}
    features = {
        camera: {"dtype": "video", "shape": (side, side, 3), "names": ["height", "width", "channels"]},
        "observation.state": values | {"shape": (STATE,)},
        "action": values | {"shape": (ACTION,)},
    }
    writer = LeRobotDataset.create("local/benchmark", int(HZ), features, root=path, use_videos=True)
    for number in range(len(store)):
        episode = store.episode(number)
        for step in range(len(episode)):
            frame: dict[str, Any] = {camera: episode.images["front"][step], "task": "benchmark"}
            writer.add_frame(frame | {"observation.state": episode.state[step], "action": episode.actions[step]})
        writer.save_episode()
    writer.finalize()
    seen = [(step - FRAMES + 1) / HZ for step in range(FRAMES)]
    wanted = {camera: seen, "observation.state": seen, "action": [(i - FRAMES + 1) / HZ for i in range(HORIZON)]}
    return LeRobotDataset("local/benchmark", root=path, delta_timestamps=wanted)


def build_ours(side: int, crop: int, widths: list[int], frozen: bool = False, vit: str | None = None) -> Any:
    """`vit`: on a frozen Pixio of that size in place of ResNet18."""
    spec = make_spec(side)

    def unit(count: int) -> Range:
        ones = np.ones(count)
        return Range(-ones, ones, 0 * ones, ones)

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

    return provenance_of(
        {"torch": torch.__version__, "lerobot": lerobot.__version__, "diffusers": diffusers.__version__},
        torch_device(device),
    )


def peak_memory_mb(device: torch.device) -> float:
    """Of this process so far; on a GPU of what torch allocated there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parameter_count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
