"""Decode video files to upright RGB frames: one sequential pass with PyAV in one thread.

Sequential decoding is the fastest reliable way at a few frames per second. Times are presentation timestamps, because
counting frames is wrong by seconds for variable-frame-rate footage.

Damage: a file that stops decoding, or ends before its declared length, raises `VideoError`. The caller drops all of its
frames, so that what a file contributes never depends on where a decoder stopped. Frames that the decoder had to conceal
errors in (flipped bits), or of which a packet was lost (MPEG-TS), are skipped, with all up to the next key frame.

Joined clips (`cat a.ts b.ts`): where the time jumps back, another clip begins, and its times continue those before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pixio_robot.data.images.codec import is_absurd_size, shrink_short_side, shrunk_size
from pixio_robot.data.ingest.frame_sampling import Sampler, Sampling

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"),
    *(".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp"),
)

SMALLEST_SIDE = 16
# No camera is faster; a file with more frames per second was made to keep a decoder busy forever.
MOST_FRAMES_PER_SECOND = 2000
# A valid stream may end this much before the declared end (last-frame durations, rounding).
END_TOLERANCE_S, END_TOLERANCE_SHARE = 1.0, 0.02
# Where the time goes back by more, another clip begins; badly written timestamps go back by a few frames.
JUMP_BACK_S = 0.5

# FFmpeg's AVColorSpace numbers and, for the matrices swscale knows, its SWS_CS_* numbers.
_UNSPECIFIED = 2
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601 = 1, 5
_FULL_RANGE = 2
# SWS_AREA | SWS_FULL_CHR_H_INT: without the second, swscale halves the horizontal chroma resolution of its output.
_SHRINK = 0x20 | 0x2000


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
    with contextlib.closing(_open(path)) as container:
        stream = _video_stream(container)
        return _declared_s(container, stream) or _file_s(container, stream) or _latest_s(container, stream)


def _latest_s(container: InputContainer, stream: VideoStream) -> float | None:
    """The end of the latest packet, counted from the stream's start."""
    try:
        ends = (packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None)
        latest = max(ends, default=None)
    except (FFmpegError, OSError) as error:
        raise VideoError(f"truncated ({getattr(error, 'strerror', None) or error})") from error
    return None if latest is None else latest * float(stream.time_base or 0) - _start_s(stream)


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
    with contextlib.closing(_open(path)) as container:
        stream = _video_stream(container)
        if end_s is None:
            shown = _decode(container, stream, _key_picture if sampling is Sampling.KEYFRAMES else _pictures)
        elif sampling is Sampling.KEYFRAMES:
            shown = _key_frames_or_first(container, stream, begin_s, end_s)
        else:
            shown = _segment(container, stream, begin_s, end_s, _pictures)
        first_s = None if end_s is None else _start_s(stream) + begin_s
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
                yield since_s, _upright(_to_rgb(frame, short_side), frame)
        if empty:
            raise VideoError(f"no frame could be decoded{': all are damaged' if damaged else ''}")


Pictures = Callable[[VideoStream, Packet], Sequence[VideoFrame]]
"""Returns the frames that a decoder outputs for a packet."""

Shown = Iterator[tuple[float, VideoFrame | None, bool]]
"""(stream time in seconds, frame, spoilt) in order of time. Spoilt: damaged, or between a damaged frame and the next
key frame. No frame: spoilt so badly that the decoder refused it."""


def _pictures(stream: VideoStream, packet: Packet) -> Sequence[VideoFrame]:
    return stream.decode(packet)


def _key_picture(stream: VideoStream, packet: Packet) -> Sequence[VideoFrame]:
    """Decode a key frame's packet on its own; nothing for other packets.

    FFmpeg's `skip_frame` does not work here: its VP9 decoder ignores it, and its H.264 decoder outputs the key frames
    of open GOPs in the wrong order or not at all.
    """
    if not (packet.size and packet.is_keyframe):
        return []
    try:
        frames = [*stream.codec_context.decode(packet), *stream.codec_context.decode(None)]
    finally:
        stream.codec_context.flush_buffers()
    for frame in frames:
        frame.dts = packet.dts
        if packet.pts is not None:
            frame.pts = packet.pts
    return frames[:1]


def _key_frames_or_first(container: InputContainer, stream: VideoStream, begin_s: float, end_s: float) -> Shown:
    """The key frames of a segment; if it has none, its first frame. Episodes of LeRobot v3 begin between key frames."""
    empty = True
    for shown in _segment(container, stream, begin_s, end_s, _key_picture):
        empty = False
        yield shown
    if empty:
        for time_s, frame, spoilt in _segment(container, stream, begin_s, end_s, _pictures):
            yield time_s, frame, spoilt
            if not spoilt:
                return


def _segment(container: InputContainer, stream: VideoStream, begin_s: float, end_s: float, pictures: Pictures) -> Shown:
    """`_decode` between two times. Decoding starts at the key frame before, so that earlier damage is known."""
    half_frame_s = _step_s(stream) / 2
    begin_s, end_s = _start_s(stream) + begin_s, _start_s(stream) + end_s
    if stream.time_base:
        container.seek(int(begin_s / stream.time_base), stream=stream, backward=True)
    last_s = begin_s

    def noted(stream: VideoStream, packet: Packet) -> Sequence[VideoFrame]:
        # By packets, because the last key frame may be long before the end.
        nonlocal last_s
        if packet.pts is not None:
            last_s = max(last_s, float(packet.pts * (stream.time_base or 0)))
        return pictures(stream, packet)

    for time_s, frame, spoilt in _decode(container, stream, noted):
        if time_s >= end_s - half_frame_s:
            return
        if time_s >= begin_s - half_frame_s:
            yield time_s, frame, spoilt
    if last_s + 2 * half_frame_s < end_s - END_TOLERANCE_S:
        raise VideoError(f"truncated: it ends at {last_s:.1f} s, before the end of its episode at {end_s:.1f} s")


def _start_s(stream: VideoStream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _step_s(stream: VideoStream) -> float:
    return float(1 / stream.average_rate) if stream.average_rate else 1 / 25


def _open(path: Path) -> InputContainer:
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
    if min(width, height) < SMALLEST_SIDE or is_absurd_size(height, width):
        raise VideoError(f"absurd dimensions {width}x{height}")


def _declared_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Declared duration of the video stream, or of the container if it has no other streams."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):  # Matroska: 00:01:02.500000000, counted from 0 and not from the start
        try:
            hours, minutes, seconds = tag.split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - _start_s(stream)
        except ValueError:
            return None
    return _file_s(container, stream) if len(container.streams) == 1 else None


def _file_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Declared duration of the longest stream of the file."""
    if not container.duration:
        return None
    start_s = _start_s(stream) if "matroska" in container.format.name else 0.0
    return container.duration / av.time_base - start_s


class _Damage:
    """Which packets are damaged: those that FFmpeg's demuxer marks (a gap in an MPEG-TS), and all up to the next key
    frame. Of H.265 also all before the first key frame: FFmpeg's decoder makes up what they refer to, where others wait
    for a key frame."""

    def __init__(self, codec: str) -> None:
        self.now = codec == "hevc"
        self.marked = False
        """Whether the last packet was marked itself."""
        self._stamps: set[int | None] = set()

    def add(self, packet: Packet) -> None:
        """Take note of the next packet. The one after a marked one is damaged even if it is a key frame: FFmpeg splits
        an MPEG-TS into pictures one packet late, so that its mark is on the picture before the one with the gap."""
        after_marked, self.marked = self.marked, packet.is_corrupt
        if self.marked or after_marked:
            self.now = True
        elif packet.is_keyframe:
            self.now = False
        # Joined clips have the same stamps.
        (self._stamps.add if self.now else self._stamps.discard)(packet.pts)

    def has(self, frame: VideoFrame) -> bool:
        return frame.pts in self._stamps


def _decode(container: InputContainer, stream: VideoStream, pictures: Pictures) -> Shown:
    """All frames of the file from where it stands. Raises VideoError if decoding ends too early."""
    time_base = float(stream.time_base or 0)
    step_s, start_s = _step_s(stream), _start_s(stream)
    end_s = last_s = shift_s = 0.0
    count, first_s, spoilt, damage = 0, None, False, _Damage(stream.codec_context.name)
    # AVI stores no presentation times, and FFmpeg guesses them wrongly if frames are reordered.
    by_decoding_order = container.format.name == "avi"
    try:
        for packet in container.demux(stream):
            if packet.size:
                damage.add(packet)
            if packet.pts is not None:
                end_s = max(end_s, (packet.pts + (packet.duration or 0)) * time_base)
            try:
                frames = pictures(stream, packet)
            except InvalidDataError:
                if not damage.now:
                    raise
                spoilt = True
                yield last_s if packet.pts is None else packet.pts * time_base + shift_s, None, spoilt
                continue
            for frame in frames:
                _check_size(frame.width, frame.height)
                # Some AVI streams have no timestamps at all.
                stamp = frame.dts if by_decoding_order else frame.pts
                time_s = last_s + step_s if stamp is None else stamp * time_base + shift_s
                if first_s is not None and time_s < last_s - JUMP_BACK_S:
                    shift_s += last_s + step_s - time_s
                    time_s = last_s + step_s
                elif stamp is not None and first_s is not None:
                    step_s = time_s - last_s
                last_s = time_s
                first_s = last_s if first_s is None else first_s
                count += 1
                if count > MOST_FRAMES_PER_SECOND * (1 + max(0.0, last_s - first_s)):
                    raise VideoError(f"frame bomb: {count} frames in {last_s - first_s:.3f} s")
                spoilt = frame.is_corrupt or damage.has(frame) or (spoilt and not frame.key_frame)
                yield last_s, frame, spoilt
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"truncated after {end_s - start_s:.1f} s ({reason})") from error
    if damage.marked:
        raise VideoError(f"truncated after {end_s - start_s:.1f} s")
    declared_s = _declared_s(container, stream)
    if declared_s is not None and end_s - start_s < declared_s * (1 - END_TOLERANCE_SHARE) - END_TOLERANCE_S:
        raise VideoError(f"truncated after {end_s - start_s:.1f} s of {declared_s:.1f} s")


def _to_rgb(frame: VideoFrame, short_side: int) -> np.ndarray:
    """Convert to RGB with the frame's colour matrix and range; untagged: BT.709 from 720 lines on, else BT.601.

    Shrinks to `short_side` by area averaging in the same pass, at a third of the cost of doing it afterwards.
    """
    if frame.format.is_rgb or frame.format.name.startswith(("gray", "pal")):
        return shrink_short_side(frame.to_ndarray(format="rgb24"), short_side)
    height, width = shrunk_size(frame.height, frame.width, short_side)
    if frame.colorspace == _UNSPECIFIED:
        matrix = _BT709 if min(frame.height, frame.width) >= 720 else _BT601
    else:
        matrix = _MATRIX.get(frame.colorspace, _BT601)
    full_range = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=matrix,
        # RGB has no matrix, but unless the two differ, PyAV leaves swscale at its default (BT.601).
        dst_colorspace=_BT601 if matrix == _BT709 else _BT709,
        src_color_range="JPEG" if full_range else "MPEG",
        dst_color_range="JPEG",
        interpolation="BILINEAR" if (height, width) == (frame.height, frame.width) else _SHRINK,
    )
    return rgb.to_ndarray()


def _upright(image: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Apply the display matrix (phones store portrait video rotated), rounded to quarter turns and flips."""
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
