"""Read the frames of one piece of footage of any kind."""

from __future__ import annotations

import dataclasses
import functools
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixio_robot.data.demos.arrays import CorruptArray
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.footage.kinds import EpisodeCamera, Footage, FootageKind, is_image
from pixio_robot.data.images.codec import CorruptImage, decode_photo, shrink_short_side
from pixio_robot.data.ingest.frame_sampling import Sampler, Sampling
from pixio_robot.data.video.container import VideoError, length_s
from pixio_robot.data.video.decode import decode_frames
from pixio_robot.errors import UserError

MAX_IMAGE_BYTES = 512 * 2**20

Frames = Iterator[tuple[float, np.ndarray]]
"""(seconds since the beginning, uint8 (h, w, 3) RGB). Still images have their number in place of the time."""


@dataclasses.dataclass
class SkippedContent:
    """What was skipped in footage that was otherwise used: unreadable still images with the reason, the number of
    damaged frames, and the number of still images beyond `max_frames_per_video`."""

    images: list[dict[str, str]] = dataclasses.field(default_factory=list)
    frames: int = 0
    over_limit: int = 0

    def add_frame(self) -> None:
        self.frames += 1

    def add_image(self, file: str, reason: str) -> None:
        self.images.append({"file": file, "reason": reason})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """The settings that decide which frames are read and at what size; see `IngestConfig` for the units."""

    sampling: Sampling
    frames_per_second: float
    every: int
    max_frames_per_video: int
    short_side: int


def read_frames(footage: Footage, settings: ReadSettings, skipped: SkippedContent) -> Frames:
    """Yield the footage's frames in order; what cannot be read is recorded in `skipped`.

    Raises VideoError or OSError. If that happens after some frames were yielded, discard them.
    """
    if footage.problem:
        raise VideoError(footage.problem)
    if footage.kind is FootageKind.VIDEO:
        return _read_video(footage, settings, skipped)
    if footage.demonstration is not None:
        return _read_demonstration(footage.demonstration, settings)
    read = _read_tar if footage.kind is FootageKind.TAR else _read_files
    return _decode_images(read(footage, settings.max_frames_per_video, skipped), settings, skipped)


def _sampling_rate(settings: ReadSettings, duration_s: float | None) -> float:
    """Frames per second, lowered so that the frames of a long video span all of it."""
    if duration_s is None or duration_s <= 0:  # headers may say anything
        return settings.frames_per_second
    return min(settings.frames_per_second, settings.max_frames_per_video / duration_s)


def _read_video(footage: Footage, settings: ReadSettings, skipped: SkippedContent) -> Frames:
    path = footage.paths[0]
    begin_s, end_s = footage.segment_s or (0.0, None)
    duration_s = None
    if settings.sampling is Sampling.RATE:  # of no use to the others, and it may have to read the whole file
        duration_s = length_s(path) if end_s is None else end_s - begin_s
    return decode_frames(
        path,
        sampling=settings.sampling,
        frames_per_second=_sampling_rate(settings, duration_s),
        every=settings.every,
        short_side=settings.short_side,
        begin_s=begin_s,
        end_s=end_s,
        on_damaged=lambda since_s: skipped.add_frame(),
    )


@functools.lru_cache(maxsize=1)
def _open_store(path: Path) -> DemoStore:
    """Cached because opening a store lists every episode, and a worker reads many episodes of one store."""
    return DemoStore.open(path, ram_bytes=0)


def _read_demonstration(place: EpisodeCamera, settings: ReadSettings) -> Frames:
    try:
        store = _open_store(place.store)
        hz, length = store.spec.control_hz, int(store.lengths[place.episode])
        sampler = Sampler(
            sampling=settings.sampling, frames_per_second=_sampling_rate(settings, length / hz), every=settings.every
        )
        for step in range(length):
            if sampler.takes(step / hz):
                image = store.images(place.episode, place.camera, step, step + 1)[0]
                yield step / hz, shrink_short_side(image, settings.short_side)
    except (CorruptArray, UserError) as error:
        raise VideoError(f"damaged demonstration ({error})") from error


def _decode_images(
    stills: Iterator[tuple[int, str, bytes | None]], settings: ReadSettings, skipped: SkippedContent
) -> Frames:
    """Decode still images, with their number in the folder as the time. Data of None: already reported as bad."""
    for number, name, data in stills:
        if data is None:
            continue
        try:
            image = decode_photo(data, name)
        except CorruptImage as error:
            skipped.add_image(name, str(error))
            continue
        yield float(number), shrink_short_side(image, settings.short_side)


def _is_evenly_selected(number: int, total: int, most: int) -> bool:
    """Whether `number` is one of at most `most` evenly spaced numbers in 0 ... `total` - 1, starting with 0."""
    return total <= most or number * most // total != (number - 1) * most // total


def _read_files(footage: Footage, most: int, skipped: SkippedContent) -> Iterator[tuple[int, str, bytes | None]]:
    for number, path in enumerate(footage.paths):
        if not _is_evenly_selected(number, len(footage.paths), most):
            skipped.over_limit += 1
            continue
        try:
            yield number, path.name, path.read_bytes()
        except OSError as error:
            dangling = path.is_symlink() and not path.exists()
            skipped.add_image(path.name, f"{path.name}: {'dangling link' if dangling else error.strerror}")
            yield number, path.name, None


def _images_in(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        # tarfile keeps every member, at half a kilobyte each: too much memory when there are millions.
        tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        if member.isfile() and is_image(member.name) and not Path(member.name).name.startswith("."):
            yield member


def _read_tar(footage: Footage, most: int, skipped: SkippedContent) -> Iterator[tuple[int, str, bytes | None]]:
    """The images in a tar, in its order; other members (labels, captions) are ignored."""
    path = footage.paths[0]
    if path.stat().st_size == 0:
        raise VideoError("zero bytes")
    if path.suffix.lower() == ".tar":
        _check_tar_end(path)
    try:
        with tarfile.open(path, "r|*") as tar:
            total = sum(1 for _ in _images_in(tar))
        with tarfile.open(path, "r|*") as tar:
            for number, member in enumerate(_images_in(tar)):
                if not _is_evenly_selected(number, total, most):
                    skipped.over_limit += 1
                    continue
                if member.size > MAX_IMAGE_BYTES:
                    skipped.add_image(member.name, f"{member.name}: {member.size} bytes")
                    yield number, member.name, None
                    continue
                file = tar.extractfile(member)
                assert file is not None  # a regular file
                yield number, member.name, file.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise VideoError(f"truncated or not a tar ({error})") from error


def _check_tar_end(path: Path) -> None:
    """Check for the two empty blocks that end a tar; without this, one truncated between members passes as complete."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2 * tarfile.BLOCKSIZE))
        if file.read().strip(b"\0"):
            raise VideoError("truncated or not a tar (it lacks the end mark)")
