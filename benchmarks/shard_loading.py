"""Shards to batches, end to end: PixelBatches against webdataset + PIL in a torch DataLoader, images/s per core.

    OMP_NUM_THREADS=1 python benchmarks/shard_loading.py [--images 3000] [--out result.json]

Both read the same ingest (frames of 320 x 427 in many small shards) in random order and hand over uint8 batches of
random crops of 256 pixels; each with two workers, in a process of its own, in alternating rounds. What is counted is
the CPU time of that process and its children after the imports, from opening to the last batch, and the wall time.
`ours_selected` shows what soft sampling takes on top. `resume_ms` is opening the shards and taking up an epoch in its
middle until the first batch is there; webdataset has no exact resume, so `webdataset_skip_ms` reads up to that place.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common.result_file import parse_arguments, provenance, save_result
from common.synthetic_frames import FRAME_SIZE, make_frames
from common.timing import cpu_seconds, measure_alternating

ROUNDS, BATCH, SIZE, WORKERS, FRAMES = 3, 64, 256, 2, 1200


def make_shards(folder: Path) -> Path:
    """Shards, and beside them a selection of their frames by loss."""
    from pixio_robot.data.curation.selection import write_selection
    from pixio_robot.data.images.shards import FrameShards
    from pixio_robot.data.ingest.pipeline import IngestConfig, ingest

    random = np.random.default_rng(0)
    make_frames(folder / "in", (f"{number:05d}.jpg" for number in range(FRAMES)), random)
    config = IngestConfig(source=str(folder / "in"), out=str(folder / "shards"), shard_bytes=4_000_000)
    ingest(config)
    shards = FrameShards.open(folder / "shards")
    losses = random.uniform(0.1, 1.2, len(shards)).astype(np.float32)
    (folder / "selection").mkdir()
    write_selection(folder / "selection", shards, {}, np.zeros(len(shards), np.uint8), losses)
    return folder / "shards"


def ours(shards: Path, selection: Path | None, state: dict[str, Any] | None = None) -> Iterator[Any]:
    from pixio_robot.data.curation.multi_source_selection import open_selections
    from pixio_robot.data.images.batches import PixelBatches
    from pixio_robot.data.images.sources import open_image_source

    source = open_image_source(str(shards))
    chosen = open_selections([str(selection)] if selection else [], source)
    with PixelBatches(source, BATCH, SIZE, seed=0, workers=WORKERS, selection=chosen) as batches:
        if state is not None:
            batches.load_state_dict(state)
        yield from batches


def web_dataset(shards: Path) -> Iterator[Any]:
    """As in its own examples: shuffled shards, a shuffle buffer, PIL, torchvision's crop, batches made by workers."""
    import torch
    import webdataset
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(SIZE, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC)
    stream = (
        webdataset.WebDataset(sorted(str(path) for path in shards.glob("train-*.tar")), shardshuffle=100, seed=0)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg")
        .map_tuple(lambda image: torch.from_numpy(np.array(crop(image))))
        .batched(BATCH)
        .repeat()
    )
    yield from webdataset.WebLoader(stream, batch_size=None, num_workers=WORKERS)


def contest(name: str, folder: Path, images: int) -> dict[str, float]:
    """In a process of its own."""
    import torch
    import webdataset  # noqa: F401  (imported here, so that no contestant pays for it)
    from torchvision.transforms import v2  # noqa: F401

    import pixio_robot.data.curation.multi_source_selection
    import pixio_robot.data.images.batches  # noqa: F401

    torch.set_num_threads(1)
    shards, selection = folder / "shards", folder / "selection"
    middle = {"epoch": 3, "position": 500, "seed": 0, "samples_a_step": BATCH, "images": FRAMES, "corrupt": []}
    batches = {
        "ours": lambda: ours(shards, None),
        "ours_selected": lambda: ours(shards, selection),
        "ours_resumed": lambda: ours(shards, selection, middle),
        "webdataset": lambda: web_dataset(shards),
    }[name]
    began, began_cpu = time.monotonic(), cpu_seconds()
    iterator = batches()
    first = next(iterator)
    first_ms = 1e3 * (time.monotonic() - began)
    count = 1
    while count * BATCH < images:
        next(iterator)
        count += 1
    wall_s = time.monotonic() - began
    iterator.close()  # type: ignore[attr-defined]
    del iterator, first
    cpu_s = cpu_seconds() - began_cpu
    return {
        "images_per_cpu_second": count * BATCH / cpu_s,
        "images_per_second": count * BATCH / wall_s,
        "first_batch_ms": first_ms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Shards to batches, end to end.")
    parser.add_argument("--images", type=int, default=3000, help="crops a round")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parse_arguments(parser, note=True)
    if arguments.contestant:
        print(json.dumps(contest(arguments.contestant, arguments.folder, arguments.images)))
        return
    half_an_epoch = FRAMES // 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shards(folder)
        tars = len(list((folder / "shards").glob("train-*.tar")))

        def run(contestant: str, _: int) -> dict[str, float]:
            images = {"ours_resumed": BATCH, "webdataset_skip": half_an_epoch}.get(contestant, arguments.images)
            words = [sys.executable, __file__, "--contestant", contestant.removesuffix("_skip")]
            words += ["--folder", name, "--images", str(images)]
            return json.loads(subprocess.check_output(words, text=True).splitlines()[-1]) | {"images": images}

        contestants = ("ours", "webdataset", "ours_selected", "ours_resumed", "webdataset_skip")
        rounds = measure_alternating(contestants, run, ROUNDS)
    median = {
        contestant: {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
        for contestant, runs in rounds.items()
    }
    result: dict[str, Any] = {
        "median": {contestant: median[contestant] for contestant in ("ours", "ours_selected", "webdataset")},
        "ratio_to_webdataset_per_core": median["ours"]["images_per_cpu_second"]
        / median["webdataset"]["images_per_cpu_second"],
        "ratio_selected_to_all": median["ours_selected"]["images_per_cpu_second"]
        / median["ours"]["images_per_cpu_second"],
        "resume_ms": median["ours_resumed"]["first_batch_ms"],
        "webdataset_skip_ms": 1e3 * half_an_epoch / median["webdataset_skip"]["images_per_second"],
        "all_rounds": rounds,
        "settings": {"frames": FRAMES, "shards": tars, "frame": FRAME_SIZE, "crop": SIZE, "batch": BATCH}
        | {"workers": WORKERS, "images_per_round": arguments.images},
    }
    for contestant, values in result["median"].items():
        print(
            f"{contestant:14} {values['images_per_cpu_second']:7.0f} images/s per core, "
            f"{values['images_per_second']:7.0f} images/s of wall time with {WORKERS} workers"
        )
    print(f"ratio to webdataset + PIL per core: {result['ratio_to_webdataset_per_core']:.2f}")
    print(f"resume: {result['resume_ms']:.0f} ms to the first batch; skipping {result['webdataset_skip_ms']:.0f} ms")
    packages = ("webdataset", "pillow", "torch", "torchvision", "simplejpeg")
    save_result(result | provenance(*packages, cv2=cv2.__version__, note=arguments.note), arguments.out)


if __name__ == "__main__":
    main()
