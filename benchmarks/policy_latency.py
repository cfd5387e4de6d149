"""How long one action chunk takes: our diffusion policy against lerobot's, same size, same steps, batch 1.

    OMP_NUM_THREADS=1 python benchmarks/policy_latency.py [--widths 512 1024 2048] [--calls 20] [--compile]
                                                          [--vit b] [--device cuda] [--out result.json]

Calls alternate between the contestants. On a GPU they are timed by the clock; on a CPU in CPU seconds of the process,
which with one thread is what an idle machine takes, and a busy one does not change. Both compute in float32, on a GPU
with TF32, as `serve` does. Ours is also timed with the samplers that lerobot lacks, with --compile compiled for acting
(on a GPU: CUDA graphs), and with --vit on a Pixio of that size at 256 px in place of ResNet18. Includes everything from
uint8 images (lerobot: float images) to actions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common.diffusion_policies import add_size_options, build_lerobot, build_ours, make_batch, parameter_count
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from common.timing import device_clock, time_alternating

from pixio_robot.training.device import pick_device
from policies.acceleration import compile_for_acting

WARM_UP = 3
"""Calls that are not counted: the first compile, record graphs and allocate."""
VIT_SIDE = 256


def contestants(side: int, crop: int, widths: list[int], device: torch.device) -> tuple[dict[str, Callable], dict]:
    ours = build_ours(side, crop, widths).eval().to(device)
    batch, theirs_batch = make_batch(1, side, device)
    theirs_batch.pop("action")
    theirs_batch.pop("action_is_pad")
    calls: dict[str, Callable] = {}

    def add_ours(name: str, sampler: str, steps: int) -> None:
        def call() -> None:
            ours.config.sampler, ours.config.inference_steps = sampler, steps
            with torch.inference_mode():
                ours.act(batch.observation, [0])

        calls[name] = call

    sizes = {"ours": parameter_count(ours)}
    for name, sampler, steps in (("ddpm_100", "DDPM", 100), ("ddim_10", "DDIM", 10)):
        theirs = build_lerobot(side, crop, widths, sampler, steps).eval().to(device)
        sizes["lerobot"] = parameter_count(theirs)
        add_ours(f"ours_{name}", sampler.lower(), steps)
        calls[f"lerobot_{name}"] = lambda theirs=theirs: theirs.predict_action_chunk(theirs_batch)
    add_ours("ours_dpm_solver_5", "dpm_solver", 5)
    add_ours("ours_ddim_2", "ddim", 2)
    return calls, sizes


def acting(policy: Any, side: int, device: torch.device, *, compiled: bool) -> Callable[[], None]:
    """A call of ours in 10 steps of DDIM."""
    policy = policy.eval().to(device)
    policy.config.sampler, policy.config.inference_steps = "ddim", 10
    if compiled:
        compile_for_acting(policy)
    observation = make_batch(1, side, device)[0].observation

    def call() -> None:
        with torch.inference_mode():
            policy.act(observation, [0])

    return call


def measure(calls: dict[str, Callable], count: int, device: torch.device) -> dict[str, Any]:
    return {
        name: {f"p{point}_ms": 1000 * float(np.percentile(seconds, point)) for point in (50, 99)}
        for name, seconds in time_alternating(calls, device_clock(device), count, WARM_UP).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of one action chunk.")
    add_size_options(parser)
    parser.add_argument("--calls", type=int, default=20, help="per contestant")
    parser.add_argument("--compile", action="store_true", help="time ours compiled for acting too")
    parser.add_argument("--vit", help="time ours on a Pixio encoder of that size too, such as b")
    parser.add_argument("--device", default="cpu")
    arguments = parse_arguments(parser, note=True)
    device = pick_device(arguments.device)
    calls, sizes = contestants(arguments.side, arguments.crop, arguments.widths, device)
    if arguments.compile:
        ours = build_ours(arguments.side, arguments.crop, arguments.widths)
        calls["ours_ddim_10_compiled"] = acting(ours, arguments.side, device, compiled=True)
    if arguments.vit:
        ours = build_ours(VIT_SIDE, VIT_SIDE, arguments.widths, vit=arguments.vit)
        sizes["ours_vit"] = parameter_count(ours)
        calls["ours_vit_ddim_10"] = acting(ours, VIT_SIDE, device, compiled=arguments.compile)
    latency = measure(calls, arguments.calls, device)
    ratio = {
        f"{steps}_{point}": latency[f"lerobot_{steps}"][point] / latency[f"ours_{steps}"][point]
        for steps in ("ddpm_100", "ddim_10")
        for point in ("p50_ms", "p99_ms")
    }
    for name, of in latency.items():
        print(f"{name:20} p50 {of['p50_ms']:8.1f} ms  p99 {of['p99_ms']:8.1f} ms")
    print("lerobot over ours: " + ", ".join(f"{name} {value:.2f}" for name, value in ratio.items()))
    result = {
        "unit": "wall clock" if device.type == "cuda" else "CPU time of the process",
        "latency": latency,
        "ratio": ratio,
        "parameters": sizes,
        "settings": measured_settings(arguments),
    }
    save_result(
        result | provenance("lerobot", "diffusers", torch=torch.__version__, device=device, note=arguments.note),
        arguments.out,
    )


if __name__ == "__main__":
    main()
