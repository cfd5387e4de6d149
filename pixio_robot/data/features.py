"""What a frozen encoder says of every frame, computed once and kept beside the episodes.

    store.zarr/.features/<fingerprint>/<camera>/000000.safetensors

holds cls (n, k, d) and patches (n, h, w, d), float16.

The fingerprint covers the encoder's weights and preprocessing, so other weights never meet these files. A file
is complete or absent: an interrupted run goes on, and episodes appended later are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pixio_robot.data.demos import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file
from pixio_robot.types import Features

DIRECTORY = ".features"
DEFAULT_RAM_BYTES = 8 << 30


class FeatureCache:
    """The features of all episodes of some cameras.

    Up to `ram_bytes` they are held in RAM, one tensor a camera, so that a batch is one look-up; beyond, they stay
    mapped files whose pages the system keeps as it can.
    """

    def __init__(self, episodes: Mapping[str, Sequence[Features]], ram_bytes: int = DEFAULT_RAM_BYTES) -> None:
        """episodes[camera][e] are the features of episode e."""
        self._episodes = episodes
        self._flat: dict[str, Features] = {}
        lengths = [len(part.cls) for part in next(iter(episodes.values()), [])]
        self._starts = np.cumsum([0, *lengths])
        needed = sum(part.cls.nbytes + part.patches.nbytes for parts in episodes.values() for part in parts)
        if lengths and needed <= ram_bytes:
            self._flat = {
                camera: Features(torch.cat([part.cls for part in parts]), torch.cat([part.patches for part in parts]))
                for camera, parts in episodes.items()
            }
            # Views in place of the mapped files, which may then be closed.
            self._episodes = {camera: self._split(flat) for camera, flat in self._flat.items()}

    def _split(self, flat: Features) -> list[Features]:
        sizes = np.diff(self._starts).tolist()
        return [Features(*parts) for parts in zip(flat.cls.split(sizes), flat.patches.split(sizes), strict=True)]

    def features(self, episode: int, camera: str) -> Features:
        """Of the n frames of an episode: cls (n, k, d), patches (n, h, w, d), float16."""
        parts = self._episodes.get(camera, ())
        if episode >= len(parts):
            raise UserError(f"Features of camera {camera!r} in episode {episode} were not cached.")
        return parts[episode]

    def gather(self, camera: str, episode: np.ndarray, frames: np.ndarray) -> Features:
        """Of b windows, episode (b,) and frames (b, t): cls (b, t, k, d), patches (b, t, h, w, d), float16."""
        flat = self._flat.get(camera)
        if flat is not None and len(episode) and episode.max() < len(self._starts) - 1:
            rows = torch.from_numpy((self._starts[episode][:, None] + frames).ravel())
            return flat.map(lambda tensor: tensor.index_select(0, rows).unflatten(0, frames.shape))
        parts = [self.features(number, camera) for number in episode.tolist()]
        steps = torch.from_numpy(frames)
        return Features(
            torch.stack([part.cls[step] for part, step in zip(parts, steps, strict=True)]),
            torch.stack([part.patches[step] for part, step in zip(parts, steps, strict=True)]),
        )


def cache_features(
    store: DemoStore,
    encoder: nn.Module,
    cameras: Sequence[str],
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: bool = True,
    ram_bytes: int = DEFAULT_RAM_BYTES,
) -> FeatureCache:
    """Encode what is not cached yet and return everything. `encoder` is a frozen `types.Encoder`.

    Raises UserError for an unknown camera, features that are not finite in float16, and a full disk.
    """
    from rich.progress import track

    directory = store.path / DIRECTORY / encoder.fingerprint()  # pyright: ignore[reportCallIssue]
    # Each frame is looked at once, so the store's images need not stay in RAM.
    reader = DemoStore.open(store.path, ram_bytes=0)
    was_training = encoder.training
    encoder = encoder.to(device).eval()
    episodes: dict[str, list[Features]] = {camera: [] for camera in cameras}
    wanted = [(camera, episode) for camera in cameras for episode in range(len(store))]
    for camera, episode in track(wanted, "encode demonstrations", disable=not progress, transient=True):
        path = directory / camera / f"{episode:06d}.safetensors"
        shape = reader.images_shape(episode, camera)
        features = _load(path, shape[0])
        if features is None:
            _save(path, _encode(encoder, reader.images(episode, camera), batch_size, device))
            features = _load(path, shape[0])
            assert features is not None
        episodes[camera].append(features)
    encoder.train(was_training)
    return FeatureCache(episodes, ram_bytes)


def _load(path: Path, length: int) -> Features | None:
    """None where there is no whole file for that many frames: it is only a cache, so it is then made again."""
    try:
        tensors = load_file(path)
        features = Features(tensors["cls"], tensors["patches"])
    except (OSError, SafetensorError, KeyError):
        return None
    return features if len(features.cls) == len(features.patches) == length else None


def _save(path: Path, features: Features) -> None:
    for tensor in (features.cls, features.patches):
        if not tensor.isfinite().all():
            raise UserError(f"The encoder gives features that are not finite in float16 (for {path}).")
    with atomic_file(path) as temporary:
        temporary.write_bytes(save({"cls": features.cls, "patches": features.patches}))


@torch.inference_mode()
def _encode(encoder: nn.Module, images: np.ndarray, batch_size: int, device: torch.device | str) -> Features:
    """images uint8 (n, h, w, 3)."""
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(images), batch_size):
        frames = torch.from_numpy(images[start : start + batch_size].copy()).to(device)
        found = encoder(frames).map(lambda tensor: tensor.half().cpu())
        parts.append((found.cls, found.patches))
    return Features(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
