"""Encode images as H.264 in mp4."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

_FINEST_RATE = 65535
"""Largest denominator of the frame rate that MPEG encoders support."""


@contextlib.contextmanager
def video_writer(
    target: Path | IO[bytes],
    rate_hz: float,
    options: Mapping[str, str],
    *,
    lossless: bool = False,
    layout: Mapping[str, str] | None = None,
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends an image, uint8 (h, w, 3).

    YUV 4:2:0, which browsers play and which needs even sides; with `lossless`, RGB. `options` are those of x264,
    `layout` those of FFmpeg's mp4 writer.
    """
    import av

    codec, pixels = ("libx264rgb", "rgb24") if lossless else ("libx264", "yuv420p")
    file: Any = str(target) if isinstance(target, Path) else target
    with av.open(file, "w", format="mp4", options=dict(layout or {})) as container:
        rate = Fraction(rate_hz).limit_denominator(_FINEST_RATE)
        stream: Any = container.add_stream(codec, rate=rate, options=dict(options))
        stream.pix_fmt = pixels

        def append(image: np.ndarray) -> None:
            if not stream.codec_context.is_open:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

        yield append
        container.mux(stream.encode())
