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
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
import webdataset
from common.result_file import parse_arguments, provenance, save_result
from common.synthetic_frames import make_frames
from common.timing import measure_alternating, medians
from PIL import Image
from torchvision.transforms import v2

from pixio_robot.data.images.batches import RATIO, SCALE, PixelBatches
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest

ROUNDS = 3
BATCH = 64


def make_shards(folder: Path, count: int, size: tuple[int, int]) -> Path:
    make_frames(folder / "in", (f"{number:04d}.png" for number in range(count)), np.random.default_rng(0), size)
    config = IngestConfig(source=str(folder / "in"), out=str(folder / "shards"), short_side=0, workers=1)
    ingest(config)
    return folder / "shards"


def ours(shards: FrameShards, images: int, size: int, seed: int) -> float:
    """CPU seconds for `images` crops."""
    with PixelBatches(shards, BATCH, size, seed=seed, workers=1) as batches:
        return seconds_of(batches, images)


def seconds_of(batches: Iterator[Any], images: int) -> float:
    """CPU seconds for `images` crops after the first batch."""
    next(batches)
    began = time.process_time()
    for _ in range(images // BATCH):
        next(batches)
    return time.process_time() - began


def their_crop(size: int) -> v2.RandomResizedCrop:
    return v2.RandomResizedCrop(size, scale=SCALE, ratio=RATIO, interpolation=v2.InterpolationMode.BICUBIC)


def baseline(shards: FrameShards, images: int, size: int, seed: int) -> float:
    """CPU seconds for `images` crops through PIL and torchvision, collated as uint8."""
    crop = their_crop(size)
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
    crop = their_crop(size)
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
    return seconds_of(iter(stream), images)


def decoding_alone(shards: FrameShards, images: int, size: int, seed: int) -> float:
    """CPU seconds for so many whole frames, whatever the `size` of crops."""
    del size
    order = np.random.default_rng(seed).integers(len(shards), size=images // BATCH * BATCH).tolist()
    began = time.process_time()
    for i in order:
        shards.image(i)
    return time.process_time() - began


def measure(path: Path, images: int, size: int) -> dict[str, Any]:
    shards = FrameShards.open(path)
    torch.set_num_threads(1)
    counted = images // BATCH * BATCH
    sides = {
        "pixel_batches": ours,
        "pil_torchvision": baseline,
        "webdataset": web_dataset,
        "decoding_alone": decoding_alone,
    }
    rates = measure_alternating(sides, lambda name, round_: counted / sides[name](shards, images, size, round_), ROUNDS)
    median = medians(rates)
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
    arguments = parse_arguments(parser, note=True)
    result: dict[str, Any] = {}
    for size in ((320, 427), (720, 960)):
        with tempfile.TemporaryDirectory() as folder:
            path = make_shards(Path(folder), 150, size)
            result[f"{size[0]} x {size[1]}"] = measure(path, arguments.images, arguments.size)
    for frames in ("320 x 427", "720 x 960"):
        for name, rate in result[frames]["images_per_cpu_second"].items():
            print(f"{frames}  {name:16} {rate:7.0f} images/s per core")
        print(f"{frames}  ratio to webdataset {result[frames]['ratio_to_webdataset']:.2f}")
    result |= provenance(
        *("simplejpeg", "webdataset", "pillow"),
        note=arguments.note,
        cv2=cv2.__version__,
        torch=torch.__version__,
        torchvision=torchvision.__version__,
    )
    save_result(result, arguments.out)


if __name__ == "__main__":
    main()
