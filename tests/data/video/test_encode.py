"""What is written is what a decoder gives back, at the asked rate, in a file or in memory."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from pixio_robot.data.video.encode import video_writer

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 32, 48, 3), np.uint8)


@pytest.mark.parametrize("rate", [20.0, 12.5, 30000 / 1001])
def test_lossless_images_come_back_at_their_rate(tmp_path, rate):
    with video_writer(tmp_path / "a.mp4", rate, {"crf": "0"}, lossless=True) as append:
        for image in IMAGES:
            append(image)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(rate).limit_denominator(2000)
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(found, IMAGES)


def test_in_memory_or_with_the_index_first(tmp_path):
    buffer, file = io.BytesIO(), tmp_path / "a.mp4"
    for target, layout in ((buffer, {}), (file, {"movflags": "+faststart"})):
        with video_writer(target, 10.0, {}, layout=layout) as append:
            for image in IMAGES:
                append(image)
    last, first = buffer.getvalue(), file.read_bytes()
    for content in (last, first):
        with av.open(io.BytesIO(content)) as container:
            assert container.streams.video[0].pix_fmt == "yuv420p"
            assert sum(1 for _ in container.decode(video=0)) == len(IMAGES)
    assert last.index(b"moov") > last.index(b"mdat")
    assert first.index(b"moov") < first.index(b"mdat")
