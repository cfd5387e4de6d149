"""Our policy beside lerobot's own, trained for the same wall-clock on the same demonstrations, in the same episodes.

    python benchmarks/beside_lerobot.py DEMOS --env tabletop_pick_cluttered --policy diffusion --seconds 600 \
        --ours "policy=flow encoder=pixio encoder.path=runs/quickstart/pretrain/model" [--out result.json]

The demonstrations are exported by `pixio-robot data export format=lerobot`; lerobot's policy reads them through its
own dataset, loader, normalisation, optimiser preset and, for diffusion, DDIM in 10 steps. Ours is trained by
`pixio-robot train loop.seconds=...`. Both act through the same ChunkedActor. `--widths` narrows lerobot's U-Net.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common.diffusion_policies import parameter_count
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from torch import Tensor, nn

from envs.pool.worker_pool import make_pool
from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.evaluate import EvaluateCommand
from pixio_robot.cli.evaluation_target import finished_policy
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.evaluation.evaluate import evaluate
from pixio_robot.evaluation.results import EvaluatedPolicy, read_outcomes
from pixio_robot.evaluation.statistics import compare_paired
from pixio_robot.types import DemoSpec, Observation
from policies.acting import ActingConfig
from policies.chunking import ChunkedActor

ROWS = 2


def pixio_robot(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pixio_robot.cli.main", *words], check=True)


class LerobotPolicy(nn.Module):
    """lerobot's policy as a `types.Policy` of ours."""

    def __init__(self, policy: Any, before: Any, after: Any, spec: DemoSpec) -> None:
        super().__init__()
        self.policy, self.before, self.after, self.spec = policy, before, after, spec
        self.observation_steps = policy.config.n_obs_steps
        self.horizon = policy.config.n_action_steps
        self.cameras = sorted(spec.cameras)

    def act(self, observation: Observation, seeds: Any = None) -> Tensor:
        torch.manual_seed(seeds[0])
        batch = {f"observation.images.{name}": to_floats(image) for name, image in observation.images.items()}
        batch["observation.state"] = observation.state
        if self.observation_steps == 1:
            batch = {name: value[:, -1] for name, value in batch.items()}
        return self.after(self.policy.predict_action_chunk(self.before(batch))[:, : self.horizon])


def to_floats(image: Tensor) -> Tensor:
    return image.movedim(-1, -3).float() / 255


def lerobot_config(name: str, spec: DemoSpec, widths: list[int]) -> Any:
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    seen = {"observation.state": PolicyFeature(type=FeatureType.STATE, shape=(spec.state_dim,))}
    for camera, size in spec.cameras.items():
        key = f"observation.images.{camera}"
        seen[key] = PolicyFeature(type=FeatureType.VISUAL, shape=(3, size.height, size.width))
    done = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(spec.action_dim,))}
    shared = {"input_features": seen, "output_features": done, "device": "cpu", "pretrained_backbone_weights": None}
    if name == "act":
        return ACTConfig(**shared, chunk_size=20, n_action_steps=8)
    return DiffusionConfig(**shared, down_dims=tuple(widths), noise_scheduler_type="DDIM", num_inference_steps=10)


def train_lerobot(arguments: argparse.Namespace, spec: DemoSpec) -> tuple[LerobotPolicy, int]:
    """The policy, and in how many steps."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    root = arguments.work / "lerobot"
    if not root.exists():
        pixio_robot("data", "export", str(arguments.demos), f"out={root}", "format=lerobot")
    config = lerobot_config(arguments.policy, spec, arguments.widths)
    hz = spec.control_hz
    seen = [index / hz for index in config.observation_delta_indices or [0]]
    wanted = dict.fromkeys(config.input_features, seen) if config.observation_delta_indices else {}
    wanted["action"] = [index / hz for index in config.action_delta_indices]
    dataset = LeRobotDataset("local/beside", root=root, delta_timestamps=wanted)
    policy = get_policy_class(arguments.policy)(config).train()
    before, after = make_pre_post_processors(config, dataset_stats=dataset.meta.stats)
    preset = config.get_optimizer_preset()
    optimiser = preset.build(policy.get_optim_params())
    loader = torch.utils.data.DataLoader(dataset, arguments.batch, shuffle=True, drop_last=True, num_workers=1)
    began, steps = time.monotonic(), 0
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        loss, _ = policy.forward(before(batch))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimiser.step()
        steps += 1
        if time.monotonic() - began >= arguments.seconds:
            break
    return LerobotPolicy(policy.eval(), before, after, spec), steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Ours beside lerobot's policy.")
    parser.add_argument("demos", type=Path)
    parser.add_argument("--env", required=True, help="of configs/env; the demonstrations' own")
    parser.add_argument("--policy", choices=("diffusion", "act"), default="diffusion", help="of lerobot")
    parser.add_argument("--ours", default="policy=flow encoder=none", help="settings of `pixio-robot train`")
    parser.add_argument("--seconds", type=float, default=600, help="of training, for each")
    parser.add_argument("--batch", type=int, default=64, help="windows, of each")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048], help="of lerobot's U-Net")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--execute", type=int, default=4, help="actions of each chunk, of both")
    parser.add_argument("--work", type=Path, default=Path("runs/beside_lerobot"))
    arguments = parse_arguments(parser, note=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    store = DemoStore.open(arguments.demos)
    words = [f"env={arguments.env}", f"episodes={arguments.episodes}", "videos=0", "checkpoint=x"]
    command = load_settings("evaluate", EvaluateCommand, [*words, f"out={arguments.work}/evaluation"])

    out = arguments.work / "ours"
    train = [f"data={arguments.demos}", f"out={out}", f"batch_size={arguments.batch}", "device=cpu"]
    pixio_robot("train", *train, f"loop.seconds={arguments.seconds}", *arguments.ours.split())
    theirs, steps = train_lerobot(arguments, store.spec)

    ours = finished_policy(str(out), "ours")
    device = torch.device("cpu")
    actor, _ = ours.make_actor(store.spec.task, ActingConfig(execute=arguments.execute), ROWS, device)
    their_name = EvaluatedPolicy(
        name="lerobot", label=f"lerobot {arguments.policy}", policy="lerobot", encoder="resnet18"
    )
    actors = {
        ours.policy.name: (ours.policy, actor),
        "lerobot": (their_name, ChunkedActor(theirs, arguments.execute, device, ROWS)),
    }
    outcomes: dict[str, dict[int, bool]] = {}
    result: dict[str, Any] = {
        "steps": {"lerobot": steps, "ours": json.loads((out / "result.json").read_text())["steps"]}
    }
    with make_pool(command.env, 1, ROWS, command.step_timeout_s) as pool:
        for name, (who, actor) in actors.items():
            directory = arguments.work / "evaluations" / name
            summary = evaluate(pool, actor, who, command, directory, train_seeds=store.seeds)
            kept = ("episodes", "successes", "rate", "low", "high", "wall_seconds")
            result[name] = {key: value for key, value in dataclasses.asdict(summary).items() if key in kept}
            print(f"{name}: {summary.successes} of {summary.episodes}, {summary.low:.0%} to {summary.high:.0%}")
            outcomes[name] = {one.seed: one.success for one in read_outcomes(directory, summary.seeds)}
    paired = compare_paired(outcomes[ours.policy.name], outcomes["lerobot"])
    result["paired"] = dataclasses.asdict(paired)
    print(f"ours minus lerobot, same episodes: {paired.difference:+.0%} ({paired.low:+.0%} to {paired.high:+.0%})")
    result["parameters"] = {"lerobot": parameter_count(theirs)}
    result["settings"] = {name: str(value) for name, value in measured_settings(arguments).items()}
    save_result(
        result | provenance("lerobot", "diffusers", torch=torch.__version__, device=device, note=arguments.note),
        arguments.out,
    )


if __name__ == "__main__":
    main()
