"""Video files to upright RGB frames: one sequential pass with PyAV, one thread, timed by the stream's own clock.

Sequential decoding is the fastest dependable way at a few frames a second; times come from the presentation
time stamps, because counting frames is wrong by seconds on variable-frame-rate footage.

One rule for damage: a file that stops decoding, or ends before its declared length, raises `VideoError`. The caller
drops all of its frames, so that what a file contributes never depends on where a decoder gave up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pixio_robot.data.images import shrink_short_side

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")

SMALLEST_SIDE, LARGEST_SIDE, MOST_PIXELS = 16, 16384, 8192 * 8192
# A stream may honestly end this much before what its header declares (last-frame durations, rounding).
END_TOLERANCE_S, END_TOLERANCE_SHARE = 1.0, 0.02

# FFmpeg's AVColorSpace numbers and, for the matrices swscale knows, its SWS_CS_* numbers.
_UNSPECIFIED = 2
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601 = 1, 5
_FULL_RANGE = 2


class VideoError(Exception):
    """This file cannot be used; `reason` is a short text to count by and to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sampling(enum.Enum):
    """Which frames of a video are taken: so many a second, every n-th, or the key frames."""

    RATE = "rate"
    EVERY = "every"
    KEYFRAMES = "keyframes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the header declares: coded size in pixels (before rotation), duration in seconds if known."""

    width: int
    height: int
    duration_s: float | None


def probe(path: Path) -> VideoInfo:
    """Read the header only. Raises VideoError."""
    with contextlib.closing(_open(path)) as container:
        stream = _video_stream(container)
        context = stream.codec_context
        return VideoInfo(width=context.width, height=context.height, duration_s=_declared_s(container, stream))


def decode_frames(
    path: Path,
    *,
    sampling: Sampling = Sampling.RATE,
    frames_per_second: float = 4.0,
    every: int = 1,
    short_side: int = 0,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds since the first frame, uint8 (h, w, 3) RGB, upright) in order of time.

    RATE takes the first frame at or after every multiple of 1 / `frames_per_second`, so a gap in the footage gives
    no repeated frames. `short_side` in pixels shrinks, never enlarges; 0 keeps the size.
    Raises VideoError, possibly after frames were yielded: then discard those.
    """
    with contextlib.closing(_open(path)) as container:
        stream = _video_stream(container)
        if sampling is Sampling.KEYFRAMES:
            stream.codec_context.skip_frame = "NONKEY"
        first_s, due = None, 0
        number = -1
        for number, (time_s, frame) in enumerate(_decode(container, stream)):
            first_s = time_s if first_s is None else first_s
            since_s = time_s - first_s
            if sampling is Sampling.RATE:
                # A hundredth of an interval of slack: 0.2499999 s is the frame of 0.25 s.
                tick = math.floor(since_s * frames_per_second + 0.01)
                if tick < due:
                    continue
                due = tick + 1
            elif sampling is Sampling.EVERY and number % every:
                continue
            yield since_s, shrink_short_side(_upright(_to_rgb(frame), frame), short_side)
        if number < 0:
            raise VideoError("no frame could be decoded")


def _open(path: Path) -> InputContainer:
    try:
        if path.stat().st_size == 0:
            raise VideoError("zero bytes")
        return av.open(str(path), metadata_errors="replace")
    except (FFmpegError, OSError) as error:
        raise VideoError(f"not a readable video ({getattr(error, 'strerror', None) or error})") from error


def _video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError("no decoder for its codec")
            stream.codec_context.thread_count = 1
            _check_size(stream.codec_context.width, stream.codec_context.height)
            return stream
    raise VideoError("no video stream")


def _check_size(width: int, height: int) -> None:
    if min(width, height) < SMALLEST_SIDE or max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS:
        raise VideoError(f"absurd dimensions {width}x{height}")


def _declared_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Declared length of the video stream; of the container only when it holds nothing else."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):  # Matroska: 00:01:02.500000000
        try:
            hours, minutes, seconds = tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return None
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[tuple[float, VideoFrame]]:
    """(stream time in seconds, frame) of every frame. Raises VideoError at the first sign of damage."""
    time_base = float(stream.time_base or 0)
    step_s = float(1 / stream.average_rate) if stream.average_rate else 1 / 25
    end_s = last_s = 0.0
    start_s = float(stream.start_time or 0) * time_base
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError(f"truncated after {end_s - start_s:.1f} s")
            if packet.pts is not None:
                end_s = max(end_s, (packet.pts + (packet.duration or 0)) * time_base)
            for frame in stream.decode(packet):
                _check_size(frame.width, frame.height)
                # Some AVI streams carry no time stamps at all.
                last_s = last_s + step_s if frame.time is None else frame.time
                yield last_s, frame
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"truncated after {end_s - start_s:.1f} s ({reason})") from error
    declared_s = _declared_s(container, stream)
    if declared_s is not None and end_s - start_s < declared_s * (1 - END_TOLERANCE_SHARE) - END_TOLERANCE_S:
        raise VideoError(f"truncated after {end_s - start_s:.1f} s of {declared_s:.1f} s")


def _to_rgb(frame: VideoFrame) -> np.ndarray:
    """RGB by the matrix and range the frame is tagged with; untagged: BT.709 from 720 lines on, else BT.601."""
    if frame.format.is_rgb or frame.format.name.startswith(("gray", "pal")):
        return frame.to_ndarray(format="rgb24")
    if frame.colorspace == _UNSPECIFIED:
        matrix = _BT709 if min(frame.height, frame.width) >= 720 else _BT601
    else:
        matrix = _MATRIX.get(frame.colorspace, _BT601)
    full_range = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        # RGB has no matrix, but PyAV leaves swscale at its default (BT.601) unless the two differ.
        dst_colorspace=_BT601 if matrix == _BT709 else _BT709,
        src_color_range="JPEG" if full_range else "MPEG",
        dst_color_range="JPEG",
        interpolation="BILINEAR",
    )
    return rgb.to_ndarray()


def _upright(image: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Apply the display matrix (phones store portrait video lying on its side), rounded to quarter turns and flips."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # x' = a x + c y, y' = b x + d y, as native 32-bit fixed point in rows of three.
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, right, down = image.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])
