"""Decode the packets of a stream in order: the times of its frames, and which of them are damaged.

Frames in which the decoder had to conceal errors (flipped bits), or of which a packet was lost (MPEG-TS), are spoilt,
and so are all up to the next key frame. A file that stops decoding, or ends before its declared length, raises
`VideoError`.

Joined clips (`cat a.ts b.ts`): where the time jumps back, another clip begins, and its times continue those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pixio_robot.data.video.container import VideoError, check_size, declared_s, start_s, step_s

# No camera is faster; a file with more frames per second was made to keep a decoder busy forever.
MOST_FRAMES_PER_SECOND = 2000
# A valid stream may end this much before the declared end (last-frame durations, rounding).
END_TOLERANCE_S, END_TOLERANCE_SHARE = 1.0, 0.02
# Where the time goes back by more, another clip begins; badly written timestamps go back by a few frames.
JUMP_BACK_S = 0.5

Pictures = Callable[[VideoStream, Packet], Sequence[VideoFrame]]
"""Returns the frames that a decoder outputs for a packet."""

Shown = Iterator[tuple[float, VideoFrame | None, bool]]
"""(stream time in seconds, frame, spoilt) in order of time. Spoilt: damaged, or between a damaged frame and the next
key frame. No frame: spoilt so badly that the decoder refused it."""


def all_pictures(stream: VideoStream, packet: Packet) -> Sequence[VideoFrame]:
    return stream.decode(packet)


def key_picture(stream: VideoStream, packet: Packet) -> Sequence[VideoFrame]:
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


class _Clock:
    """Times of the frames, in seconds of the stream: continued where frames have no timestamps, and where a joined clip
    begins."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._time_base, self._step_s, self._shift_s = float(stream.time_base or 0), step_s(stream), 0.0
        # AVI stores no presentation times, and FFmpeg guesses them wrongly if frames are reordered.
        self._by_decoding_order = container.format.name == "avi"
        self._count, self._first_s, self._last_s = 0, None, 0.0

    def of_packet(self, packet: Packet) -> float:
        return self._last_s if packet.pts is None else packet.pts * self._time_base + self._shift_s

    def advance(self, frame: VideoFrame) -> float:
        """The time of the next frame. Raises VideoError if there are more frames than any camera takes."""
        stamp = frame.dts if self._by_decoding_order else frame.pts
        following_s = self._last_s + self._step_s
        # Some AVI streams have no timestamps at all.
        time_s = following_s if stamp is None else stamp * self._time_base + self._shift_s
        if self._first_s is None:
            self._first_s = time_s
        elif time_s < self._last_s - JUMP_BACK_S:
            self._shift_s += following_s - time_s
            time_s = following_s
        elif stamp is not None:
            self._step_s = time_s - self._last_s
        self._last_s = time_s
        self._count += 1
        if self._count > MOST_FRAMES_PER_SECOND * (1 + max(0.0, time_s - self._first_s)):
            raise VideoError(f"frame bomb: {self._count} frames in {time_s - self._first_s:.3f} s")
        return time_s


def decode_stream(container: InputContainer, stream: VideoStream, pictures: Pictures) -> Shown:
    """All frames of the file from where it stands. Raises VideoError if decoding ends too early."""
    clock, damage, time_base = _Clock(container, stream), _Damage(stream.codec_context.name), stream.time_base or 0
    spoilt, end_s = False, 0.0
    try:
        for packet in container.demux(stream):
            if packet.size:
                damage.add(packet)
            if packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * time_base))
            try:
                frames = pictures(stream, packet)
            except InvalidDataError:
                if not damage.now:
                    raise
                spoilt = True
                yield clock.of_packet(packet), None, spoilt
                continue
            for frame in frames:
                check_size(frame.width, frame.height)
                time_s = clock.advance(frame)
                spoilt = frame.is_corrupt or damage.has(frame) or (spoilt and not frame.key_frame)
                yield time_s, frame, spoilt
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"truncated after {end_s - start_s(stream):.1f} s ({reason})") from error
    seconds, declared = end_s - start_s(stream), declared_s(container, stream)
    if damage.marked:
        raise VideoError(f"truncated after {seconds:.1f} s")
    if declared is not None and seconds < declared * (1 - END_TOLERANCE_SHARE) - END_TOLERANCE_S:
        raise VideoError(f"truncated after {seconds:.1f} s of {declared:.1f} s")
