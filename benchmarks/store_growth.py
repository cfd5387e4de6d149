"""How opening and reading a demonstration store grow with it: 1e3 to 1e5 frames (1e6 with --frames 1000000).

    OMP_NUM_THREADS=1 python benchmarks/store_growth.py [--frames 1000 10000 100000] [--out result.json]

One camera of 16 px, so that the number of files and frames is what grows. Reads are training windows past RAM
(`ram_bytes=0`), where every batch goes to the files. Episodes of 100 steps are made once and linked: the inodes are
shared, the directory entries, headers and offsets are not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.result_file import parse_arguments, provenance, save_result
from common.synthetic_demos import demo_spec, make_store
from common.timing import measure_seconds

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.loading import DemoWindows

SIZE, STEPS, DIFFERENT, BATCH = 16, 100, 10, 64
LIMIT = 2.0
"""A window from the largest store may cost this many times one from the smallest."""


def make_large_store(path: Path, episodes: int) -> None:
    store = make_store(
        path,
        demo_spec(["front"], SIZE, ["s"], ["a"]),
        min(DIFFERENT, episodes),
        STEPS,
        images=lambda random, shape: random.integers(0, 256, shape, np.uint8),
        values=lambda _, shape: np.zeros(shape),
    )
    for number in range(DIFFERENT, episodes):
        shutil.copytree(store.episode_path(number % DIFFERENT), store.episode_path(number), copy_function=os.link)


def measure(path: Path, batches: int) -> dict[str, float]:
    began = time.process_time()
    store = DemoStore.open(path, ram_bytes=0)
    opened = time.process_time()
    windows = DemoWindows(store, observation_steps=2, horizon=16, cameras=["front"])
    prepared = time.process_time()
    random = np.random.default_rng(0)

    def read() -> None:
        for _ in range(batches):
            windows.gather(random.integers(0, len(windows), BATCH))

    passes = [batches * BATCH / measure_seconds(read) for _ in range(2)]  # the first one opens each episode's index
    return {
        "episodes": len(store),
        "open_s": opened - began,
        "prepare_loader_s": prepared - opened,
        "first_pass_windows_per_cpu_second": passes[0],
        "windows_per_cpu_second": passes[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Opening and reading stores of growing size.")
    parser.add_argument("--frames", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--batches", type=int, default=100)
    arguments = parse_arguments(parser, note=True)
    torch.set_num_threads(1)
    sizes: dict[str, Any] = {}
    for frames in arguments.frames:
        with tempfile.TemporaryDirectory() as folder:
            make_large_store(Path(folder) / "demos.zarr", max(1, frames // STEPS))
            sizes[str(frames)] = found = measure(Path(folder) / "demos.zarr", arguments.batches)
        print(f"{frames:8} frames: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)
    rates = [found["windows_per_cpu_second"] for found in sizes.values()]
    slowdown = rates[0] / rates[-1]
    print(f"a window of the largest costs {slowdown:.2f} of one of the smallest (limit {LIMIT})")
    where = provenance("numpy", torch=torch.__version__, note=arguments.note)
    save_result({"sizes": sizes, "slowdown": slowdown, "limit": LIMIT, **where}, arguments.out)


if __name__ == "__main__":
    main()
