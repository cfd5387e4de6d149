"""Decode video files to upright RGB frames: one sequential pass with PyAV in one thread.

Sequential decoding is the fastest reliable way at a few frames per second. Times are presentation timestamps, because
counting frames is wrong by seconds for variable-frame-rate footage.

Damage: a file that stops decoding, or ends before its declared length, raises `VideoError`. The caller drops all of its
frames, so that what a file contributes never depends on where a decoder stopped. Single damaged frames are skipped
(`packets.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pixio_robot.data.ingest.frame_sampling import Sampler, Sampling
from pixio_robot.data.video.container import VideoError, open_video, start_s, step_s, video_stream
from pixio_robot.data.video.packets import (
    END_TOLERANCE_S,
    Pictures,
    Shown,
    all_pictures,
    decode_stream,
    key_picture,
)
from pixio_robot.data.video.picture import to_rgb, upright


def decode_frames(
    path: Path,
    *,
    sampling: Sampling = Sampling.RATE,
    frames_per_second: float = 4.0,
    every: int = 1,
    short_side: int = 0,
    begin_s: float = 0.0,
    end_s: float | None = None,
    on_damaged: Callable[[float], None] = lambda since_s: None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds since the first frame, upright uint8 (h, w, 3) RGB) in order of time.

    See `Sampler` for which frames are taken. `short_side` in pixels shrinks, never enlarges; 0 keeps the size. With
    `end_s`, yields only the frames from `begin_s` up to but excluding `end_s`, with times relative to `begin_s`.
    KEYFRAMES takes the first frame of such a part if none of its frames is a key frame.
    `on_damaged` is called with the time of every frame skipped because it or one before it is damaged.
    Raises VideoError. If that happens after some frames were yielded, discard them.
    """
    sampler = Sampler(sampling=sampling, frames_per_second=frames_per_second, every=every)
    with contextlib.closing(open_video(path)) as container:
        stream = video_stream(container)
        if end_s is None:
            shown = decode_stream(container, stream, key_picture if sampling is Sampling.KEYFRAMES else all_pictures)
        elif sampling is Sampling.KEYFRAMES:
            shown = _key_frames_or_first(container, stream, begin_s, end_s)
        else:
            shown = _segment(container, stream, begin_s, end_s, all_pictures)
        first_s = None if end_s is None else start_s(stream) + begin_s
        empty, damaged = True, False
        for time_s, frame, spoilt in shown:
            first_s = time_s if first_s is None else first_s
            since_s = max(0.0, time_s - first_s)
            if frame is None or spoilt:
                damaged = True
                on_damaged(since_s)
                continue
            empty = False
            if sampler.takes(since_s):
                yield since_s, upright(to_rgb(frame, short_side), frame)
        if empty:
            raise VideoError(f"no frame could be decoded{': all are damaged' if damaged else ''}")


def _key_frames_or_first(container: InputContainer, stream: VideoStream, begin_s: float, end_s: float) -> Shown:
    """The key frames of a segment; if it has none, its first frame. Episodes of LeRobot v3 begin between key frames."""
    empty = True
    for shown in _segment(container, stream, begin_s, end_s, key_picture):
        empty = False
        yield shown
    if empty:
        for time_s, frame, spoilt in _segment(container, stream, begin_s, end_s, all_pictures):
            yield time_s, frame, spoilt
            if not spoilt:
                return


def _segment(container: InputContainer, stream: VideoStream, begin_s: float, end_s: float, pictures: Pictures) -> Shown:
    """`decode_stream` between two times. Decoding starts at the key frame before, so that earlier damage is known."""
    half_frame_s = step_s(stream) / 2
    begin_s, end_s = start_s(stream) + begin_s, start_s(stream) + end_s
    if stream.time_base:
        container.seek(int(begin_s / stream.time_base), stream=stream, backward=True)
    last_s = begin_s

    def noted(stream: VideoStream, packet: Packet) -> Sequence[VideoFrame]:
        # By packets, because the last key frame may be long before the end.
        nonlocal last_s
        if packet.pts is not None:
            last_s = max(last_s, float(packet.pts * (stream.time_base or 0)))
        return pictures(stream, packet)

    for time_s, frame, spoilt in decode_stream(container, stream, noted):
        if time_s >= end_s - half_frame_s:
            return
        if time_s >= begin_s - half_frame_s:
            yield time_s, frame, spoilt
    if last_s + 2 * half_frame_s < end_s - END_TOLERANCE_S:
        raise VideoError(f"truncated: it ends at {last_s:.1f} s, before the end of its episode at {end_s:.1f} s")
