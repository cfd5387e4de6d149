"""Ingest against its limit: the same sampling by a bare PyAV loop, per core; and how cost grows with hours of video.

    OMP_NUM_THREADS=1 python benchmarks/ingest.py [--out result.json]

The limit decodes every frame with FFmpeg's libraries in one thread, converts and shrinks the sampled ones with
swscale to the same size and writes them as JPEG of the same quality: what `ffmpeg -vf fps=4,scale=-2:320` does. Where
an `ffmpeg` binary is on the PATH that command is timed as well. CPU seconds, in alternating rounds, of the children
too; ingest's include hashing, perceptual hashes, the search for static frames, the index and packing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pixio_robot.data.images import encode_jpeg
from pixio_robot.data.ingest import IngestConfig, ingest

ROUNDS = 3
WIDTH, HEIGHT, FPS = 1280, 720, 30
RATE, SHORT_SIDE, QUALITY = 4.0, 320, 92


def make_clip(path: Path, seconds: float, codec: str) -> None:
    """A textured world seen by a camera that never rests, with grain: near 4 Mbit/s as h264."""
    random = np.random.default_rng(0)
    world = cv2.resize(random.integers(0, 255, (90, 160, 3), np.uint8), (2560, 1440), interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0, 5, (HEIGHT, WIDTH, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"preset": "veryfast", "b": "4M"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(round(seconds * FPS)):
            left, top = (round(600 + 500 * f(number / 40)) for f in (np.sin, np.cos))
            view = world[top // 2 : top // 2 + HEIGHT, left : left + WIDTH]
            shaken = np.roll(grain, random.integers(HEIGHT), axis=0)
            image = np.clip(view + shaken, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def cpu_seconds() -> float:
    """Of this process and its ended children."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def by_ingest(source: Path, out: Path) -> None:
    config = IngestConfig(source=str(source), out=str(out), frames_per_second=RATE, workers=1, min_change=0.0)
    ingest(config, show_progress=False)


def by_pyav(source: Path, out: Path) -> None:
    """The limit."""
    out.mkdir()
    for path in sorted(source.iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            due, number = 0.0, 0
            for frame in container.decode(stream):
                if frame.time is None or frame.time < due:
                    continue
                due += 1 / RATE
                width = round(frame.width * SHORT_SIDE / frame.height / 2) * 2
                small = frame.reformat(width, SHORT_SIDE, "rgb24", interpolation="AREA").to_ndarray()
                (out / f"{path.stem}-{number}.jpg").write_bytes(encode_jpeg(small, QUALITY))
                number += 1


def by_ffmpeg(source: Path, out: Path) -> None:
    out.mkdir()
    for path in sorted(source.iterdir()):
        words = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-vf", f"fps={RATE},scale=-2:{SHORT_SIDE}"]
        subprocess.run([*words, "-q:v", "2", "-threads", "1", str(out / f"{path.stem}-%d.jpg")], check=True)


def compare(folder: Path, clip: Path, clips: int) -> dict[str, Any]:
    """Times faster than real time, per core."""
    source = folder / "in"
    source.mkdir()
    for number in range(clips):
        shutil.copy(clip, source / f"{number}{clip.suffix}")
    with av.open(str(clip)) as container:
        hours = clips * float(container.duration or 0) / av.time_base / 3600
    contestants = {"ingest": by_ingest, "pyav_limit": by_pyav}
    if shutil.which("ffmpeg"):
        contestants["ffmpeg"] = by_ffmpeg
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    written = 0
    for round_ in range(ROUNDS):
        for name, run in contestants.items():
            began = cpu_seconds()
            run(source, folder / f"{name}-{round_}")
            rates[name].append(hours * 3600 / (cpu_seconds() - began))
            if name == "ingest":
                written = sum(path.stat().st_size for path in (folder / f"{name}-{round_}").iterdir())
    median = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        "times_real_time_per_core": median,
        "all_rounds": rates,
        "ratio_to_pyav_limit": median["ingest"] / median["pyav_limit"],
        "hours": hours,
        "megabytes_written_per_hour": written / 1e6 / hours,
        "megabytes_read_per_hour": clip.stat().st_size * clips / 1e6 / hours,
    }


def growth(folder: Path, clip: Path) -> list[dict[str, float]]:
    """CPU and wall seconds of ingesting 1, 2, 4 ... copies."""
    points = []
    for clips in (1, 2, 4, 8, 16):
        source = folder / f"in-{clips}"
        source.mkdir(parents=True)
        for number in range(clips):
            shutil.copy(clip, source / f"{number}{clip.suffix}")
        began, began_cpu = time.monotonic(), cpu_seconds()
        by_ingest(source, folder / f"out-{clips}")
        points.append({"clips": clips, "cpu_s": cpu_seconds() - began_cpu, "wall_s": time.monotonic() - began})
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description="Ingest against a bare decoding loop.")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the clips")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"clip": f"{WIDTH} x {HEIGHT}, {FPS} frames/s, {arguments.seconds:g} s"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for codec in ("libx264", "libx265"):
            clip = folder / f"{codec}.mp4"
            make_clip(clip, arguments.seconds, codec)
            (folder / codec).mkdir()
            result[codec] = compare(folder / codec, clip, arguments.clips)
            print(
                f"{codec}: " + ", ".join(f"{k} {v:.1f} x" for k, v in result[codec]["times_real_time_per_core"].items())
            )
            print(f"{codec}: ratio to the limit {result[codec]['ratio_to_pyav_limit']:.2f}")
        result["growth"] = growth(folder / "growth", folder / "libx264.mp4")
        clips, cpu_s = (np.array([point[key] for point in result["growth"]]) for key in ("clips", "cpu_s"))
        slope, start = np.polyfit(clips, cpu_s, 1)
        result["growth_fit"] = {
            "cpu_s_per_clip": float(slope),
            "cpu_s_to_start": float(start),
            "r_squared": float(np.corrcoef(clips, cpu_s)[0, 1] ** 2),
        }
        print(f"growth: {slope:.2f} s a clip + {start:.2f} s, R^2 {result['growth_fit']['r_squared']:.4f}")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    result |= {
        "commit": commit.stdout.strip(),
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("av", "numpy", "simplejpeg")}
        | {"ffmpeg": str(av.library_versions)},
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
