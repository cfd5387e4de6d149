"""Training windows a second per core: DemoBatches against numpy in RAM, robomimic's way and LeRobotDataset, in one run.

    OMP_NUM_THREADS=1 python benchmarks/demo_windows.py [--episodes 20] [--batch 64] [--out result.json]

A window is 2 cameras x 2 frames of 84 px, the state and 16 actions. All readers collate the same random windows into
batches of uint8 images in one process, in alternating rounds; rates count CPU seconds, so that they mean the same
on a busy machine. `numpy_in_ram` slices window by window and collates, as diffusion_policy's sampler does.
`h5py` slices contiguous HDF5 images with low-dimensional arrays in RAM: robomimic's loader and its `low_dim` cache.
LeRobotDataset decodes PNG images in parquet (its image type) and AV1 video (its default).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import add_note, provenance
from torch.utils.data import default_collate

from pixio_robot.data.demo_codecs import JPEG, JPEGXL, ZSTD
from pixio_robot.data.demos import DemoStore
from pixio_robot.data.features import FeatureCache
from pixio_robot.data.loading import DemoBatches
from pixio_robot.types import CameraSpec, DemoSpec, Episode, Features

OBSERVATION_STEPS, HORIZON, SIZE, HZ = 2, 16, 84, 20
CAMERAS = ("front", "hand")
GRID, WIDTH = 12, 128
STEPS = 50
ROUNDS = 3

Reader = Callable[[np.ndarray], Any]
"""Window numbers (b,) -> a batch."""


def make_store(path: Path, episodes: int) -> DemoStore:
    spec = DemoSpec(
        task="benchmark",
        robot="none",
        simulator="none",
        simulator_version="0",
        controller="none",
        control_hz=HZ,
        cameras={camera: CameraSpec(height=SIZE, width=SIZE) for camera in CAMERAS},
        state_names=tuple(f"s{i}" for i in range(9)),
        action_names=tuple(f"a{i}" for i in range(7)),
    )
    store, random = DemoStore.create(path, spec), np.random.default_rng(0)
    for seed in range(episodes):
        # Coarse blocks with some grain: compresses about as simulator images do.
        coarse = random.integers(0, 240, (2, STEPS, SIZE // 12, SIZE // 12, 3), np.uint8).repeat(12, 2).repeat(12, 3)
        images = coarse + random.integers(0, 4, coarse.shape, np.uint8)
        store.append(
            Episode(
                images=dict(zip(CAMERAS, images, strict=True)),
                state=random.normal(size=(STEPS, 9)).astype(np.float32),
                actions=random.normal(size=(STEPS, 7)).astype(np.float32),
                rewards=np.zeros(STEPS, np.float32),
                success=True,
                seed=seed,
            )
        )
    return store


def batches(store: DemoStore, features: FeatureCache | None = None) -> DemoBatches:
    return DemoBatches(
        store,
        observation_steps=OBSERVATION_STEPS,
        horizon=HORIZON,
        cameras=CAMERAS,
        batch_size=64,
        seed=0,
        features=features,
    )


def pack(store: DemoStore, path: Path, codec: str) -> DemoStore:
    archive = DemoStore.create(path, store.spec, image_codec=codec)
    for number in range(len(store)):
        archive.append(store.episode(number))
    return DemoStore.open(path, ram_bytes=0)


def image_bytes(store: DemoStore) -> int:
    return sum(file.stat().st_size for file in (store.path / "episodes").rglob("images/*/c/**/*") if file.is_file())


def numpy_in_ram(store: DemoStore) -> Reader:
    """Flat arrays of everything; each window a dictionary of slices, repeated at the edges, then collated."""
    episodes = [store.episode(number) for number in range(len(store))]
    flat = {camera: np.concatenate([episode.images[camera] for episode in episodes]) for camera in CAMERAS}
    flat["state"] = np.concatenate([episode.state for episode in episodes])
    flat["actions"] = np.concatenate([episode.actions for episode in episodes])

    def part(name: str, episode: int, first: int, count: int) -> torch.Tensor:
        low, high = max(first, 0), min(first + count, STEPS)
        slab = flat[name][episode * STEPS + low : episode * STEPS + high]
        if len(slab) < count:
            edges = [(low - first, first + count - high)] + [(0, 0)] * (slab.ndim - 1)
            slab = np.pad(slab, edges, mode="edge")
        return torch.from_numpy(slab)

    def window(number: int) -> dict[str, torch.Tensor]:
        episode, step = divmod(number, STEPS)
        seen = {name: part(name, episode, step - OBSERVATION_STEPS + 1, OBSERVATION_STEPS) for name in _SEEN}
        return seen | {"actions": part("actions", episode, step, HORIZON)}

    return lambda indices: default_collate([window(number) for number in indices.tolist()])


_SEEN = (*CAMERAS, "state")


def h5py_slices(store: DemoStore, path: Path) -> Reader:
    """One group a demonstration, images sliced from the file window by window, then collated."""
    import h5py

    with h5py.File(path, "w") as file:
        for number in range(len(store)):
            for camera in CAMERAS:
                file[f"data/demo_{number}/obs/{camera}"] = store.images(number, camera)
    file = h5py.File(path, "r")
    images = [{camera: file[f"data/demo_{number}/obs/{camera}"] for camera in CAMERAS} for number in range(len(store))]
    low = [{"state": store.state(number), "actions": store.actions(number)} for number in range(len(store))]

    def part(values: Any, first: int, count: int) -> torch.Tensor:
        start, stop = max(first, 0), min(first + count, STEPS)
        slab = values[start:stop]
        edges = [(start - first, first + count - stop)] + [(0, 0)] * (slab.ndim - 1)
        return torch.from_numpy(np.pad(slab, edges, mode="edge") if len(slab) < count else slab)

    def window(number: int) -> dict[str, torch.Tensor]:
        episode, step = divmod(number, STEPS)
        sources = images[episode] | low[episode]
        seen = {name: part(sources[name], step - OBSERVATION_STEPS + 1, OBSERVATION_STEPS) for name in _SEEN}
        return seen | {"actions": part(sources["actions"], step, HORIZON)}

    return lambda indices: default_collate([window(number) for number in indices.tolist()])


def lerobot(store: DemoStore, path: Path, *, videos: bool) -> Reader:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    images = {
        "dtype": "video" if videos else "image",
        "shape": (SIZE, SIZE, 3),
        "names": ["height", "width", "channels"],
    }
    values = {"dtype": "float32", "names": None}
    keys = {camera: f"observation.images.{camera}" for camera in CAMERAS}
    features = {key: dict(images) for key in keys.values()} | {
        "observation.state": values | {"shape": (9,)},
        "action": values | {"shape": (7,)},
    }
    writer = LeRobotDataset.create("local/benchmark", HZ, features, root=path, use_videos=videos)
    for number in range(len(store)):
        episode = store.episode(number)
        for step in range(STEPS):
            frame: dict[str, Any] = {key: episode.images[camera][step] for camera, key in keys.items()}
            frame |= {"observation.state": episode.state[step], "action": episode.actions[step], "task": "benchmark"}
            writer.add_frame(frame)
        writer.save_episode()
    writer.finalize()
    seen = [(step - OBSERVATION_STEPS + 1) / HZ for step in range(OBSERVATION_STEPS)]
    wanted = dict.fromkeys([*keys.values(), "observation.state"], seen) | {"action": [i / HZ for i in range(HORIZON)]}
    dataset = LeRobotDataset("local/benchmark", root=path, delta_timestamps=wanted, return_uint8=True)
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
    began = time.process_time()
    for _ in range(count):
        reader(random.integers(0, windows, batch))
    return count * batch / (time.process_time() - began)


def measure(folder: Path, episodes: int, batch: int, with_lerobot: bool) -> dict[str, Any]:
    torch.set_num_threads(1)
    store = make_store(folder / "demos.zarr", episodes)
    cached = Features(torch.randn(STEPS, 1, WIDTH).half(), torch.randn(STEPS, GRID, GRID, WIDTH).half())
    cache = FeatureCache({camera: [cached] * episodes for camera in CAMERAS})
    readers: dict[str, Reader] = {
        "numpy_in_ram": numpy_in_ram(store),
        "demo_batches": batches(store).gather,
        "demo_batches_beyond_ram": batches(DemoStore.open(store.path, ram_bytes=0)).gather,
        "cached_features": batches(store, cache).gather,
    }
    archives = {codec: pack(store, folder / codec, codec) for codec in (ZSTD, JPEGXL, JPEG)}
    readers |= {f"archive_{codec}": batches(archive).gather for codec, archive in archives.items()}
    readers["h5py"] = h5py_slices(store, folder / "demos.hdf5")
    if with_lerobot:
        readers["lerobot_png"] = lerobot(store, folder / "png", videos=False)
        readers["lerobot_video"] = lerobot(store, folder / "video", videos=True)
    windows = episodes * STEPS
    check_same(store, readers, windows)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for round_ in range(ROUNDS):
        for name, reader in readers.items():
            count = 1 if name.startswith("lerobot") else 30
            rates[name].append(rate(reader, windows, batch, count, round_))
    median = {name: float(np.median(values)) for name, values in rates.items()}
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
        "size": SIZE,
        "feature_shape": [GRID, GRID, WIDTH],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training windows a second per core.")
    parser.add_argument("--episodes", type=int, default=20, help=f"of {STEPS} steps each")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--no-lerobot", action="store_true", help="leave LeRobotDataset out")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    add_note(parser)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.episodes, arguments.batch, not arguments.no_lerobot)
    result |= {
        **provenance({"numpy": np.__version__, "torch": torch.__version__}, note=arguments.note),
    }
    for name, value in result["windows_per_cpu_second"].items():
        of_lerobot = result["ratio_to_lerobot_video"].get(name)
        print(
            f"{name:24} {value:8.0f} windows/s per core, {result['ratio_to_numpy_in_ram'][name]:6.3f} of numpy in RAM"
            + (f", {of_lerobot:7.1f} of LeRobot video" if of_lerobot else "")
        )
    for codec, share in result["archive_share_of_bytes"].items():
        print(f"archive {codec}: {share:.2f} of the bytes")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
