"""Decoding: times, orientation, colours, and every way in which a file can be unusable."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pixio_robot.data.images.codec import shrink_short_side
from pixio_robot.data.ingest.frame_sampling import Sampling
from pixio_robot.data.video.container import VIDEO_SUFFIXES, VideoError, length_s
from pixio_robot.data.video.decode import decode_frames

WIDTH, HEIGHT = 160, 96  # of `make_video`


def close(image: np.ndarray, expected: np.ndarray) -> bool:
    return image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.avi", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.mkv", "libx264"),
        ("a.mov", "libx264"),
        ("a.mp4", "libx265"),
        ("a.mkv", "libx265"),
        ("a.mp4", "libsvtav1"),
        ("a.webm", "libaom-av1"),
    ],
)
def test_frames_at_a_rate_are_the_frames_of_those_times(
    tmp_path: Path, make_video, picture, name: str, codec: str
) -> None:
    path = make_video(tmp_path / name, codec=codec)
    frames = list(decode_frames(path, frames_per_second=5))
    assert [round(time_s, 2) for time_s, _ in frames] == [round(i / 5, 2) for i in range(10)]
    for time_s, image in frames:
        assert close(image, picture(round(time_s * 20)))
    assert length_s(path) == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mpg", "mpeg1video", {}),
        ("a.mpeg", "mpeg2video", {}),
        ("a.ts", "libx264", {}),
        ("a.mts", "libx264", {"mpegts_m2ts_mode": "1"}),
        ("a.m2ts", "libx264", {"mpegts_m2ts_mode": "1"}),
        ("a.3gp", "mpeg4", {}),
        ("a.3gp", "libx264", {}),
    ],
)
def test_older_and_camcorders_wrappings(tmp_path: Path, picture, name: str, codec: str, options: dict) -> None:
    path = tmp_path / name
    wrapping = {".mpg": "mpeg", ".mpeg": "mpeg", ".3gp": "3gp"}.get(path.suffix, "mpegts")
    with av.open(str(path), "w", format=wrapping, options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for number in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    assert path.suffix in VIDEO_SUFFIXES
    assert length_s(path) == pytest.approx(2, abs=0.15)
    frames = list(decode_frames(path, frames_per_second=5))
    assert [round(time_s, 2) for time_s, _ in frames] == [round(i / 5, 2) for i in range(10)]
    for time_s, image in frames:
        assert close(image, picture(round(time_s * 25)))
    every = list(decode_frames(path, sampling=Sampling.EVERY, every=10))
    assert [round(time_s, 2) for time_s, _ in every] == [0.0, 0.4, 0.8, 1.2, 1.6]


def test_odd_sizes_and_other_streams(tmp_path: Path, make_video, picture) -> None:
    path = make_video(tmp_path / "a.mkv", seconds=1, codec="libvpx-vp9", size=(131, 77))
    assert close(next(decode_frames(path))[1], picture(0, 131, 77))
    path = make_video(tmp_path / "a.mov", seconds=1, extra_streams=True)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "audio", "video"]
    frames = list(decode_frames(path, frames_per_second=5))
    assert len(frames) == 5
    assert all(close(image, picture(round(time_s * 20))) for time_s, image in frames)


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_a_segment_is_that_part_of_the_whole(tmp_path: Path, make_video, picture, codec: str) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=3, codec=codec)
    for begin_s, end_s in ((0.0, 0.5), (0.7, 1.7), (1.0, 3.0)):
        frames = list(decode_frames(path, frames_per_second=100, begin_s=begin_s, end_s=end_s))
        assert len(frames) == round((end_s - begin_s) * 20)
        for number, (time_s, image) in enumerate(frames):
            assert time_s == pytest.approx(number / 20, abs=0.002)
            assert close(image, picture(round(begin_s * 20) + number))
    with pytest.raises(VideoError, match="truncated: it ends at"):
        list(decode_frames(path, begin_s=1.0, end_s=9.0))


def test_variable_frame_rate_is_timed_by_the_stream(tmp_path: Path, make_video, picture) -> None:
    times = [0, 0.05, 0.1, 0.15, 2.0, 2.05, 2.5, 3.01, 3.02]
    path = make_video(tmp_path / "vfr.mp4", times=times)
    frames = list(decode_frames(path, frames_per_second=2))
    assert [round(time_s, 2) for time_s, _ in frames] == [0, 2.0, 2.5, 3.01]
    for time_s, image in frames:
        assert close(image, picture(int(np.argmin(np.abs(np.array(times) - time_s)))))


def test_every_and_keyframes(tmp_path: Path, make_video) -> None:
    path = make_video(tmp_path / "a.mp4")
    every = [round(time_s, 2) for time_s, _ in decode_frames(path, sampling=Sampling.EVERY, every=7)]
    assert every == [0, 0.35, 0.7, 1.05, 1.4, 1.75]


# In open groups of H.264, FFmpeg's own way of showing key frames alone loses some and turns the order of others round;
# of VP9 it shows every frame.
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("a.mkv", "libx264", {"x264-params": "open-gop=1:keyint=30"}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.mp4", "libx265", {}),
        ("a.mp4", "libsvtav1", {}),
        ("a.avi", "mpeg4", {}),
        ("a.avi", "libx264", {}),
    ],
)
def test_key_frames_alone(tmp_path: Path, make_video, picture, name: str, codec: str, options: dict) -> None:
    path = make_video(tmp_path / name, codec=codec, seconds=5, options={"g": "30"} | options)
    found = list(decode_frames(path, sampling=Sampling.KEYFRAMES))
    numbers = [round(time_s * 20) for time_s, _ in found]
    assert numbers == [0, 30, 60, 90]
    assert all(close(image, picture(number)) for number, (_, image) in zip(numbers, found, strict=True))


@pytest.mark.parametrize(
    ("begin_s", "end_s", "expected"),
    [
        (0.0, 2.5, [0, 30]),
        (2.0, 5.0, [60, 90]),  # the last key frame is half a second before its end
        (3.0, 9.5, [60, 90, 120, 150, 180]),  # over a second
        (1.6, 2.9, [32]),  # without any: its first
    ],
)
def test_key_frames_of_a_segment(tmp_path: Path, make_video, picture, begin_s, end_s, expected) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=10.5, options={"g": "30"})
    found = list(decode_frames(path, sampling=Sampling.KEYFRAMES, begin_s=begin_s, end_s=end_s))
    numbers = [round((begin_s + time_s) * 20) for time_s, _ in found]
    assert numbers == expected
    assert all(close(image, picture(number)) for number, (_, image) in zip(numbers, found, strict=True))
    with pytest.raises(VideoError, match=r"truncated: it ends at 10\.4 s"):
        list(decode_frames(path, sampling=Sampling.KEYFRAMES, begin_s=9.5, end_s=12.0))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),  # a quarter clockwise, portrait phones
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    ],
)
def test_display_matrix_is_honoured(tmp_path: Path, make_video, picture, turn_video, matrix, turn) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=0.3)
    turn_video(path, *matrix)
    _, image = next(decode_frames(path))
    assert close(image, turn(picture(0)))


@pytest.mark.parametrize("colour", [1, 5])
def test_colours_follow_the_tagged_matrix(tmp_path: Path, make_video, colour: int) -> None:
    flat = np.full((HEIGHT, WIDTH, 3), (200, 60, 30), np.uint8)
    # Coded by hand: studio-range Y'CbCr of that colour by the textbook coefficients.
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114)}[colour]
    r, g, b = np.array(flat[0, 0]) / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    planes = [
        16 + 219 * luma,
        128 + 224 * (b - luma) / (2 * (1 - blue)),
        128 + 224 * (r - luma) / (2 * (1 - red)),
    ]
    path = tmp_path / "flat.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.colorspace = colour
        coded = np.concatenate(
            [
                np.full(WIDTH * HEIGHT // share, round(value), np.uint8)
                for value, share in zip(planes, (1, 4, 4), strict=True)
            ]
        )
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(coded.reshape(HEIGHT * 3 // 2, WIDTH), format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _, image = next(decode_frames(path))
    assert np.abs(image.reshape(-1, 3).mean(0) - flat[0, 0]).max() < 2.5


def test_short_side_shrinks_and_never_enlarges(tmp_path: Path, make_video) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=0.3)
    for side in (48, 33):
        _, image = next(decode_frames(path, short_side=side))
        expected = shrink_short_side(next(decode_frames(path))[1], side)
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).mean() < 2.5
    assert next(decode_frames(path, short_side=48))[1].shape == (48, 80, 3)
    assert next(decode_frames(path, short_side=500))[1].shape == (HEIGHT, WIDTH, 3)


def test_zero_bytes_text_missing_and_sound_only(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a film\n" * 500)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    for name, reason in [
        ("empty.mp4", "zero bytes"),
        ("text.mp4", "not a readable video"),
        ("missing.mp4", "not a readable video"),
        ("sound.mp4", "no video stream"),
    ]:
        with pytest.raises(VideoError, match=reason):
            list(decode_frames(tmp_path / name))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")])
def test_truncated_files_are_noticed(tmp_path: Path, make_video, share: float, suffix: str, codec: str) -> None:
    data = make_video(tmp_path / f"whole{suffix}", seconds=30, codec=codec, size=(64, 64)).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError, match=r"truncated after|not a readable video"):
        list(decode_frames(cut))


@pytest.fixture
def damaged_video(tmp_path: Path, make_video) -> Path:
    """3 s, 20 pictures/s, key frames every 0.5 s; four pictures from 1 s on are damaged."""
    path = make_video(tmp_path / "a.mp4", seconds=3)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for pos, size in packets[20:24]:
        data[pos + size // 2 : pos + size] = bytes(size - size // 2)
    path.write_bytes(data)
    return path


def test_damaged_pictures_are_passed_over(damaged_video: Path, picture) -> None:
    damaged: list[float] = []
    frames = dict(decode_frames(damaged_video, sampling=Sampling.EVERY, on_damaged=damaged.append))
    assert 0 < len(damaged) < 20
    assert len(frames) + len(damaged) == 60
    assert all(0.9 < time_s < 1.6 for time_s in damaged)  # up to the key frame after the next
    assert all(close(image, picture(round(time_s * 20))) for time_s, image in frames.items())


def test_damage_before_a_segment_counts_in_it(damaged_video: Path) -> None:
    damaged: list[float] = []
    list(decode_frames(damaged_video, sampling=Sampling.EVERY, on_damaged=damaged.append))
    begin_s = 1.3  # after the four
    segment: list[float] = []
    frames = list(
        decode_frames(damaged_video, sampling=Sampling.EVERY, begin_s=begin_s, end_s=3, on_damaged=segment.append)
    )
    assert [round(begin_s + time_s, 2) for time_s in segment] == [round(t, 2) for t in damaged if t > begin_s - 0.01]
    assert segment
    assert len(frames) + len(segment) == 34


TS_PACKET = 188


def write_ts(path: Path, picture, codec: str = "libx264") -> Path:
    """3 s as an MPEG-TS, 20 pictures/s, key frames every 0.5 s."""
    quiet = {"x265-params": "log-level=none:pools=none"} if codec == "libx265" else {}
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream(codec, rate=20, options={"g": "10"} | quiet)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def stream_ts(tmp_path: Path, picture) -> Path:
    return write_ts(tmp_path / "a.ts", picture)


def packets_of_pictures(data: bytes) -> list[list[int]]:
    """The positions of the video's packets in an MPEG-TS, by picture in the order of decoding."""
    pictures: list[list[int]] = []
    for pos in range(0, len(data), TS_PACKET):
        if int.from_bytes(data[pos + 1 : pos + 3], "big") & 0x1FFF == 0x100:
            if data[pos + 1] & 0x40:
                pictures.append([])
            pictures[-1].append(pos)
    return pictures


# The mark of FFmpeg's demuxer is on the picture before: of a key frame (20) it must still be known.
@pytest.mark.parametrize("sampling", [Sampling.EVERY, Sampling.KEYFRAMES])
@pytest.mark.parametrize(("number", "part"), [(20, 1), (20, 0), (25, 0), (25, -1), (24, -1)])
def test_a_lost_packet_costs_the_frames_up_to_the_next_key_frame(
    stream_ts: Path, picture, number: int, part: int, sampling: Sampling
) -> None:
    data = stream_ts.read_bytes()
    lost = packets_of_pictures(data)[number][part]
    stream_ts.write_bytes(data[:lost] + data[lost + TS_PACKET :])
    damaged: list[float] = []
    frames = dict(decode_frames(stream_ts, sampling=sampling, on_damaged=damaged.append))
    assert all(close(image, picture(round(time_s * 20))) for time_s, image in frames.items())
    times = [round(time_s, 2) for time_s in frames]
    if sampling is Sampling.KEYFRAMES:
        assert times == [0, 0.5, *([] if number == 20 else [1.0]), 1.5, 2.0, 2.5]
    else:
        assert all(0.8 < time_s < 1.5 for time_s in damaged)
        assert {round(i / 20, 2) for i in (*range(17), *range(30, 60))} <= set(times)
        assert damaged


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_recording_that_begins_between_key_frames(tmp_path: Path, picture, codec: str) -> None:
    path = write_ts(tmp_path / "a.ts", picture, codec)
    data = path.read_bytes()
    path.write_bytes(data[packets_of_pictures(data)[5][0] :])
    images = [image for _, image in decode_frames(path, sampling=Sampling.EVERY)]
    assert len(images) == 50
    assert all(close(image, picture(10 + number)) for number, image in enumerate(images))


def test_a_partial_packet_at_the_end_is_a_truncated_file(tmp_path: Path, make_video) -> None:
    path = make_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-10])  # a few bytes: its length alone does not show it
    with pytest.raises(VideoError, match=r"truncated after 1\.9 s"):
        list(decode_frames(path))


def test_a_gap_before_every_packet_leaves_nothing(stream_ts: Path) -> None:
    data = bytearray(stream_ts.read_bytes())
    for number, pos in enumerate(pos for positions in packets_of_pictures(bytes(data)) for pos in positions):
        data[pos + 3] = data[pos + 3] & 0xF0 | 3 * number % 16  # the counter by which gaps are noticed
    stream_ts.write_bytes(data)
    damaged: list[float] = []
    with pytest.raises(VideoError, match="no frame could be decoded: all are damaged"):
        list(decode_frames(stream_ts, on_damaged=damaged.append))
    assert damaged


@pytest.mark.parametrize("sampling", [Sampling.RATE, Sampling.KEYFRAMES])
def test_joined_clips_follow_each_other(stream_ts: Path, picture, sampling: Sampling) -> None:
    stream_ts.write_bytes(stream_ts.read_bytes() * 2)
    damaged: list[float] = []
    frames = list(decode_frames(stream_ts, sampling=sampling, frames_per_second=2, on_damaged=damaged.append))
    assert [round(time_s, 2) for time_s, _ in frames] == [i / 2 for i in range(12)]
    assert all(close(image, picture(round(time_s * 20) % 60)) for time_s, image in frames)
    assert len(damaged) <= 4  # the counters do not fit at the joint


@pytest.mark.parametrize("declared", [True, False])
def test_length_of_a_video_that_does_not_declare_it(tmp_path: Path, make_video, declared: bool) -> None:
    path = make_video(tmp_path / "a.mkv", seconds=4, extra_streams=True)
    copy = tmp_path / "copy.mkv"
    # Written live, neither the streams nor the file have a duration.
    with (
        av.open(str(path)) as old,
        av.open(str(copy), "w", options={} if declared else {"live": "1"}) as new,
    ):
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    copy.write_bytes(copy.read_bytes().replace(b"DURATION", b"XURATION"))
    with av.open(str(copy)) as container:
        assert container.streams.video[0].duration is None
        assert (container.duration is not None) == declared
    assert length_s(copy) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "libx264"), (".webm", "libvpx-vp9"), (".mp4", "libx264")])
def test_a_clock_that_does_not_begin_at_nought(tmp_path: Path, make_video, suffix: str, codec: str) -> None:
    path = make_video(tmp_path / f"a{suffix}", codec=codec, times=[30 + i / 20 for i in range(40)])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.start_time * stream.time_base == 30
    assert [round(time_s, 2) for time_s, _ in decode_frames(path, frames_per_second=2)] == [0, 0.5, 1, 1.5]
    assert length_s(path) == pytest.approx(2, abs=0.06)


def test_absurd_dimensions(tmp_path: Path, make_video) -> None:
    path = make_video(tmp_path / "tiny.avi", codec="mpeg4", size=(8, 8), seconds=0.2)
    with pytest.raises(VideoError, match="absurd dimensions 8x8"):
        list(decode_frames(path))


def test_unknown_codec_pictures_and_frame_bombs(tmp_path: Path, make_video) -> None:
    data = make_video(tmp_path / "a.mp4", seconds=0.5).read_bytes()
    (tmp_path / "codec.mp4").write_bytes(data.replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match=r"no decoder for its codec|no video stream"):
        list(decode_frames(tmp_path / "codec.mp4"))
    for kind in (".jpg", ".png"):
        cv2.imwrite(str(tmp_path / f"photo{kind}"), np.zeros((50, 60, 3), np.uint8))
        (tmp_path / f"photo{kind}").rename(tmp_path / "photo.mp4")
        with pytest.raises(VideoError, match="wrong extension: it is a still image"):
            list(decode_frames(tmp_path / "photo.mp4"))
    bomb = tmp_path / "bomb.mkv"
    with av.open(str(bomb), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"preset": "ultrafast"})
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        image.pts = 0
        (first, *_) = [*stream.encode(image), *stream.encode()]
        packet = bytes(first)
        for _ in range(2500):  # as many whole pictures, all of the same moment
            copy = av.Packet(packet)
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, 0, 0, first.time_base
            copy.is_keyframe = True
            container.mux_one(copy)
    with pytest.raises(VideoError, match=r"frame bomb: 2001 frames in 0.000 s"):
        list(decode_frames(bomb))
