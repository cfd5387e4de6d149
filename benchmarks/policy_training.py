"""Training steps a second: our diffusion policy against lerobot's, same size, batch and images; and on cached features.

    OMP_NUM_THREADS=1 python benchmarks/policy_training.py [--batch 64] [--steps 10] [--out result.json]

A step is forward, backward and AdamW on a batch that is in memory already, so that the two are compared as networks.
Steps alternate between the contestants. `cached` trains ours on features that a frozen encoder gave once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lerobot_twin import build_lerobot, build_ours, make_batch, parameter_count, provenance

from pixio_robot.types import Batch, Observation


def stepper(model: torch.nn.Module, loss_of: Callable[[], torch.Tensor]) -> Callable[[], None]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        loss_of().backward()
        optimiser.step()

    return step


def contestants(arguments: argparse.Namespace, device: torch.device) -> tuple[dict[str, Callable[[], None]], dict]:
    side, crop, widths = arguments.side, arguments.crop, arguments.widths
    ours = build_ours(side, crop, widths).train().to(device)
    cached = build_ours(side, crop, widths, frozen=True).train().to(device)
    theirs = build_lerobot(side, crop, widths).train().to(device)
    batch, theirs_batch = make_batch(arguments.batch, side, device)
    lead = batch.observation.images["front"].shape[:2]
    features = cached.conditioning.encoder(batch.observation.images["front"].flatten(0, 1))
    seen = Observation({}, batch.observation.state, {"front": features.map(lambda x: x.unflatten(0, lead))})
    steps = {
        "ours": stepper(ours, lambda: ours.loss(batch)[0]),
        "ours_cached": stepper(cached, lambda: cached.loss(Batch(seen, batch.actions, batch.is_pad))[0]),
        "lerobot": stepper(theirs, lambda: theirs(dict(theirs_batch))[0]),
    }
    return steps, {"ours": parameter_count(ours), "lerobot": parameter_count(theirs)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps a second.")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512], help="of the U-Net")
    parser.add_argument("--side", type=int, default=84, help="of the images in pixels")
    parser.add_argument("--crop", type=int, default=76, help="of the images in pixels")
    parser.add_argument("--batch", type=int, default=16, help="windows")
    parser.add_argument("--steps", type=int, default=10, help="timed, of each contestant")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    steps, sizes = contestants(arguments, device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(arguments.steps + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    rate = {name: 1 / float(np.median(values)) for name, values in seconds.items()}
    ratio = {name: rate[name] / rate["lerobot"] for name in ("ours", "ours_cached")}
    for name, value in rate.items():
        print(f"{name:12} {value:6.2f} steps/s")
    print(f"over lerobot: end to end {ratio['ours']:.2f}, cached features {ratio['ours_cached']:.2f}")
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}
    result = {"steps_per_second": rate, "ratio": ratio, "parameters": sizes, "settings": settings}
    if arguments.out:
        arguments.out.write_text(json.dumps(result | provenance(device), indent=2) + "\n")


if __name__ == "__main__":
    main()
