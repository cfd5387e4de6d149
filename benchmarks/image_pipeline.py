"""Pretraining images a second per core: PixelBatches against PIL + torchvision's RandomResizedCrop, same shards.

    OMP_NUM_THREADS=1 python benchmarks/image_pipeline.py [--shards data/frames] [--images 2000] [--out result.json]

Both read the same JPEG bytes in the same random order in one process, in alternating rounds; the rate counts CPU
seconds, so that it means the same on a busy machine. Without `--shards`, textured 320 x 427 frames are made.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from pixio_robot.data.frames import RATIO, SCALE, PixelBatches
from pixio_robot.data.ingest import IngestConfig, ingest
from pixio_robot.data.shards import FrameShards

ROUNDS = 3
BATCH = 64


def make_shards(folder: Path, count: int) -> Path:
    """Frames with edges, gradients and grain, near the JPEG size of real footage."""
    (folder / "in").mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = cv2.resize(random.integers(0, 255, (12, 16, 3), np.uint8), (427, 320), interpolation=cv2.INTER_CUBIC)
        grain = random.normal(0, 6, (320, 427, 1))
        image = np.clip(coarse + grain, 0, 255).astype(np.uint8)
        for _ in range(20):
            corner = random.integers(0, 300, 2)
            cv2.rectangle(image, corner.tolist(), (corner + 40).tolist(), random.integers(0, 255, 3).tolist(), -1)
        cv2.imwrite(str(folder / "in" / f"{number:04d}.png"), image)
    ingest(IngestConfig(source=str(folder / "in"), out=str(folder / "shards")), show_progress=False)
    return folder / "shards"


def ours(shards: FrameShards, images: int, size: int, seed: int) -> float:
    """CPU seconds for `images` crops."""
    with PixelBatches(shards, BATCH, size, seed=seed, workers=1) as batches:
        next(batches)
        began = time.process_time()
        for _ in range(images // BATCH):
            next(batches)
        return time.process_time() - began


def baseline(shards: FrameShards, images: int, size: int, seed: int) -> float:
    """CPU seconds for `images` crops through PIL and torchvision, collated as uint8."""
    crop = v2.RandomResizedCrop(size, scale=SCALE, ratio=RATIO, interpolation=v2.InterpolationMode.BICUBIC)
    order = np.random.default_rng(seed).integers(len(shards), size=images).tolist()
    began = time.process_time()
    for start in range(0, images - BATCH + 1, BATCH):
        torch.stack(
            [
                torch.from_numpy(np.array(crop(Image.open(io.BytesIO(shards.reader.jpeg(i))).convert("RGB"))))
                for i in order[start : start + BATCH]
            ]
        )
    return time.process_time() - began


def measure(path: Path, images: int, size: int) -> dict[str, Any]:
    shards = FrameShards.open(path)
    torch.set_num_threads(1)
    counted = images // BATCH * BATCH
    rates: dict[str, list[float]] = {"pixel_batches": [], "pil_torchvision": []}
    for round_ in range(ROUNDS):
        rates["pixel_batches"].append(counted / ours(shards, images, size, round_))
        rates["pil_torchvision"].append(counted / baseline(shards, images, size, round_))
    median = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        "images_per_cpu_second": median,
        "all_rounds": rates,
        "ratio": median["pixel_batches"] / median["pil_torchvision"],
        "frames": len(shards),
        "mean_jpeg_bytes": float(np.mean(shards.reader.records["size"])),
        "frame_size": [int(shards.reader.records[name][0]) for name in ("height", "width")],
        "crop": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretraining images a second per core.")
    parser.add_argument("--shards", type=Path, help="a finished ingest; made when left out")
    parser.add_argument("--images", type=int, default=2000, help="crops a round")
    parser.add_argument("--size", type=int, default=256, help="side of the crops in pixels")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.shards or make_shards(Path(folder), 300)
        result = measure(path, arguments.images, arguments.size)
    root = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    result |= {
        "commit": commit.stdout.strip(),
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"cv2": cv2.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    for name, rate in result["images_per_cpu_second"].items():
        print(f"{name:16} {rate:7.0f} images/s per core")
    print(f"ratio {result['ratio']:.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
