"""Training windows a second per core: DemoWindows against numpy in RAM, robomimic's way and LeRobotDataset, in one run.

    OMP_NUM_THREADS=1 python benchmarks/demo_windows.py [--episodes 20] [--batch 64] [--out result.json]

A window is 2 cameras x 2 frames of 84 px, the state and 16 actions. All readers collate the same random windows into
batches of uint8 images in one process, in alternating rounds; rates count CPU seconds, so that they mean the same
on a busy machine. `numpy_in_ram` slices window by window and collates, as diffusion_policy's sampler does.
`h5py` slices contiguous HDF5 images with low-dimensional arrays in RAM: robomimic's loader and its `low_dim` cache.
LeRobotDataset decodes PNG images in parquet (its image type) and AV1 video (its default), by torchcodec if FFmpeg is
installed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.result_file import parse_arguments, provenance, save_result
from common.synthetic_demos import STEPS, TWO_CAMERAS, lerobot_video_decoder, make_lerobot_dataset, make_store
from common.timing import measure_alternating, measure_seconds, medians
from torch.utils.data import default_collate

from pixio_robot.data.demos.codecs import JPEG, JPEGXL, ZSTD
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.features.cache import FeatureCache
from pixio_robot.data.loading import DemoWindows
from pixio_robot.types import Features

OBSERVATION_STEPS, HORIZON = 2, 16
CAMERAS = tuple(TWO_CAMERAS.cameras)
GRID, WIDTH = 12, 128
ROUNDS = 3

Reader = Callable[[np.ndarray], Any]
"""Window numbers (b,) -> a batch."""


def demo_windows(store: DemoStore, features: FeatureCache | None = None) -> DemoWindows:
    return DemoWindows(store, observation_steps=OBSERVATION_STEPS, horizon=HORIZON, cameras=CAMERAS, features=features)


def pack(store: DemoStore, path: Path, codec: str) -> DemoStore:
    archive = DemoStore.create(path, store.spec, image_codec=codec)
    for number in range(len(store)):
        archive.append(store.episode(number))
    return DemoStore.open(path, ram_bytes=0)


def image_bytes(store: DemoStore) -> int:
    return sum(file.stat().st_size for file in (store.path / "episodes").rglob("images/*/c/**/*") if file.is_file())


def slices(episodes: Sequence[Mapping[str, Any]]) -> Reader:
    """Each window a dictionary of slices of its episode's arrays, repeated at the edges, then collated."""

    def part(values: Any, first: int, count: int) -> torch.Tensor:
        low, high = max(first, 0), min(first + count, STEPS)
        slab = values[low:high]
        if len(slab) < count:
            edges = [(low - first, first + count - high)] + [(0, 0)] * (slab.ndim - 1)
            slab = np.pad(slab, edges, mode="edge")
        return torch.from_numpy(slab)

    def window(number: int) -> dict[str, torch.Tensor]:
        episode, step = divmod(number, STEPS)
        values = episodes[episode]
        seen = {
            name: part(values[name], step - OBSERVATION_STEPS + 1, OBSERVATION_STEPS) for name in (*CAMERAS, "state")
        }
        return seen | {"actions": part(values["actions"], step, HORIZON)}

    return lambda indices: default_collate([window(number) for number in indices.tolist()])


def in_memory(store: DemoStore) -> list[dict[str, Any]]:
    """Copies of everything, as the store holds its own in RAM too."""
    episodes = [store.episode(number) for number in range(len(store))]
    arrays = [{**episode.images, "state": episode.state, "actions": episode.actions} for episode in episodes]
    return [{name: values.copy() for name, values in episode.items()} for episode in arrays]


def in_hdf5(store: DemoStore, path: Path) -> list[dict[str, Any]]:
    """One group a demonstration with its images; the rest in memory."""
    import h5py

    with h5py.File(path, "w") as file:
        for number in range(len(store)):
            for camera in CAMERAS:
                file[f"data/demo_{number}/obs/{camera}"] = store.images(number, camera)
    file = h5py.File(path, "r")
    return [
        {camera: file[f"data/demo_{number}/obs/{camera}"] for camera in CAMERAS}
        | {"state": store.state(number), "actions": store.actions(number)}
        for number in range(len(store))
    ]


def lerobot(store: DemoStore, path: Path, *, videos: bool) -> Reader:
    dataset = make_lerobot_dataset(store, path, OBSERVATION_STEPS, range(HORIZON), videos=videos, return_uint8=True)
    return lambda indices: default_collate([dataset[number] for number in indices.tolist()])


def check_same(store: DemoStore, readers: Mapping[str, Reader], windows: int) -> None:
    """That the readers which deliver pixels deliver the same ones."""
    indices = np.random.default_rng(9).integers(0, windows, 8)
    expected = readers["demo_batches"](indices)
    found = readers["numpy_in_ram"](indices)
    for camera in CAMERAS:
        pixels = expected.observation.images[camera]
        assert torch.equal(pixels, found[camera])
        assert torch.equal(pixels, readers["demo_batches_beyond_ram"](indices).observation.images[camera])
        assert torch.equal(pixels, readers["h5py"](indices)[camera])
        if "lerobot_png" in readers:
            theirs = readers["lerobot_png"](indices)[f"observation.images.{camera}"]
            theirs = theirs if theirs.dtype == torch.uint8 else (theirs * 255).round().to(torch.uint8)
            assert torch.equal(pixels, theirs.permute(0, 1, 3, 4, 2))
            assert readers["lerobot_video"](indices)[f"observation.images.{camera}"].shape == theirs.shape
    assert torch.equal(expected.actions, found["actions"])


def rate(reader: Reader, windows: int, batch: int, count: int, seed: int) -> float:
    """Windows a CPU second."""
    random = np.random.default_rng(seed)

    def read() -> None:
        for _ in range(count):
            reader(random.integers(0, windows, batch))

    return count * batch / measure_seconds(read)


def measure(folder: Path, episodes: int, batch: int, with_lerobot: bool) -> dict[str, Any]:
    torch.set_num_threads(1)
    store = make_store(folder / "demos.zarr", TWO_CAMERAS, episodes)
    cached = Features(torch.randn(STEPS, 1, WIDTH).half(), torch.randn(STEPS, GRID, GRID, WIDTH).half())
    cache = FeatureCache({camera: [cached] * episodes for camera in CAMERAS})
    readers: dict[str, Reader] = {
        "numpy_in_ram": slices(in_memory(store)),
        "demo_batches": demo_windows(store).gather,
        "demo_batches_beyond_ram": demo_windows(DemoStore.open(store.path, ram_bytes=0)).gather,
        "cached_features": demo_windows(store, cache).gather,
    }
    archives = {codec: pack(store, folder / codec, codec) for codec in (ZSTD, JPEGXL, JPEG)}
    readers |= {f"archive_{codec}": demo_windows(archive).gather for codec, archive in archives.items()}
    readers["h5py"] = slices(in_hdf5(store, folder / "demos.hdf5"))
    if with_lerobot:
        readers["lerobot_png"] = lerobot(store, folder / "png", videos=False)
        readers["lerobot_video"] = lerobot(store, folder / "video", videos=True)
    windows = episodes * STEPS
    check_same(store, readers, windows)
    counts = {name: 1 if name.startswith("lerobot") else 30 for name in readers}
    rates = measure_alternating(
        readers, lambda name, round_: rate(readers[name], windows, batch, counts[name], round_), ROUNDS
    )
    median = medians(rates)
    return {
        "windows_per_cpu_second": median,
        "all_rounds": rates,
        "ratio_to_numpy_in_ram": {name: value / median["numpy_in_ram"] for name, value in median.items()},
        "ratio_to_lerobot_video": {name: value / median["lerobot_video"] for name, value in median.items()}
        if with_lerobot
        else {},
        "archive_share_of_bytes": {name: image_bytes(part) / image_bytes(store) for name, part in archives.items()},
        "batch": batch,
        "frames": windows * len(CAMERAS),
        "size": TWO_CAMERAS.cameras[CAMERAS[0]].height,
        "feature_shape": [GRID, GRID, WIDTH],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training windows a second per core.")
    parser.add_argument("--episodes", type=int, default=20, help=f"of {STEPS} steps each")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--no-lerobot", action="store_true", help="leave LeRobotDataset out")
    arguments = parse_arguments(parser, note=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.episodes, arguments.batch, not arguments.no_lerobot)
    for name, value in result["windows_per_cpu_second"].items():
        of_lerobot = result["ratio_to_lerobot_video"].get(name)
        print(
            f"{name:24} {value:8.0f} windows/s per core, {result['ratio_to_numpy_in_ram'][name]:6.3f} of numpy in RAM"
            + (f", {of_lerobot:7.1f} of LeRobot video" if of_lerobot else "")
        )
    for codec, share in result["archive_share_of_bytes"].items():
        print(f"archive {codec}: {share:.2f} of the bytes")
    versions = {"torch": torch.__version__}
    if not arguments.no_lerobot:
        versions["lerobot_video_decoder"] = lerobot_video_decoder()
    save_result(result | provenance("numpy", note=arguments.note, **versions), arguments.out)


if __name__ == "__main__":
    main()
