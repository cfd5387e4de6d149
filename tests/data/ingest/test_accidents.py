"""Every way in which a file can be bad costs that file, is told with its reason, and changes nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from ingest_failures import read_failures

from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest

HOOK = """
import os, signal, time

def accident(image):
    if image.shape[0] == 64:
        os.kill(os.getpid(), signal.SIGSEGV)
    if image.shape[0] == 80:
        time.sleep(60)
    return image, 0
"""


def frames_by_file(out: Path) -> dict[str, int]:
    videos = json.loads((out / "manifest.json").read_text())["videos"]
    return {video["id"]: video["frames"] for video in videos if video["frames"]}


def sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())


def frame_bomb(path: Path) -> None:
    """2500 whole pictures of the same moment."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"preset": "ultrafast"})
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        image.pts = 0
        (first, *_) = [*stream.encode(image), *stream.encode()]
        for _ in range(2500):
            copy = av.Packet(bytes(first))
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, 0, 0, first.time_base
            copy.is_keyframe = True
            container.mux_one(copy)


def test_every_kind_of_bad_file_is_told_apart(tmp_path: Path, make_video) -> None:
    source = tmp_path / "in"
    good = make_video(source / "good.mp4", seconds=8).read_bytes()
    (source / "named_wrongly.avi").write_bytes(good)  # FFmpeg looks inside: that is no reason to lose it
    (source / "cut.mp4").write_bytes(good[: len(good) // 2])
    (source / "empty.webm").touch()
    (source / "text.mkv").write_text("not a film\n" * 500)
    (source / "codec.mov").write_bytes(good.replace(b"avc1", b"zzzz"))
    cv2.imwrite(str(source / "photo.jpg"), np.full((50, 60, 3), 90, np.uint8))
    (source / "photo.jpg").rename(source / "photo.mp4")
    (source / "film.jpg").write_bytes(good)
    make_video(source / "tiny.avi", codec="mpeg4", size=(8, 8), seconds=0.2)
    sound(source / "sound.mp4")
    frame_bomb(source / "bomb.mkv")
    ingest(IngestConfig(source=str(source), out=str(tmp_path / "out"), workers=2, min_change=0))
    assert frames_by_file(tmp_path / "out") == {"good.mp4": 32, "named_wrongly.avi": 32}
    reasons = {line["id"]: line["reason"] for line in read_failures(str(tmp_path / "out"))}
    begin = {
        "./": "no readable image",
        "./film.jpg": "film.jpg: not a readable image",
        "bomb.mkv": "frame bomb: 2001 frames in 0.000 s",
        "codec.mov": "no decoder for its codec",
        "cut.mp4": "truncated after",
        "empty.webm": "zero bytes",
        "photo.mp4": "wrong extension: it is a still image",
        "sound.mp4": "no video stream",
        "text.mkv": "not a readable video",
        "tiny.avi": "absurd dimensions 8x8",
    }
    assert reasons.keys() == begin.keys()
    assert {name: reason[: len(begin[name])] for name, reason in reasons.items()} == begin
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["failed"] == sum(counts["failed_by_reason"].values()) == 9
    assert counts["failed_by_reason"]["frame bomb"] == 1


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs_costs_its_file(
    tmp_path: Path, make_video, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hook_of_the_accidents_test.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "in"
    for name, height in (("a.mp4", 96), ("b_crash.mp4", 64), ("c_hang.mp4", 80), ("d.mp4", 112)):
        make_video(source / name, seconds=1, size=(160, height))
    config = IngestConfig(
        source=str(source),
        out=str(tmp_path / "out"),
        workers=2,
        min_change=0,
        timeout_s=5.0,
        privacy="hook_of_the_accidents_test:accident",
    )
    report = ingest(config)
    assert report.failed == 2
    assert frames_by_file(tmp_path / "out") == {"a.mp4": 4, "d.mp4": 4}
    assert {line["id"]: line["reason"] for line in read_failures(str(tmp_path / "out"))} == {
        "b_crash.mp4": "worker process died (SIGSEGV)",
        "c_hang.mp4": "gave up after 5 s without progress",
    }
    # They are tried again when there is a reason to: here, that a file came in.
    make_video(source / "e.mp4", seconds=1)
    again = ingest(config)
    assert again.failed == 2
    assert sum(again.frames.values()) == 12
    assert len(FrameShards.open(tmp_path / "out")) + len(FrameShards.open(tmp_path / "out", "validation")) == 12
