"""A pretraining step: our Pixio, compiled and eager, against transformers' ViTMAE of the same shape and masks.

    OMP_NUM_THREADS=2 python benchmarks/training_step.py [--size b] [--batch 4] [--out result.json]

Images a second from the median of alternating steps, and the share of the device's peak that the model's arithmetic
comes to (MFU, GPU only); peak memory, each contestant in a process of its own. Images are in memory already: what
loading them costs, `image_pipeline.py` and the `data_wait_share` of a run tell. ViTMAE works on 7 tokens fewer an image
(one class token instead of eight), in its favour.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Callable

import torch
from common.pretraining_step import Shape, pixio_step, vitmae_step
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from common.timing import device_clock, medians, peak_memory, time_alternating
from common.training_loop import Step, repeat_step

from pixio_robot.training.device import pick_device
from pixio_robot.training.monitoring.throughput import peak_tflops
from pixio_robot.vision.flops import pretraining_flop

CONTESTANTS: dict[str, Callable[[Shape, torch.device], Step]] = {
    "ours": lambda shape, device: pixio_step(shape, device, compiled=True),
    "ours_eager": lambda shape, device: pixio_step(shape, device, compiled=False),
    "vit_mae": vitmae_step,
}
FLOAT32: dict[str, Callable[[Shape, torch.device], Step]] = {
    "vit_mae_float32": lambda shape, device: vitmae_step(dataclasses.replace(shape, bfloat16=False), device)
}
"""Measured beside the others when these compute in bfloat16 on a CPU."""
WARM_UP = 3
"""Steps that compile, allocate and choose kernels."""


def memory_alone(name: str, words: list[str]) -> float:
    """Peak MiB of one contestant, measured by this script in a process of its own."""
    script = [sys.executable, __file__, *words, "--memory-of", name]
    return float(subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretraining steps.")
    parser.add_argument("--size", default="b", help="of the encoder")
    parser.add_argument("--image-size", type=int, default=256, help="pixels")
    parser.add_argument("--decoder-width", type=int, default=512)
    parser.add_argument("--decoder-depth", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--steps", type=int, default=8, help="timed, of each contestant")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bfloat16", action="store_true", help="on a CPU, too; ViTMAE also in float32")
    parser.add_argument("--memory-of", choices=CONTESTANTS | FLOAT32, help=argparse.SUPPRESS)
    arguments = parse_arguments(parser, note=True)
    device = pick_device(arguments.device)
    shape = Shape(
        arguments.size,
        arguments.image_size,
        arguments.batch,
        arguments.decoder_width,
        arguments.decoder_depth,
        bfloat16=arguments.bfloat16,
    )
    if arguments.memory_of:
        step = (CONTESTANTS | FLOAT32)[arguments.memory_of](shape, device)
        repeat_step(step, WARM_UP)
        print(peak_memory(lambda: repeat_step(step, 2), device))
        return

    flop = pretraining_flop(shape.encoder, shape.decoder, shape.mask, shape.image_size)  # refuses what does not fit
    words = [word for word in sys.argv[1:] if not word.startswith("--out")]
    if arguments.out:
        words = [word for word in words if word != str(arguments.out)]
    contestants = CONTESTANTS | (FLOAT32 if arguments.bfloat16 and device.type == "cpu" else {})
    # Before this process takes any of the GPU's memory, which its allocator would not give back.
    memory = {name: memory_alone(name, words) for name in contestants}
    steps = {name: build(shape, device) for name, build in contestants.items()}
    seconds = time_alternating(steps, device_clock(device, torch.get_num_threads()), arguments.steps, WARM_UP)
    rate = {name: arguments.batch / median for name, median in medians(seconds).items()}
    peak = peak_tflops(device)
    result = {
        "images_per_second": rate,
        "over_vit_mae": {name: rate[name] / rate["vit_mae"] for name in rate if name != "vit_mae"},
        "compiled_over_eager": rate["ours"] / rate["ours_eager"],
        "peak_memory_mib": memory,
        "gflop_per_image": flop / 1e9,
        "tflop_per_second": {name: rate[name] * flop / 1e12 for name in rate if name.startswith("ours")},
        "mfu": None if peak is None else rate["ours"] * flop / (peak * 1e12),
        "settings": measured_settings(arguments, "memory_of"),
    }
    for name, value in rate.items():
        print(f"{name:15} {value:8.2f} images/s  {memory[name]:8.0f} MiB")
    print(f"ours over ViTMAE {result['over_vit_mae']['ours']:.2f}, over our eager {result['compiled_over_eager']:.2f}")
    save_result(
        result | provenance("transformers", torch=torch.__version__, device=device, note=arguments.note), arguments.out
    )


if __name__ == "__main__":
    main()
