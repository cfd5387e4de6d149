"""Curation: frames a second of every stage against what bounds it, and how its cost grows with the frames.

    OMP_NUM_THREADS=1 python benchmarks/curation.py [--frames 800] [--largest 8] [--out result.json]

On one core, in CPU seconds, in alternating rounds:
- pixel scores (entropy, sharpness, exposure) against decoding the same JPEGs alone;
- reconstruction loss and embeddings of a Pixio B/16 against its forward pass on images that lie ready;
- near-duplicates across videos against the bare matrix products that compare every frame with every other;
- repeats within videos (perceptual hash), which have no peer;
- drawing an epoch of a selection of up to 1e8 frames, and the memory it takes.
The whole command is timed on growing numbers of frames (without models): a line fits if the cost is linear.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from provenance import add_note, provenance

from pixio_robot.data.curation.columns import Chunk
from pixio_robot.data.curation.curate import CurateConfig, curate
from pixio_robot.data.curation.duplicates import near_duplicates, still_frames
from pixio_robot.data.curation.pixel_scores import score_pixels
from pixio_robot.data.curation.selection import Selection
from pixio_robot.data.ingest import IngestConfig, ingest
from pixio_robot.data.shards import FrameShards
from pixio_robot.training.scoring import embedding_column, mae_loss_column
from pixio_robot.types import Features
from pixio_robot.vision.build import EncoderKind, EncoderSource
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.masking import Mask, sample_mask
from pixio_robot.vision.pixio import PixioEncoder

ROUNDS, MODEL_ROUNDS, MODEL_FRAMES, MASKS = 3, 2, 16, 1
WIDTH = 768


def make_shards(folder: Path, frames: int) -> FrameShards:
    """Frames of 320 x 427 in folders of 50, near the JPEG size of real footage."""
    random = np.random.default_rng(0)
    for number in range(frames):
        coarse = cv2.resize(random.integers(0, 255, (12, 16, 3), np.uint8), (427, 320), interpolation=cv2.INTER_CUBIC)
        image = np.clip(coarse + random.normal(0, 6, (320, 427, 1)), 0, 255).astype(np.uint8)
        path = folder / "in" / f"{number // 50:04d}" / f"{number % 50:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    settings = IngestConfig(source=str(folder / "in"), out=str(folder / "out"), validation_share=0.0)
    ingest(settings, show_progress=False)
    return FrameShards.open(folder / "out")


def rates(contestants: dict[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, Any]:
    """Items a CPU second: the median of alternating rounds, and the first contestant's ratio to the second."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (run, items) in contestants.items():
            began = time.process_time()
            run()
            found.setdefault(name, []).append(items / (time.process_time() - began))
    median = {name: float(np.median(values)) for name, values in found.items()}
    first, second = list(median.values())[:2]
    return {"per_cpu_second": median, "ratio": first / second, "all_rounds": found}


def pixels(shards: FrameShards, folder: Path) -> dict[str, Any]:
    chunk = Chunk(str(shards.path), "train", 0, len(shards), str(folder / "pixels.npy"))

    def decode() -> None:
        for i in range(len(shards)):
            shards.image(i)

    contestants = {
        "pixel_scores": (lambda: score_pixels(chunk, lambda amount: None), len(shards)),
        "decoding_alone": (decode, len(shards)),
    }
    return rates(contestants, ROUNDS)


@torch.inference_mode()
def models(shards: FrameShards, folder: Path) -> dict[str, Any]:
    config = EncoderConfig()
    model = Pixio(PixioEncoder(config), DecoderConfig(), MaskConfig()).eval()
    model.save(folder / "mae")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (MODEL_FRAMES, 256, 256, 3), np.uint8))
    generator = torch.Generator().manual_seed(0)
    drawn = [sample_mask(1, model.encoder.grid(256, 256), model.mask_config, generator) for _ in range(MODEL_FRAMES)]
    mask = Mask(torch.cat([one.keep for one in drawn]), torch.cat([one.hidden for one in drawn]))
    loss = mae_loss_column(str(folder / "mae"), MASKS, "cpu")
    source = EncoderSource(kind=EncoderKind.PIXIO, path=str(folder / "mae"))
    embedding = embedding_column(source, 256, "cpu")
    assert embedding is not None

    def job(column: Any) -> Callable[[], None]:
        chunk = Chunk(str(shards.path), "train", 0, MODEL_FRAMES, str(folder / "scores.npy"))
        column.job(column.argument(Chunk(chunk.data, "train", 0, 1, chunk.target)), lambda amount: None)  # loads it
        return lambda: column.job(column.argument(chunk), lambda amount: None)

    def features() -> Features:
        return model.encoder(images)

    return {
        "mae_loss": rates(
            {
                "mae_loss": (job(loss), MODEL_FRAMES),
                "forward_alone": (lambda: model.reconstruct(images, mask), MODEL_FRAMES),
            },
            MODEL_ROUNDS,
        ),
        "embedding": rates(
            {"embedding": (job(embedding), MODEL_FRAMES), "forward_alone": (features, MODEL_FRAMES)}, MODEL_ROUNDS
        ),
    }


def near(frames: int) -> dict[str, Any]:
    """Pairs a CPU second."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(frames, WIDTH)).astype(np.float16)
    videos, usable = np.arange(frames) // 500, np.ones(frames, bool)

    def products() -> None:
        tensor = torch.from_numpy(vectors.astype(np.float32))
        for first in range(0, frames, 4096):
            for second in range(first, frames, 4096):
                tensor[first : first + 4096] @ tensor[second : second + 4096].T

    pairs = frames * frames // 2
    contestants = {
        "near_duplicates": (lambda: near_duplicates(vectors, videos, usable, 0.99), pairs),
        "products_alone": (products, pairs),
    }
    return rates(contestants, ROUNDS) | {"frames": frames}


def still(frames: int = 1_000_000) -> float:
    hashes = np.random.default_rng(0).integers(0, 2**64, frames, np.uint64)
    began = time.process_time()
    still_frames(hashes, np.arange(frames) // 2000, np.ones(frames, bool), 4)
    return frames / (time.process_time() - began)


def epochs(folder: Path, largest: int) -> list[dict[str, float]]:
    """What an epoch of a selection costs: drawing it once, then looking a batch's frames up."""
    points = []
    for power in range(5, largest + 1):
        frames = 10**power
        acceptance = np.lib.format.open_memmap(folder / "acceptance.npy", "w+", np.float32, (frames,))
        for start in range(0, frames, 1_000_000):
            acceptance[start : start + 1_000_000] = 0.5
        acceptance.flush()
        mapped = np.load(folder / "acceptance.npy", mmap_mode="r")
        selection = Selection({"frames": frames, "kept": frames}, mapped)
        began = time.process_time()
        chosen = selection.epoch(0, 0)
        drawn_s = time.process_time() - began
        tracemalloc.start()
        chosen = selection.epoch(0, 0)
        bytes_kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        positions = np.random.default_rng(0).integers(0, len(chosen), (200, 16))
        began = time.process_time()
        for some in positions:
            chosen[some]
        lookup_us = 1e6 * (time.process_time() - began) / positions.size
        points.append({"frames": frames, "draw_s": drawn_s, "megabytes": bytes_kept / 1e6, "lookup_us": lookup_us})
    return points


def cpu_seconds() -> float:
    """Of this process and its ended children."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def growth(shards: FrameShards, folder: Path) -> dict[str, Any]:
    """CPU seconds of the whole command without models, by frames: growing parts of the same folders."""
    points = []
    for share in (1 / 8, 1 / 4, 1 / 2, 1):
        part = folder / f"part-{share}"
        part.mkdir()
        for path in sorted((shards.path.parent / "in").iterdir())[: round(share * len(shards) / 50)]:
            (part / path.name).symlink_to(path)
        out = folder / f"out-{share}"
        ingest(IngestConfig(source=str(part), out=str(out), validation_share=0.0), show_progress=False)
        began = cpu_seconds()
        report = curate(CurateConfig(data=str(out), workers=1), show_progress=False)
        points.append({"frames": report.frames, "cpu_s": cpu_seconds() - began})
    frames, cpu_s = (np.array([point[key] for point in points]) for key in ("frames", "cpu_s"))
    slope, start = np.polyfit(frames, cpu_s, 1)
    fit = {"ms_per_frame": 1e3 * float(slope), "s_to_start": float(start)}
    return {"points": points, "fit": fit | {"r_squared": float(np.corrcoef(frames, cpu_s)[0, 1] ** 2)}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Frames a second of every stage of curation.")
    parser.add_argument("--frames", type=int, default=800, help="frames to score")
    parser.add_argument("--near", type=int, default=8192, help="frames to compare with each other")
    parser.add_argument("--largest", type=int, default=8, help="frames of the largest selection, as a power of ten")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    add_note(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = make_shards(folder, arguments.frames)
        result["pixels"] = pixels(shards, folder)
        result |= models(shards, folder)
        result["near_duplicates"] = near(arguments.near)
        result["still_frames_per_cpu_second"] = still()
        result["selection_epochs"] = epochs(folder, arguments.largest)
        result["growth"] = growth(shards, folder)
    for stage in ("pixels", "mae_loss", "embedding", "near_duplicates"):
        shown = ", ".join(f"{name} {value:,.1f}" for name, value in result[stage]["per_cpu_second"].items())
        print(f"{stage:16} {shown} a second per core; ratio {result[stage]['ratio']:.2f}")
    print(f"still frames     {result['still_frames_per_cpu_second']:,.0f} a second per core")
    for point in result["selection_epochs"]:
        print(f"epoch of {point['frames']:.0e} frames: {point['draw_s']:.2f} s, {point['megabytes']:.1f} MB")
    print(
        "growth: {ms_per_frame:.2f} ms a frame + {s_to_start:.2f} s, R^2 {r_squared:.4f}".format(
            **result["growth"]["fit"]
        )
    )
    result |= {
        "settings": {name: value for name, value in vars(arguments).items() if name not in ("out", "note")}
        | {"masks": MASKS, "model": "Pixio B/16, decoder 512 x 32, 256 px"},
        **provenance(
            {name: version(name) for name in ("numpy", "torch", "simplejpeg")} | {"cv2": cv2.__version__},
            note=arguments.note,
        ),
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
