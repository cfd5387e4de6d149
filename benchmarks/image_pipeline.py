"""Pretraining images a second per core: PixelBatches against WebDataset + PIL + torchvision, same shards.

    OMP_NUM_THREADS=1 python benchmarks/image_pipeline.py [--images 1000] [--out result.json]

All read the same JPEG bytes in one process, in alternating rounds: ours and `pil_torchvision` in random order,
`webdataset` as its users do, in the order of the tars through a shuffle buffer. The rate counts CPU seconds, so that
it means the same on a busy machine. Textured frames of 320 x 427 (the default of ingest, decoded whole) and of
720 x 960 pixels (decoded at half size where the crop is large enough) are made. `decoding_alone` is simplejpeg on the
same bytes: what no pipeline with that decoder can exceed without decoding less.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
import webdataset
from PIL import Image
from provenance import add_note, provenance
from torchvision.transforms import v2

from pixio_robot.data.frames import RATIO, SCALE, PixelBatches
from pixio_robot.data.ingest import IngestConfig, ingest
from pixio_robot.data.shards import FrameShards

ROUNDS = 3
BATCH = 64


def make_shards(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Frames with edges, gradients and grain, near the JPEG size of real footage."""
    (folder / "in").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = cv2.resize(random.integers(0, 255, (12, 16, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
        grain = random.normal(0, 6, (*size, 1))
        image = np.clip(coarse + grain, 0, 255).astype(np.uint8)
        for _ in range(20):
            corner = random.integers(0, 300, 2)
            cv2.rectangle(image, corner.tolist(), (corner + 40).tolist(), random.integers(0, 255, 3).tolist(), -1)
        cv2.imwrite(str(folder / "in" / f"{number:04d}.png"), image)
    config = IngestConfig(source=str(folder / "in"), out=str(folder / "shards"), short_side=0, workers=1)
    ingest(config, show_progress=False)
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


def web_dataset(shards: FrameShards, images: int, size: int, seed: int) -> float:
    """CPU seconds for `images` crops as in WebDataset's own examples."""
    crop = v2.RandomResizedCrop(size, scale=SCALE, ratio=RATIO, interpolation=v2.InterpolationMode.BICUBIC)
    tars = sorted(str(path) for path in shards.path.glob("train-*.tar"))
    stream = (
        webdataset.WebDataset(tars, shardshuffle=False, seed=seed)
        .repeat()
        .shuffle(100)
        .decode("pil")
        .to_tuple("jpg")
        .map_tuple(lambda image: torch.from_numpy(np.array(crop(image))))
        .batched(BATCH)
    )
    batches = iter(stream)
    next(batches)
    began = time.process_time()
    for _ in range(images // BATCH):
        next(batches)
    return time.process_time() - began


def decoding_alone(shards: FrameShards, images: int, seed: int) -> float:
    order = np.random.default_rng(seed).integers(len(shards), size=images // BATCH * BATCH).tolist()
    began = time.process_time()
    for i in order:
        shards.image(i)
    return time.process_time() - began


def measure(path: Path, images: int, size: int) -> dict[str, Any]:
    shards = FrameShards.open(path)
    torch.set_num_threads(1)
    counted = images // BATCH * BATCH
    rates: dict[str, list[float]] = {}
    for round_ in range(ROUNDS):
        for name, seconds in {
            "pixel_batches": ours(shards, images, size, round_),
            "pil_torchvision": baseline(shards, images, size, round_),
            "webdataset": web_dataset(shards, images, size, round_),
            "decoding_alone": decoding_alone(shards, images, round_),
        }.items():
            rates.setdefault(name, []).append(counted / seconds)
    median = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        "images_per_cpu_second": median,
        "all_rounds": rates,
        "ratio_to_webdataset": median["pixel_batches"] / median["webdataset"],
        "ratio_to_pil_torchvision": median["pixel_batches"] / median["pil_torchvision"],
        "frames": len(shards),
        "mean_jpeg_bytes": float(np.mean(shards.reader.records["size"])),
        "frame_size": [int(shards.reader.records[name][0]) for name in ("height", "width")],
        "crop": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretraining images a second per core.")
    parser.add_argument("--images", type=int, default=1000, help="crops a round")
    parser.add_argument("--size", type=int, default=256, help="side of the crops in pixels")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    add_note(parser)
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    for size in ((320, 427), (720, 960)):
        with tempfile.TemporaryDirectory() as folder:
            path = make_shards(Path(folder), 150, size)
            result[f"{size[0]} x {size[1]}"] = measure(path, arguments.images, arguments.size)
    result |= {
        **provenance(
            {"cv2": cv2.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
            | {"simplejpeg": version("simplejpeg"), "webdataset": version("webdataset"), "pillow": version("pillow")},
            note=arguments.note,
        ),
    }
    for frames in ("320 x 427", "720 x 960"):
        for name, rate in result[frames]["images_per_cpu_second"].items():
            print(f"{frames}  {name:16} {rate:7.0f} images/s per core")
        print(f"{frames}  ratio to webdataset {result[frames]['ratio_to_webdataset']:.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
