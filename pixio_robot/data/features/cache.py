"""Features of a frozen encoder for every frame, computed once and stored beside the episodes.

    store.zarr/.features/<fingerprint>[.<view>][.<dtype>]/<camera>/000000.safetensors      (or in another `directory`)

holds cls (n, k, d) and patches (n, h, w, d), float16, and the checksum of the images that they were computed from.

The fingerprint covers the encoder's weights and preprocessing, so features of other weights are never read; the
checksum does the same for other images. A file is complete or absent: an interrupted run resumes, and episodes appended
later are added.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.features.views import Views
from pixio_robot.data.shared_memory import Allocator, allocate_private
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file
from pixio_robot.machine import pin_memory, to_device
from pixio_robot.progress import track_progress
from pixio_robot.types import Features

DIRECTORY = ".features"
DEFAULT_RAM_BYTES = 8 << 30
CHECKSUM_KEY = "images"
"""The key of a file's metadata that holds the checksum of the images."""
ONE_VIEW = Views()


class FeatureCache:
    """The features of all episodes of some cameras: the view used at inference, and `views` random ones.

    If they fit in `ram_bytes`, they are held in RAM, one tensor per camera, so that a batch is one look-up; otherwise
    they stay memory-mapped files, cached by the operating system.
    """

    def __init__(
        self,
        episodes: Mapping[str, Sequence[Features]],
        ram_bytes: int = DEFAULT_RAM_BYTES,
        views: int = 0,
        crop: tuple[int, int] | None = None,
        allocate: Allocator = allocate_private,
    ) -> None:
        """episodes[camera][v * count + e] are the features of episode e of `count` in view v, 0 <= v <= views.

        crop: the size of crop that all views have (`Views.crop`). allocate: allocates the RAM to hold them.
        """
        self.views, self.crop = views, crop
        self._episodes = episodes
        self._flat: dict[str, Features] = {}
        lengths = [len(part.cls) for part in next(iter(episodes.values()), [])]
        self._count = len(lengths) // (views + 1)
        self._starts = np.cumsum([0, *lengths])
        needed = sum(part.cls.nbytes + part.patches.nbytes for parts in episodes.values() for part in parts)
        if lengths and needed <= ram_bytes:
            self._flat = _load_into_memory(episodes, crop, allocate)
            # Tensor views replace the mapped files, which may then be closed.
            self._episodes = {camera: self._split(flat) for camera, flat in self._flat.items()}

    def _split(self, flat: Features) -> list[Features]:
        sizes = np.diff(self._starts).tolist()
        return [
            Features(*parts, flat.crop) for parts in zip(flat.cls.split(sizes), flat.patches.split(sizes), strict=True)
        ]

    def features(self, episode: int, camera: str, view: int = 0) -> Features:
        """Features of the n frames of an episode: cls (n, k, d), patches (n, h, w, d), float16."""
        self._check(camera, episode, view)
        return dataclasses.replace(self._episodes[camera][view * self._count + episode], crop=self.crop)

    def _check(self, camera: str, episode: int, view: int) -> None:
        if camera not in self._episodes or episode >= self._count:
            raise UserError(f"Features of camera {camera!r} in episode {episode} were not cached.")
        if not 0 <= view <= self.views:
            raise UserError(f"Features were cached for views 0 to {self.views}; there is no view {view}.")

    def gather(self, camera: str, episode: np.ndarray, frames: np.ndarray, views: np.ndarray | None = None) -> Features:
        """Features of b windows, episode (b,) and frames (b, t): cls (b, t, k, d), patches (b, t, h, w, d), float16.

        views (b,): the view of each window, drawn from 1..`views` in training; None uses the view of inference (0) for
        all. All frames of a window share a view, which preserves the motion between them.
        """
        view = np.zeros_like(episode) if views is None else views
        if len(episode):
            self._check(camera, int(episode.max()), int(view.max()))
        index = view * self._count + episode
        if (flat := self._flat.get(camera)) is not None:
            rows = torch.from_numpy((self._starts[index][:, None] + frames).ravel())
            return flat.map(lambda tensor: tensor.index_select(0, rows).unflatten(0, frames.shape))
        parts = [self._episodes[camera][number] for number in index.tolist()]
        steps = torch.from_numpy(frames)
        return Features(
            torch.stack([part.cls[step] for part, step in zip(parts, steps, strict=True)]),
            torch.stack([part.patches[step] for part, step in zip(parts, steps, strict=True)]),
            self.crop,
        )


def _load_into_memory(
    episodes: Mapping[str, Sequence[Features]], crop: tuple[int, int] | None, allocate: Allocator
) -> dict[str, Features]:
    """The episodes of each camera concatenated: one tensor of class tokens and one of patches per camera."""
    parts = [
        tensors
        for of_camera in episodes.values()
        for tensors in ([one.cls for one in of_camera], [one.patches for one in of_camera])
    ]
    ends = np.cumsum([sum(tensor.nbytes for tensor in tensors) for tensors in parts]).tolist()

    def rows(memory: Tensor) -> list[Tensor]:
        return [
            memory[start:end].view(tensors[0].dtype).view(-1, *tensors[0].shape[1:])
            for start, end, tensors in zip([0, *ends], ends, parts, strict=False)
        ]

    def fill(memory: Tensor) -> None:
        for tensors_in_memory, tensors in zip(rows(memory), parts, strict=True):
            torch.cat(tensors, out=tensors_in_memory)

    tensors_in_memory = rows(allocate(ends[-1], fill))
    pairs = zip(tensors_in_memory[::2], tensors_in_memory[1::2], strict=True)
    return {camera: Features(*pair, crop) for camera, pair in zip(episodes, pairs, strict=True)}


@dataclasses.dataclass(frozen=True)
class FeatureFiles:
    """The files of a store's features by camera, in the order that `FeatureCache` expects."""

    files: Mapping[str, Sequence[_FeatureFile]]
    views: Views


def open_features(
    encoded: FeatureFiles, *, ram_bytes: int = DEFAULT_RAM_BYTES, allocate: Allocator = allocate_private
) -> FeatureCache:
    """Open the files that `encode_features` found or made. Raises UserError if one has been removed since."""
    episodes = {camera: [_load_existing(one) for one in files] for camera, files in encoded.files.items()}
    return FeatureCache(episodes, ram_bytes, encoded.views.count, encoded.views.crop, allocate)


def encode_features(
    store: DemoStore,
    encoder: nn.Module,
    cameras: Sequence[str],
    *,
    views: Views = ONE_VIEW,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    directory: Path | None = None,
) -> FeatureFiles:
    """Encode what is not cached yet. `encoder` is a frozen `types.Encoder`.

    View 0 is what the policy sees at inference, cropped if `views` says so; `views.count` random views are added for
    training (`FeatureCache.gather`). The encoder runs once per frame and view. `dtype`: what it computes in; other than
    float32, under autocast. `directory`: where to keep the features of stores that cannot be written, in a folder for
    each; None: in the store. Raises UserError for an unknown camera,
    a crop that does not fit, features that are not finite in float16, a folder that cannot be written, and a full disk.
    """
    home = store.path / DIRECTORY if directory is None else directory / _unique_folder_name(store.path)
    fingerprint = encoder.fingerprint()  # pyright: ignore[reportCallIssue]
    # Each frame is read once, so the store's images need not stay in RAM.
    reader = DemoStore.open(store.path, ram_bytes=0)
    precision = "" if dtype is torch.float32 else str(dtype).removeprefix("torch.")

    def feature_file(camera: str, view: int, episode: int) -> _FeatureFile:
        folder = ".".join(part for part in (fingerprint, views.name(view), precision) if part)
        path = home / folder / camera / f"{episode:06d}.safetensors"
        length = reader.images_shape(episode, camera)[0]
        return _FeatureFile(camera, view, episode, path, length, f"{reader.images_fingerprint(episode, camera):08x}")

    files = {
        camera: [
            feature_file(camera, view, episode) for view in range(views.count + 1) for episode in range(len(store))
        ]
        for camera in cameras
    }
    missing = [one for parts in files.values() for one in parts if _load(one) is None]
    if missing:
        _encode_missing(missing, home, reader, encoder, views, batch_size, torch.device(device), dtype)
    return FeatureFiles(files, views)


def _unique_folder_name(store: Path) -> str:
    """A name that no other store of this machine has."""
    resolved = store.resolve()
    return f"{resolved.name}-{hashlib.sha256(str(resolved).encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True)
class _FeatureFile:
    """One file: the features of one camera's frames in one episode, in one view."""

    camera: str
    view: int
    episode: int
    path: Path
    length: int
    checksum: str
    """Of the images."""


def _encode_missing(
    missing: Sequence[_FeatureFile],
    home: Path,
    store: DemoStore,
    encoder: nn.Module,
    views: Views,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """While the device encodes, one thread reads the next frames, and another writes the previous file."""
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK):
        raise UserError(
            f"{home}, where the features of a frozen encoder are kept, cannot be written; with features_dir= they are "
            "kept elsewhere."
        )
    was_training = encoder.training
    encoder = encoder.to(device).eval()

    def read(one: _FeatureFile, start: int) -> Tensor:
        images = store.images(one.episode, one.camera, start, min(start + batch_size, one.length))
        return pin_memory(torch.from_numpy(views.apply(images, one.camera, one.episode, one.view).copy()))

    starts_by_file = [(one, range(0, one.length, batch_size)) for one in missing]
    reads = (functools.partial(read, one, start) for one, starts in starts_by_file for start in starts)

    def saves(batches: Iterator[Tensor]) -> Iterator[Callable[[], None]]:
        for one, starts in track_progress(starts_by_file, "encode demonstrations"):
            parts = _encode(encoder, itertools.islice(batches, len(starts)), device, dtype)
            yield functools.partial(_save, one, parts)

    try:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            for _ in _run_ahead(writer, saves(_run_ahead(reader, reads))):
                pass
    finally:
        encoder.train(was_training)


def _run_ahead[T](thread: ThreadPoolExecutor, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield the result of each call in order. The thread runs one call while the caller uses the previous result or
    prepares the next call."""
    running: Future[T] | None = None
    for call in calls:
        following = thread.submit(call)
        if running is not None:
            yield running.result()
        running = following
    if running is not None:
        yield running.result()


def _load_existing(one: _FeatureFile) -> Features:
    features = _load(one)
    if features is None:
        raise UserError(f"{one.path} was removed or damaged by another process; run the same command again.")
    return features


def _load(one: _FeatureFile) -> Features | None:
    """The features, or None if there is no complete file for these images, which is then computed again."""
    try:
        with safe_open(one.path, "pt") as file:
            if (file.metadata() or {}).get(CHECKSUM_KEY) != one.checksum:
                return None
        tensors = load_file(one.path)
        features = Features(tensors["cls"], tensors["patches"])
    except (OSError, SafetensorError, KeyError):
        return None
    return features if len(features.cls) == len(features.patches) == one.length else None


def _save(one: _FeatureFile, parts: Sequence[Features]) -> None:
    features = Features(torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts]))
    for tensor in (features.cls, features.patches):
        if not tensor.isfinite().all():
            raise UserError(f"The encoder computed features that are not finite in float16 (for {one.path}).")
    with atomic_file(one.path) as temporary:
        temporary.write_bytes(save({"cls": features.cls, "patches": features.patches}, {CHECKSUM_KEY: one.checksum}))


@torch.inference_mode()
def _encode(encoder: nn.Module, batches: Iterable[Tensor], device: torch.device, dtype: torch.dtype) -> list[Features]:
    """Encode batches of frames, uint8 (b, h, w, 3) each; float16 on the CPU."""
    with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
        computed = (encoder(to_device(frames, device)).map(Tensor.half) for frames in batches)
        return list(computed if device.type == "cpu" else _copy_to_cpu(computed, device))


def _copy_to_cpu(computed: Iterator[Features], device: torch.device) -> Iterator[Features]:
    """Copies on the CPU, in pageable memory: of each batch while the GPU computes the next.

    A non-blocking copy goes into pinned memory, which PyTorch never gives back: it is needed for two batches, not for
    all of an episode.
    """

    def settled(copy: Features, done: torch.cuda.Event) -> Features:
        done.synchronize()
        return copy.map(Tensor.clone)

    copying: tuple[Features, torch.cuda.Event] | None = None
    for features in computed:
        copy = features.map(lambda tensor: tensor.to("cpu", non_blocking=True))
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(device))
        if copying is not None:
            yield settled(*copying)
        copying = copy, done
    if copying is not None:
        yield settled(*copying)
