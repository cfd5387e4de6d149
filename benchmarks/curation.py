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
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from common.synthetic_frames import make_frames
from common.timing import cpu_seconds, fit_line, measure_alternating, measure_seconds, medians

from pixio_robot.data.curation.curate import CurateConfig, curate
from pixio_robot.data.curation.duplicates import near_duplicates, still_frames
from pixio_robot.data.curation.pixel_scores import score_pixels
from pixio_robot.data.curation.score_columns import Chunk
from pixio_robot.data.curation.selection import Selection
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest
from pixio_robot.training.images.frame_scores import embedding_column, mae_loss_column
from pixio_robot.types import Features
from pixio_robot.vision.build import EncoderKind, EncoderSource
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.masking import Mask, sample_mask
from pixio_robot.vision.pixio import PixioEncoder

ROUNDS, MODEL_ROUNDS, MODEL_FRAMES, MASKS = 3, 2, 16, 1
WIDTH = 768


def make_shards(folder: Path, frames: int) -> FrameShards:
    """In folders of 50 frames."""
    names = (f"{number // 50:04d}/{number % 50:02d}.jpg" for number in range(frames))
    make_frames(folder / "in", names, np.random.default_rng(0), squares=0)
    config = IngestConfig(source=str(folder / "in"), out=str(folder / "out"), validation_share=0.0)
    ingest(config)
    return FrameShards.open(folder / "out")


def rates(contestants: dict[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, Any]:
    """Items a CPU second: the median of alternating rounds, and the first contestant's ratio to the second."""

    def rate(name: str, _: int) -> float:
        run, items = contestants[name]
        return items / measure_seconds(run)

    found = measure_alternating(contestants, rate, rounds)
    median = medians(found)
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
    return frames / measure_seconds(lambda: still_frames(hashes, np.arange(frames) // 2000, np.ones(frames, bool), 4))


def epoch(folder: Path, frames: int) -> dict[str, float]:
    """What an epoch of a selection costs: drawing it once, then looking a batch's frames up."""
    acceptance = np.lib.format.open_memmap(folder / "acceptance.npy", "w+", np.float32, (frames,))
    for start in range(0, frames, 1_000_000):
        acceptance[start : start + 1_000_000] = 0.5
    acceptance.flush()
    mapped = np.load(folder / "acceptance.npy", mmap_mode="r")
    selection = Selection({"frames": frames, "kept": frames}, mapped)
    drawn_s = measure_seconds(lambda: selection.epoch(0, 0))
    tracemalloc.start()
    chosen = selection.epoch(0, 0)
    bytes_kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    positions = np.random.default_rng(0).integers(0, len(chosen), (200, 16))

    def look_up() -> None:
        for some in positions:
            chosen[some]

    lookup_us = 1e6 * measure_seconds(look_up) / positions.size
    return {"frames": frames, "draw_s": drawn_s, "megabytes": bytes_kept / 1e6, "lookup_us": lookup_us}


def growth(shards: FrameShards, folder: Path) -> dict[str, Any]:
    """CPU seconds of the whole command without models, by frames: growing parts of the same folders."""
    points = []
    for share in (1 / 8, 1 / 4, 1 / 2, 1):
        part = folder / f"part-{share}"
        part.mkdir()
        for path in sorted((shards.path.parent / "in").iterdir())[: round(share * len(shards) / 50)]:
            (part / path.name).symlink_to(path)
        out = folder / f"out-{share}"
        ingest(IngestConfig(source=str(part), out=str(out), validation_share=0.0))
        began = cpu_seconds()
        report = curate(CurateConfig(data=str(out), workers=1))
        points.append({"frames": report.frames, "cpu_s": cpu_seconds() - began})
    slope, start, r_squared = fit_line(points, "frames", "cpu_s")
    return {"points": points, "fit": {"ms_per_frame": 1e3 * slope, "s_to_start": start, "r_squared": r_squared}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Frames a second of every stage of curation.")
    parser.add_argument("--frames", type=int, default=800, help="frames to score")
    parser.add_argument("--near", type=int, default=8192, help="frames to compare with each other")
    parser.add_argument("--largest", type=int, default=8, help="frames of the largest selection, as a power of ten")
    arguments = parse_arguments(parser, note=True)
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = make_shards(folder, arguments.frames)
        result["pixels"] = pixels(shards, folder)
        result |= models(shards, folder)
        result["near_duplicates"] = near(arguments.near)
        result["still_frames_per_cpu_second"] = still()
        result["selection_epochs"] = [epoch(folder, 10**power) for power in range(5, arguments.largest + 1)]
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
    model = {"masks": MASKS, "model": "Pixio B/16, decoder 512 x 32, 256 px"}
    result["settings"] = measured_settings(arguments) | model
    result |= provenance("numpy", "torch", "simplejpeg", cv2=cv2.__version__, note=arguments.note)
    save_result(result, arguments.out)


if __name__ == "__main__":
    main()
