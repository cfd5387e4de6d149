"""Small videos made on the spot, by the encoders inside PyAV's own wheel."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np
import pytest

WIDTH, HEIGHT = 160, 96

QUICKLY = {
    "libaom-av1": {"cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"},
}

MakeVideo = Callable[..., Path]


def moving_picture(number: int, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """uint8 (h, w, 3): smooth colours, a bar that moves, red in the top left corner."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 2 % 256, columns % 256, (rows + columns + 37 * seed) % 256], axis=-1).astype(np.uint8)
    image[: height // 4, : width // 4] = (220, 30, 30)
    start = (number * 4) % (width - 16)
    image[height // 2 :, start : start + 16] = (20, 200, 40)
    return image


@pytest.fixture(scope="session")
def make_video() -> MakeVideo:
    """make_video(path, seconds=, codec=, times=, size=, still=, seed=, extra_streams=, options=) -> path.

    20 frames a second unless `times`; `extra_streams` adds two of sound before the picture.
    """

    def make(
        path: Path,
        *,
        seconds: float = 2.0,
        codec: str = "libx264",
        times: Sequence[float] | None = None,
        size: tuple[int, int] = (WIDTH, HEIGHT),
        still: bool = False,
        seed: int = 0,
        extra_streams: bool = False,
        options: Mapping[str, str] = MappingProxyType({}),
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        times = [i / 20 for i in range(round(seconds * 20))] if times is None else times
        of_file = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
        with av.open(str(path), "w", options=of_file) as container:
            sounds = [container.add_stream("aac", rate=16000) for _ in range(2 if extra_streams else 0)]
            stream = container.add_stream(codec, rate=20, options={"g": "10"} | QUICKLY.get(codec, {}) | dict(options))
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            # MPEG-4 and AVI count frames, the others take any clock.
            base = Fraction(1, 20) if codec == "mpeg4" else Fraction(1, 1000)
            stream.time_base = stream.codec_context.time_base = base
            for number, time_s in enumerate(times):
                image = moving_picture(0 if still else number, *size, seed)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.time_base = base
                frame.pts = round(time_s / float(base))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            for sound in sounds:
                for number in range(round(times[-1] * 16000) // 1024):
                    samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                    samples.sample_rate, samples.pts = 16000, number * 1024
                    container.mux(sound.encode(samples))
                container.mux(sound.encode())
        return path

    return make


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a quarter turn or flip into an mp4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """The picture that `make_video` shows as frame `number`."""
    return moving_picture


@pytest.fixture(scope="session")
def turn_video() -> Callable[..., None]:
    return set_display_matrix


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Two Ray nodes of two cores each on this machine; yields them as Ray describes them."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        yield ray.nodes()
    finally:
        ray.shutdown()
        cluster.shutdown()
