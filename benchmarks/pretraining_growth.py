"""How the cost of a pretraining step grows: over sizes, image sizes, and one or two processes.

    OMP_NUM_THREADS=1 python benchmarks/pretraining_growth.py [--batch 2] [--out result.json]
    python benchmarks/pretraining_growth.py --device cuda --sizes small b l h --batch 64 [--out result.json]

Eager steps of `pretraining_step.py` (forward, backward, AdamW), median of a few; memory is the peak of each shape.
`exponent` says how time grows with the arithmetic: 1 is in proportion. With two processes (gloo on a CPU, NCCL on GPUs)
each has half of the same batch, by DDP and FSDP2; where they share cores there is nothing to win, and the ratio shows
what keeping together costs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import torch
from common.pretraining_step import Shape, build_pixio, images_of
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from common.timing import device_clock, measure_seconds, peak_memory
from common.training_loop import make_training_step

from pixio_robot.machine import usable_cores
from pixio_robot.training.device import pick_device
from pixio_robot.training.distributed.launch import join_process_group
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.distributed.strategy import STRATEGIES, distribute_model
from pixio_robot.vision.flops import pretraining_flop

STEPS = 4
DECODER = (256, 8)
"""Width and depth: the same for all, so that the encoder is what grows."""


def measure(shape: Shape, device: torch.device, strategy: str = "ddp") -> dict[str, Any]:
    """Seconds, MiB and GFLOP of a step of this process's share of the batch."""
    processes = current_processes()
    model = build_pixio(shape, device)
    mine = dataclasses.replace(shape, batch=processes.local_batch_size(shape.batch))
    blocks = [*model.encoder.vit.blocks, *model.decoder.blocks]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # as `make_training_step` computes
    distributed_model = distribute_model(model, blocks, strategy, device, dtype=dtype)
    images, generator = images_of(mine, device), torch.Generator(device).manual_seed(0)
    step = make_training_step(
        model, lambda: distributed_model.module(images, generator, processes.world_size, processes.rank).loss, device
    )
    step()
    clock, seconds = device_clock(device, torch.get_num_threads()), []
    memory = peak_memory(lambda: seconds.extend(measure_seconds(step, clock) for _ in range(STEPS)), device)
    flop = shape.batch * pretraining_flop(shape.encoder, shape.decoder, shape.mask, shape.image_size)
    return {
        "size": shape.size,
        "image_size": shape.image_size,
        "processes": processes.world_size,
        "strategy": strategy if processes.world_size > 1 else None,
        "seconds": float(np.median(seconds)),
        "fastest_seconds": min(seconds),
        "peak_mib": memory,
        "gflop": flop / 1e9,
    }


def in_processes(count: int, shape: Shape, device: str, strategy: str = STRATEGIES[0]) -> dict[str, Any]:
    """`measure` in processes of their own: one keeps the memory of the shapes before."""
    words = ["--sizes", shape.size, "--image-sizes", str(shape.image_size), "--batch", str(shape.batch)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    command = [sys.executable, *launcher, __file__, *words, "--device", device, "--worker", strategy]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))


def exponent(rows: list[dict[str, Any]]) -> float:
    """Slope of log(seconds) over log(arithmetic)."""
    points = [(math.log(row["gflop"]), math.log(row["fastest_seconds"])) for row in rows]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Growth of a pretraining step.")
    parser.add_argument("--sizes", nargs="+", default=["micro", "tiny", "small", "b"])
    parser.add_argument(
        "--image-sizes", nargs="+", type=int, default=[128, 256, 384], help="pixels, of the smallest `b`"
    )
    parser.add_argument("--batch", type=int, default=2, help="images of all processes together")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--worker", choices=STRATEGIES, help=argparse.SUPPRESS)
    arguments = parse_arguments(parser, note=True)

    def shape(size: str, image_size: int) -> Shape:
        return Shape(size, image_size, arguments.batch, *DECODER)

    if arguments.worker:
        with join_process_group(arguments.device):
            row = measure(
                shape(arguments.sizes[0], arguments.image_sizes[0]), pick_device(arguments.device), arguments.worker
            )
            if current_processes().is_main:
                print(json.dumps(row), flush=True)
        return
    device = pick_device(arguments.device)
    middle = arguments.sizes[len(arguments.sizes) // 2]
    by_size = [in_processes(1, shape(size, 256), arguments.device) for size in arguments.sizes]
    by_image = [in_processes(1, shape(middle, side), arguments.device) for side in arguments.image_sizes]
    enough = device.type == "cpu" or torch.cuda.device_count() > 1
    by_processes = [in_processes(2, shape(middle, 256), arguments.device, way) for way in STRATEGIES if enough]
    alone = next(row for row in by_size if row["size"] == middle)
    result = {
        "rows": [*by_size, *by_image, *by_processes],
        "exponent_over_sizes": exponent(by_size),
        "exponent_over_image_sizes": exponent(by_image),
        "two_processes_over_one": {row["strategy"]: row["seconds"] / alone["seconds"] for row in by_processes},
        "decoder": DECODER,
        "cores": usable_cores(),
        "settings": measured_settings(arguments, "worker"),
    }
    for row in result["rows"]:
        way = f"{row['processes']} x {row['strategy'] or 'alone'}"
        print(
            f"{row['size']:6} {row['image_size']:4} px  {way:9} {row['seconds']:7.2f} s  {row['peak_mib']:6.0f} MiB  "
            f"{row['gflop']:7.1f} GFLOP"
        )
    print(f"time grows as arithmetic ** {result['exponent_over_sizes']:.2f} over sizes")
    save_result(
        result | provenance("transformers", torch=torch.__version__, device=device, note=arguments.note), arguments.out
    )


if __name__ == "__main__":
    main()
