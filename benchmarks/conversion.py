"""Frames a second of `data import` and `data export`, for every format, beside a plain copy and lerobot's own reader.

    OMP_NUM_THREADS=1 python benchmarks/conversion.py [--episodes 10] [--formats lerobot ...] [--out result.json]

The store has 2 cameras of 84 px and 50 steps an episode; a frame is one image of one camera. Rates count CPU seconds of
all threads, so that they mean the same on a busy machine. Two things stand beside them in the same run: `rewrite`, a
copy of the store through the writer that every import ends in, which no import can beat; and `lerobot_item_by_item`,
what a loop over LeRobotDataset takes to hand out the frames that our import of the same data set reads and writes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.result_file import parse_arguments, provenance, save_result
from common.synthetic_demos import LEROBOT_NAME, TWO_CAMERAS, make_store

from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.interop.demo_formats import EXPORTS, load_export_format

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in EXPORTS} | {
    "lerobot_video": ("lerobot", {"images": "VIDEO"}),
    "lerobot_video_h264": ("lerobot", {"images": "VIDEO", "codec": "h264"}),
    "folder_npz": ("folder", {"images": "NPZ"}),
    "folder_crf18": ("folder", {"crf": 18}),
    "robomimic_gzip": ("robomimic", {"compress": True}),
    "diffusion_policy_zip": ("diffusion_policy", {"zip": True}),
    "diffusion_policy_jpeg2k": ("diffusion_policy", {"codec": "jpeg2k"}),
    "diffusion_policy_jpegxl": ("diffusion_policy", {"codec": "jpegxl"}),
}
"""Name -> format and its export settings other than the defaults."""
SUFFIXES = {"robomimic": ".hdf5", "diffusion_policy": ".zarr"}


def export_config(form: Any, settings: dict[str, Any]) -> Any:
    config = form.ExportConfig()
    for key, value in settings.items():
        kind = type(getattr(config, key))
        setattr(config, key, kind[value] if isinstance(value, str) and hasattr(kind, "__members__") else value)
    return config


def bytes_of(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def worst_error(before: DemoStore, after: DemoStore) -> int:
    """Of any pixel."""
    return max(
        int(np.abs(before.images(number, camera).astype(np.int16) - after.images(number, camera)).max())
        for number in range(len(before))
        for camera in before.spec.cameras
    )


def item_by_item(root: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(LEROBOT_NAME, root=root, return_uint8=True)
    for number in range(len(dataset)):
        dataset[number]


def measure(folder: Path, episodes: int, formats: list[str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    make_store(folder / "store", TWO_CAMERAS, episodes)
    store = open_for_streaming(folder / "store")
    frames = int(store.lengths.sum()) * len(store.spec.cameras)

    def rate(work: Callable[[], Any]) -> dict[str, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"frames_per_cpu_second": frames / cpu, "frames_per_second": frames / wall}

    results: dict[str, Any] = {"rewrite": rate(lambda: write_stores(folder / "copy", {"": select_episodes(store)}))}
    print("rewrite", {name: round(value) for name, value in results["rewrite"].items()}, flush=True)
    for case, (name, settings) in CASES.items():
        if name not in formats:
            continue
        form = load_export_format(name)
        there, back = folder / f"{case}{SUFFIXES.get(name, '')}", folder / f"{case}-back"
        config = export_config(form, settings)
        # The first use imports libraries, which is no part of the rate.
        warm = folder / f"warm-{case}{SUFFIXES.get(name, '')}"
        make_store(folder / f"warm-{case}-store", TWO_CAMERAS, 1)
        form.export_demos(folder / f"warm-{case}-store", warm, config)
        form.import_demos(warm, folder / f"warm-{case}-back", form.ImportConfig())
        results[case] = found = {
            "export": rate(lambda form=form, config=config, there=there: form.export_demos(store.path, there, config)),
            "import": rate(
                lambda form=form, there=there, back=back: form.import_demos(there, back, form.ImportConfig())
            ),
            "share_of_bytes": bytes_of(there) / bytes_of(store.path / "episodes"),
            "worst_pixel_error": worst_error(store, DemoStore.open(back, ram_bytes=0)),
        }
        if name == "lerobot":
            found["lerobot_item_by_item"] = rate(lambda there=there: item_by_item(there))
            ours = found["import"]["frames_per_cpu_second"]
            found["import_against_item_by_item"] = ours / found["lerobot_item_by_item"]["frames_per_cpu_second"]
        for way in ("export", "import"):
            whole = results["rewrite"]["frames_per_cpu_second"]
            found[way]["share_of_rewrite"] = found[way]["frames_per_cpu_second"] / whole
        print(
            f"{case:24} export {found['export']['frames_per_cpu_second']:7.0f}, import "
            f"{found['import']['frames_per_cpu_second']:7.0f} frames per CPU second; {found['share_of_bytes']:.2f} of "
            f"the bytes, pixels off by {found['worst_pixel_error']} at most"
            + (f", import {r:.1f} x item by item" if (r := found.get("import_against_item_by_item")) else ""),
            flush=True,
        )
    return {"frames": frames, "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description="Frames a second of data import and data export.")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--formats", nargs="+", default=list(EXPORTS), choices=list(EXPORTS))
    arguments = parse_arguments(parser, note=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.episodes, arguments.formats)
    save_result(result | provenance("numpy", torch=torch.__version__, note=arguments.note), arguments.out)


if __name__ == "__main__":
    main()
