"""Opening time and memory of frame shards at 1e3 ... 1e8 frames: both must hardly depend on their number.

    OMP_NUM_THREADS=1 python benchmarks/index_growth.py [--largest 8] [--out result.json]

The index is synthetic (44 bytes a frame; 1e8 frames take 4.4 GB in the temporary folder while it runs) and so are the
shards: sparse files of the right size. Each number is opened in a fresh process, which then looks up random frames in
shuffled order. `private_mb` is what a worker needs for itself; pages of the index are shared and can be dropped.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common.result_file import parse_arguments, provenance, save_result

from pixio_robot.data.images.shards import FORMAT_VERSION, FRAME_RECORD, KIND, MANIFEST

FRAME_BYTES, SHARD_FRAMES, VIDEO_FRAMES = 30_720, 8000, 2000
LOOKUPS = 2000
BLOCK = 1_000_000

PROBE = """
import json, sys, time
from pathlib import Path
import numpy as np
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.shuffle import Shuffle

def kilobytes(*keys):
    lines = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(lines[key].split()[0]) for key in keys)

before = kilobytes("Private_Clean", "Private_Dirty")
began = time.perf_counter()
shards = FrameShards.open(sys.argv[1])
opened = time.perf_counter()
dirty = kilobytes("Private_Dirty")
order = Shuffle(len(shards), 0, 0).at(np.arange(min(len(shards), int(sys.argv[2]))))
for i in order.tolist():
    shards.id(i)
    shards.size(i)
looked_up = time.perf_counter()
after = kilobytes("Private_Dirty")
print(json.dumps({
    "open_ms": (opened - began) * 1e3,
    "lookup_us": (looked_up - opened) / len(order) * 1e6,
    "private_mb": (after - before) / 1e3,
}))
"""


def make(folder: Path, frames: int) -> None:
    """A folder that opens like a finished ingest of that many frames."""
    folder.mkdir()
    index = np.lib.format.open_memmap(folder / "train.npy", "w+", FRAME_RECORD, (frames,))
    for start in range(0, frames, BLOCK):
        rows = np.arange(start, min(start + BLOCK, frames))
        block = np.zeros(len(rows), FRAME_RECORD)
        block["shard"], block["video"] = rows // SHARD_FRAMES, rows // VIDEO_FRAMES
        block["offset"], block["size"] = rows % SHARD_FRAMES * FRAME_BYTES + 512, FRAME_BYTES - 512
        block["time_s"], block["height"], block["width"] = rows % VIDEO_FRAMES / 4, 320, 427
        index[start : start + len(rows)] = block
    index.flush()
    del index
    shards = [
        {"name": f"train-{n:06d}.tar", "bytes": SHARD_FRAMES * FRAME_BYTES} for n in range(-(-frames // SHARD_FRAMES))
    ]
    for shard in shards:
        with (folder / shard["name"]).open("wb") as file:
            file.truncate(shard["bytes"])
    video = {"key": "0" * 32, "bytes": 10**9, "modified_ns": 10**18, "sha256": "0" * 64, "frames": VIDEO_FRAMES}
    video |= {"seconds": 500.0, "static": 0, "over_limit": 0, "failure": None, "bad_images": [], "split": "train"}
    manifest: dict[str, Any] = {"kind": KIND, "format_version": FORMAT_VERSION}
    manifest["splits"] = {"train": {"frames": frames, "shards": shards}, "validation": {"frames": 0, "shards": []}}
    manifest["videos"] = [
        video | {"id": f"participant/video {n:07d}.mp4", "group": f"participant/video {n:07d}.mp4", "kind": "video"}
        for n in range(-(-frames // VIDEO_FRAMES))
    ]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def main() -> None:
    parser = argparse.ArgumentParser(description="Opening time and memory of large frame shards.")
    parser.add_argument("--largest", type=int, default=8, help="largest number of frames, as a power of ten")
    arguments = parse_arguments(parser, note=True)
    points = []
    for power in range(3, arguments.largest + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "shards"
            began = time.monotonic()
            make(folder, 10**power)
            made_s = time.monotonic() - began
            words = [sys.executable, "-c", PROBE, str(folder), str(LOOKUPS)]
            runs = [json.loads(subprocess.check_output(words, text=True)) for _ in range(3)]
            point = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
            point |= {"frames": 10**power, "index_bytes": (folder / "train.npy").stat().st_size, "made_s": made_s}
            points.append(point)
            print(
                f"1e{power} frames: open {point['open_ms']:8.1f} ms, look up {point['lookup_us']:6.1f} us, "
                f"own memory {point['private_mb']:7.1f} MB, index {point['index_bytes'] / 1e6:9.1f} MB"
            )
    share = points[-1]["private_mb"] * 1e6 / points[-1]["index_bytes"]
    print(f"memory at 1e{arguments.largest} / size of its index: {share:.4f}")
    where = provenance("numpy", python=platform.python_version(), note=arguments.note)
    save_result({"points": points, **where}, arguments.out)


if __name__ == "__main__":
    main()
