"""How opening and reading a demonstration store grow with it: 1e3 to 1e5 frames (1e6 with --frames 1000000).

    OMP_NUM_THREADS=1 python benchmarks/store_growth.py [--frames 1000 10000 100000] [--out result.json]

One camera of 16 px, so that the number of files and frames is what grows. Reads are training windows past RAM
(`ram_bytes=0`), where every batch goes to the files. Episodes of 100 steps are made once and linked: the inodes are
shared, the directory entries, headers and offsets are not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import add_note, provenance

from pixio_robot.data.demos import DemoStore
from pixio_robot.data.loading import DemoBatches
from pixio_robot.types import CameraSpec, DemoSpec, Episode

SIZE, STEPS, DIFFERENT, BATCH = 16, 100, 10, 64
LIMIT = 2.0
"""A window from the largest store may cost this many times one from the smallest."""


def make_store(path: Path, episodes: int) -> None:
    spec = DemoSpec(
        task="benchmark",
        robot="none",
        simulator="none",
        simulator_version="0",
        controller="none",
        control_hz=20.0,
        cameras={"front": CameraSpec(height=SIZE, width=SIZE)},
        state_names=("s",),
        action_names=("a",),
    )
    store, random = DemoStore.create(path, spec), np.random.default_rng(0)
    for seed in range(min(DIFFERENT, episodes)):
        store.append(
            Episode(
                images={"front": random.integers(0, 256, (STEPS, SIZE, SIZE, 3), np.uint8)},
                state=np.zeros((STEPS, 1), np.float32),
                actions=np.zeros((STEPS, 1), np.float32),
                rewards=np.zeros(STEPS, np.float32),
                success=True,
                seed=seed,
            )
        )
    for number in range(DIFFERENT, episodes):
        shutil.copytree(store.episode_path(number % DIFFERENT), store.episode_path(number), copy_function=os.link)


def measure(path: Path, batches: int) -> dict[str, float]:
    began = time.process_time()
    store = DemoStore.open(path, ram_bytes=0)
    opening = time.process_time() - began
    began = time.process_time()
    loader = DemoBatches(store, observation_steps=2, horizon=16, cameras=["front"], batch_size=BATCH, seed=0)
    preparing = time.process_time() - began
    random = np.random.default_rng(0)
    passes = []
    for _ in range(2):  # the first one opens each episode's index
        began = time.process_time()
        for _ in range(batches):
            loader.gather(random.integers(0, loader.windows, BATCH))
        passes.append(batches * BATCH / (time.process_time() - began))
    return {
        "episodes": len(store),
        "open_s": opening,
        "prepare_loader_s": preparing,
        "first_pass_windows_per_cpu_second": passes[0],
        "windows_per_cpu_second": passes[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Opening and reading stores of growing size.")
    parser.add_argument("--frames", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    add_note(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes: dict[str, Any] = {}
    for frames in arguments.frames:
        with tempfile.TemporaryDirectory() as folder:
            make_store(Path(folder) / "demos.zarr", max(1, frames // STEPS))
            sizes[str(frames)] = found = measure(Path(folder) / "demos.zarr", arguments.batches)
        print(f"{frames:8} frames: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)
    rates = [found["windows_per_cpu_second"] for found in sizes.values()]
    slowdown = rates[0] / rates[-1]
    print(f"a window of the largest costs {slowdown:.2f} of one of the smallest (limit {LIMIT})")
    if arguments.out:
        result = {
            "sizes": sizes,
            "slowdown": slowdown,
            "limit": LIMIT,
            **provenance({"numpy": np.__version__, "torch": torch.__version__}, note=arguments.note),
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
