"""Training steps a second: our diffusion policy against lerobot's, same size and batch, from the files to the update.

    OMP_NUM_THREADS=1 python benchmarks/policy_training.py [--batch 16] [--steps 6] [--bfloat16] [--out result.json]

A step is a batch from the disk, forward, backward and a fused AdamW, on a GPU as in our training loop for both: under
bfloat16 autocast, with TF32 for the rest; on a CPU with --bfloat16, which our `train` chooses by itself on a CPU that
computes in it. lerobot's policy is then also trained in float32, its own default.

Both read the same demonstrations: ours a Zarr store, lerobot's a LeRobotDataset with video (its default) through
torch's DataLoader in the same process. `ours_cached` trains on features that a frozen encoder gave once. Rows with
`_memory` repeat one batch that is in memory, so that the two are compared as networks. Contestants take turns: on a CPU
after every step, which is timed in CPU seconds of the process, readers' threads and all, so that a busy machine tells
the same as an idle one; on a GPU after 50.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common.diffusion_policies import (
    FRAMES,
    HORIZON,
    add_size_options,
    build_lerobot,
    build_ours,
    make_batch,
    make_demonstrations,
    parameter_count,
)
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from common.synthetic_demos import lerobot_video_decoder, make_lerobot_dataset
from common.timing import device_clock, medians, time_alternating
from common.training_loop import Step, make_training_step, repeat_step

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.features.cache import FeatureCache, encode_features, open_features
from pixio_robot.data.loading import DemoBatches, DemoWindows
from pixio_robot.training.device import pick_device
from pixio_robot.types import Batch

BLOCK = 50
"""Steps of one contestant at a time on a GPU, by the wall clock: what its readers had ready before is then little of
what it takes."""

imitating = functools.partial(make_training_step, betas=(0.95, 0.999), weight_decay=1e-6)
"""As both policies are trained."""


def our_batches(store: DemoStore, batch: int, device: torch.device, cache: FeatureCache | None) -> Iterator[Batch]:
    windows = DemoWindows(store, observation_steps=FRAMES, horizon=HORIZON, cameras=["front"], features=cache)
    return (one.to(device) for one in DemoBatches(windows, batch_size=batch))


def their_batches(dataset: Any, batch: int, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    # On a GPU with four processes, pinned, and copied without waiting, as lerobot's own training does. On a CPU, whose
    # seconds are counted, in this process.
    on_gpu = device.type == "cuda"
    loader = torch.utils.data.DataLoader(
        dataset,
        batch,
        shuffle=True,
        drop_last=True,
        pin_memory=on_gpu,
        num_workers=4 if on_gpu else 0,
        persistent_workers=on_gpu,
    )
    for found in itertools.chain.from_iterable(itertools.repeat(loader)):
        yield {name: value.to(device, non_blocking=True) for name, value in found.items() if torch.is_tensor(value)}


def contestants(arguments: argparse.Namespace, folder: Path, device: torch.device) -> tuple[dict[str, Step], dict]:
    side, crop, widths, rows = arguments.side, arguments.crop, arguments.widths, arguments.batch
    ours = build_ours(side, crop, widths).train().to(device)
    cached = build_ours(side, crop, widths, frozen=True).train().to(device)
    theirs = build_lerobot(side, crop, widths).train().to(device)
    store = make_demonstrations(folder / "demos", side, arguments.episodes)
    dataset = make_lerobot_dataset(store, folder / "lerobot", FRAMES, range(1 - FRAMES, 1 - FRAMES + HORIZON))
    encoder = cached.conditioning.encoder
    cache = open_features(encode_features(store, encoder, ["front"], device=device))
    from_disk, from_cache = our_batches(store, rows, device, None), our_batches(store, rows, device, cache)
    from_video = their_batches(dataset, rows, device)
    batch, theirs_batch = make_batch(rows, side, device)
    step = functools.partial(imitating, device=device, bfloat16=arguments.bfloat16)
    steps = {
        "ours": step(ours, lambda: ours.loss(next(from_disk))[0]),
        "ours_cached": step(cached, lambda: cached.loss(next(from_cache))[0]),
        "lerobot": step(theirs, lambda: theirs(next(from_video))[0]),
        "ours_memory": step(ours, lambda: ours.loss(batch)[0]),
        "lerobot_memory": step(theirs, lambda: theirs(dict(theirs_batch))[0]),
    }
    if arguments.bfloat16 and device.type == "cpu":
        steps["lerobot_float32"] = imitating(theirs, lambda: theirs(next(from_video))[0], device)
    return steps, {"ours": parameter_count(ours), "lerobot": parameter_count(theirs)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps a second.")
    add_size_options(parser)
    parser.add_argument("--batch", type=int, default=16, help="windows")
    parser.add_argument("--episodes", type=int, default=8, help="of 50 steps")
    parser.add_argument("--steps", type=int, default=6, help="timed, of each contestant (on a GPU blocks of 50)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="on a CPU, too; lerobot's also in float32")
    arguments = parse_arguments(parser, note=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        steps, sizes = contestants(arguments, Path(folder), device)
        block = BLOCK if device.type == "cuda" else 1
        blocks = {name: functools.partial(repeat_step, step, block) for name, step in steps.items()}
        seconds = time_alternating(blocks, device_clock(device), arguments.steps, warm_up=1)
    rate = {name: block / median for name, median in medians(seconds).items()}
    ratio = {
        "end_to_end": rate["ours"] / rate["lerobot"],
        "cached_features": rate["ours_cached"] / rate["lerobot"],
        "network_alone": rate["ours_memory"] / rate["lerobot_memory"],
    }
    if "lerobot_float32" in rate:
        ratio["end_to_end_over_float32"] = rate["ours"] / rate["lerobot_float32"]
        ratio["cached_features_over_float32"] = rate["ours_cached"] / rate["lerobot_float32"]
    unit = "steps/s" if device.type == "cuda" else "steps per CPU second"
    for name, value in rate.items():
        print(f"{name:15} {value:7.3f} {unit}")
    print("over lerobot: " + ", ".join(f"{name} {value:.2f}" for name, value in ratio.items()))
    result = {
        "unit": unit,
        "rate": rate,
        "ratio": ratio,
        "parameters": sizes,
        "settings": measured_settings(arguments),
        "dtype": "bfloat16" if device.type == "cuda" or arguments.bfloat16 else "float32",
    }
    versions = {"torch": torch.__version__, "lerobot_video_decoder": lerobot_video_decoder()}
    save_result(
        result | provenance("lerobot", "diffusers", device=device, note=arguments.note, **versions), arguments.out
    )


if __name__ == "__main__":
    main()
