"""Ingest against the ffmpeg command doing the same sampling, per core; and how cost grows with hours of video.

    OMP_NUM_THREADS=1 python benchmarks/ingest.py [--out result.json]

`ffmpeg -vf fps=4,scale=-2:320` is timed where an `ffmpeg` is on the PATH (Debian: apt-get install ffmpeg). `pyav_limit`
is the same by a bare PyAV loop: decode every frame in one thread, shrink the sampled ones with swscale, write them as
JPEG of the same quality. CPU seconds, in alternating rounds, of the children too; ingest's include hashing, perceptual
hashes, the search for static frames, the index and packing. It starts a Python process a core, once for all files:
hours of footage make up for that and a minute does not, so its rate is given less the CPU seconds of an ingest of
nothing (`ingest_with_start` counts them). Growth is shown twice: more files, and longer files with the memory of the
process that decodes them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from common.result_file import parse_arguments, provenance, save_result
from common.timing import cpu_seconds, fit_line, measure_alternating, measure_seconds, medians

from pixio_robot.data.images.codec import encode_jpeg
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest

ROUNDS = 3
FPS = 30
RATE, SHORT_SIDE, QUALITY = 4.0, 320, 92


def make_clip(path: Path, seconds: float, codec: str, width: int, height: int) -> None:
    """A textured world seen by a camera that never rests, with grain: of 4 Mbit/s as h264."""
    random = np.random.default_rng(0)
    world_size = (width + 1280, height + 1080)
    world = cv2.resize(random.integers(0, 255, (90, 160, 3), np.uint8), world_size, interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0, 5, (height, width, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"preset": "veryfast", "b": "4M"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(round(seconds * FPS)):
            left, top = (round(600 + 500 * f(number / 40)) for f in (np.sin, np.cos))
            view = world[top // 2 : top // 2 + height, left : left + width]
            shaken = np.roll(grain, random.integers(height), axis=0)
            image = np.clip(view + shaken, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def by_ingest(source: Path, out: Path) -> None:
    config = IngestConfig(source=str(source), out=str(out), frames_per_second=RATE, workers=1, min_change=0.0)
    ingest(config)


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
        words = ["ffmpeg", "-v", "error", "-filter_threads", "1", "-threads", "1", "-i", str(path)]
        words += ["-vf", f"fps={RATE},scale=-2:{SHORT_SIDE}"]
        subprocess.run([*words, "-q:v", "2", "-threads", "1", str(out / f"{path.stem}-%d.jpg")], check=True)


def ffmpeg_version() -> str:
    if not shutil.which("ffmpeg"):
        return "not there"
    return subprocess.check_output(["ffmpeg", "-version"], text=True).splitlines()[0]


def copies(clip: Path, folder: Path, clips: int) -> None:
    folder.mkdir(parents=True)
    for number in range(clips):
        shutil.copy(clip, folder / f"{number}{clip.suffix}")


def compare(folder: Path, clip: Path, clips: int) -> dict[str, Any]:
    """Times faster than real time, per core."""
    source = folder / "in"
    copies(clip, source, clips)
    with av.open(str(clip)) as container:
        hours = clips * float(container.duration or 0) / av.time_base / 3600
    contestants = {"start": by_ingest, "ingest": by_ingest, "pyav_limit": by_pyav}  # start: an ingest of nothing
    if shutil.which("ffmpeg"):
        contestants["ffmpeg"] = by_ffmpeg
    nothing = folder / "nothing"
    nothing.mkdir()
    cv2.imwrite(str(nothing / "one.png"), np.zeros((16, 16, 3), np.uint8))
    written: dict[str, int] = {}  # bytes

    def cost(name: str, round_: int) -> float:
        out = folder / f"{name}-{round_}"
        taken = measure_seconds(lambda: contestants[name](nothing if name == "start" else source, out), cpu_seconds)
        written[name] = sum(path.stat().st_size for path in out.iterdir())
        shutil.rmtree(out)
        return taken

    seconds = measure_alternating(contestants, cost, ROUNDS)
    spent = medians(seconds)
    spent |= {"ingest": spent["ingest"] - spent["start"], "ingest_with_start": spent["ingest"]}
    start = spent.pop("start")
    median = {name: hours * 3600 / cpu_s for name, cpu_s in spent.items()}
    ratios = {f"ratio_to_{name}": median["ingest"] / rate for name, rate in median.items() if "ingest" not in name}
    return ratios | {
        "times_real_time_per_core": median,
        "cpu_s_to_start": start,
        "cpu_s_of_all_rounds": seconds,
        "hours": hours,
        "megabytes_written_per_hour": written["ingest"] / 1e6 / hours,
        "megabytes_read_per_hour": clip.stat().st_size * clips / 1e6 / hours,
    }


INGEST = """
import resource, sys
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest
if __name__ == "__main__":
    limits = {"workers": 1, "min_change": 0.0, "max_frames_per_video": 10**6}
    ingest(IngestConfig(source=sys.argv[1], out=sys.argv[2], **limits))
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def repeat(clip: Path, path: Path, times: int) -> None:
    """The clip so many times in a row, without coding it again."""
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as target:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    target.mux(packet)
                shift += video.duration or 0


def timed_ingest(source: Path, out: Path) -> dict[str, float]:
    script = out.parent / "ingest_once.py"
    script.write_text(INGEST)
    began, began_cpu = time.monotonic(), cpu_seconds()
    peak = subprocess.check_output([sys.executable, str(script), str(source), str(out)], text=True)
    times = {"cpu_s": cpu_seconds() - began_cpu, "wall_s": time.monotonic() - began}
    return times | {"decoder_mb": int(peak) / 1e3}


def growth(folder: Path, clip: Path, seconds: float, in_one_file: bool) -> dict[str, Any]:
    """CPU and wall seconds of ingesting 1, 2, 4 ... copies, as files or in a row, and the line through them."""
    points = []
    for clips in (1, 2, 4, 8):
        source = folder / f"in-{clips}"
        if in_one_file:
            repeat(clip, source / f"all{clip.suffix}", clips)
        else:
            copies(clip, source, clips)
        points.append({"hours": clips * seconds / 3600} | timed_ingest(source, folder / f"out-{clips}"))
    slope, start, r_squared = fit_line(points, "hours", "cpu_s")
    return {"points": points, "fit": {"cpu_s_per_hour": slope, "cpu_s_to_start": start, "r_squared": r_squared}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Ingest against ffmpeg and a bare decoding loop.")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the clips")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 720], help="width and height of the clips")
    parser.add_argument("--codecs", nargs="+", default=["libx264", "libx265"])
    parser.add_argument("--compare-only", action="store_true", help="leave out how the cost grows")
    arguments = parse_arguments(parser, note=True)
    width, height = arguments.size
    result: dict[str, Any] = {"clip": f"{width} x {height}, {FPS} frames/s, {arguments.seconds:g} s"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for codec in arguments.codecs:
            clip = folder / f"{codec}.mp4"
            make_clip(clip, arguments.seconds, codec, width, height)
            result[codec] = compare(folder / codec, clip, arguments.clips)
            print(
                f"{codec}: " + ", ".join(f"{k} {v:.1f} x" for k, v in result[codec]["times_real_time_per_core"].items())
            )
            for name in ("ffmpeg", "pyav_limit"):
                if (ratio := result[codec].get(f"ratio_to_{name}")) is not None:
                    print(f"{codec}: ratio to {name} {ratio:.2f}")
        ways = () if arguments.compare_only else (("more_files", False), ("longer_files", True))
        for name, in_one_file in ways:
            found = growth(folder / name, folder / f"{arguments.codecs[0]}.mp4", arguments.seconds, in_one_file)
            result[name] = found
            memory = [point["decoder_mb"] for point in found["points"]]
            print(
                f"{name}: {found['fit']['cpu_s_per_hour']:.0f} s an hour + {found['fit']['cpu_s_to_start']:.1f} s, "
                f"R^2 {found['fit']['r_squared']:.4f}; decoder {memory[0]:.0f} to {memory[-1]:.0f} MB"
            )
    result |= provenance(
        *("av", "numpy", "simplejpeg"),
        note=arguments.note,
        libraries_in_av=str(av.library_versions),
        ffmpeg=ffmpeg_version(),
    )
    save_result(result, arguments.out)


if __name__ == "__main__":
    main()
