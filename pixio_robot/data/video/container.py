"""Open video files: their stream of pictures, when it begins, and how long it is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from pixio_robot.data.images.codec import is_absurd_size

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"),
    *(".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp"),
)

SMALLEST_SIDE = 16


class VideoError(Exception):
    """The file cannot be used; `reason` is a short text for display and counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def length_s(path: Path) -> float | None:
    """Seconds of video, to choose how many frames to take per second; None if the file has no timestamps.

    As the video stream declares it, else the file (with sound, of its longest stream), else from the latest timestamp,
    for which the whole file is read but not decoded. Of joined MPEG-TS clips, it is roughly the length of the last one.
    Raises VideoError.
    """
    with contextlib.closing(open_video(path)) as container:
        stream = video_stream(container)
        return declared_s(container, stream) or _file_s(container, stream) or _latest_s(container, stream)


def _latest_s(container: InputContainer, stream: VideoStream) -> float | None:
    """The end of the latest packet, counted from the stream's start."""
    try:
        ends = (packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None)
        latest = max(ends, default=None)
    except (FFmpegError, OSError) as error:
        raise VideoError(f"truncated ({getattr(error, 'strerror', None) or error})") from error
    return None if latest is None else latest * float(stream.time_base or 0) - start_s(stream)


def open_video(path: Path) -> InputContainer:
    try:
        if path.stat().st_size == 0:
            raise VideoError("zero bytes")
        container = av.open(str(path), metadata_errors="replace")
    except (FFmpegError, OSError) as error:
        raise VideoError(f"not a readable video ({getattr(error, 'strerror', None) or error})") from error
    # FFmpeg opens a still image as a video of one frame.
    if container.format.name.endswith("_pipe") or container.format.name in ("image2", "gif"):
        container.close()
        raise VideoError(f"wrong extension: it is a still image ({container.format.name.removesuffix('_pipe')})")
    return container


def video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError("no decoder for its codec")
            stream.codec_context.thread_count = 1
            check_size(stream.codec_context.width, stream.codec_context.height)
            return stream
    raise VideoError("no video stream")


def check_size(width: int, height: int) -> None:
    if min(width, height) < SMALLEST_SIDE or is_absurd_size(height, width):
        raise VideoError(f"absurd dimensions {width}x{height}")


def start_s(stream: VideoStream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def step_s(stream: VideoStream) -> float:
    return float(1 / stream.average_rate) if stream.average_rate else 1 / 25


def declared_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Declared duration of the video stream, or of the container if it has no other streams."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):  # Matroska: 00:01:02.500000000, counted from 0 and not from the start
        try:
            hours, minutes, seconds = tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start_s(stream)
        except ValueError:
            return None
    return _file_s(container, stream) if len(container.streams) == 1 else None


def _file_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Declared duration of the longest stream of the file."""
    if not container.duration:
        return None
    counted_from_s = start_s(stream) if "matroska" in container.format.name else 0.0
    return container.duration / av.time_base - counted_from_s
