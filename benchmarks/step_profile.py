"""Where the time of a pretraining step goes: the shares of matrix products, attention, norms and the rest.

    OMP_NUM_THREADS=1 python benchmarks/step_profile.py [--size b] [--batch 2] [--compiled] [--out result.json]
    python benchmarks/step_profile.py --device cuda --size l --batch 64 --compiled

By torch's profiler, in the time of kernels of the device (on a CPU: of operators, without those they call). Beside the
shares stands the step without the profiler, which makes many small operators look dearer than they are.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter

import torch
from common.pretraining_step import Shape, pixio_step
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from common.timing import device_clock, measure_seconds
from common.training_loop import repeat_step

from pixio_robot.training.device import pick_device

STEPS = 4
KINDS = {
    "matrix products": ("mm", "linear", "gemm", "cutlass", "nvjet"),
    "attention": ("attention", "flash", "fmha", "sdpa"),
    "optimiser": ("adam", "multi_tensor"),
    "norms": ("norm",),
    "GELU": ("gelu",),
    "fused by the compiler": ("triton", "cpp_fused", "graph_"),
}
"""Parts of an operator's or kernel's name, the first kind that matches."""


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts)), "other")


def main() -> None:
    parser = argparse.ArgumentParser(description="Profile of a pretraining step.")
    parser.add_argument("--size", default="b")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--decoder", type=int, nargs=2, default=(512, 8), metavar=("WIDTH", "DEPTH"))
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--device", default="auto")
    arguments = parse_arguments(parser, note=True)
    device = pick_device(arguments.device)
    shape = Shape(arguments.size, arguments.image_size, arguments.batch, *arguments.decoder)
    step = pixio_step(shape, device, arguments.compiled)
    repeat_step(step, 2)
    clock = device_clock(device, torch.get_num_threads())
    seconds = statistics.median(measure_seconds(step, clock) for _ in range(STEPS))
    on_gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        repeat_step(step, STEPS)
    spent: Counter[str] = Counter()
    for event in profile.key_averages():
        spent[kind_of(event.key)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    shares = {kind: time / spent.total() for kind, time in spent.most_common()}
    print(f"{seconds:.3f} s a step")
    for kind, share in shares.items():
        print(f"{share:6.1%}  {kind}")
    save_result(
        {
            "seconds": seconds,
            "shares": shares,
            "settings": measured_settings(arguments),
            **provenance("torch", device=device, note=arguments.note),
        },
        arguments.out,
    )


if __name__ == "__main__":
    main()
