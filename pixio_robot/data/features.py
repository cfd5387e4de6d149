"""What a frozen encoder says of every frame, computed once and kept beside the episodes.

    store.zarr/.features/<fingerprint>/<camera>/000000.safetensors

holds cls (n, k, d) and patches (n, h, w, d), float16.

The fingerprint covers the encoder's weights and preprocessing, so other weights never meet these files. A file
is complete or absent: an interrupted run goes on, and episodes appended later are added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pixio_robot.data.demos import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file
from pixio_robot.types import Features

DIRECTORY = ".features"


class FeatureCache:
    """The features of all episodes of some cameras, in RAM: `features(episode, camera)` of n frames."""

    def __init__(self, features: dict[tuple[int, str], Features]) -> None:
        self._features = features

    def features(self, episode: int, camera: str) -> Features:
        """cls (n, k, d), patches (n, h, w, d), float16."""
        try:
            return self._features[episode, camera]
        except KeyError:
            raise UserError(f"Features of camera {camera!r} in episode {episode} were not cached.") from None


def cache_features(
    store: DemoStore,
    encoder: nn.Module,
    cameras: Sequence[str],
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> FeatureCache:
    """Encode what is not cached yet and return everything. `encoder` is a frozen `types.Encoder`."""
    from rich.progress import track

    directory = store.path / DIRECTORY / encoder.fingerprint()  # pyright: ignore[reportCallIssue]
    encoder = encoder.to(device).eval()
    wanted = [(episode, camera) for episode in range(len(store)) for camera in cameras]
    found: dict[tuple[int, str], Features] = {}
    for episode, camera in track(wanted, "encode demonstrations", disable=not progress, transient=True):
        path = directory / camera / f"{episode:06d}.safetensors"
        if not path.is_file():
            features = _encode(encoder, store.images(episode, camera), batch_size, device)
            with atomic_file(path) as temporary:
                save_file({"cls": features.cls, "patches": features.patches}, temporary)
        tensors = load_file(path)
        found[episode, camera] = Features(tensors["cls"], tensors["patches"])
    return FeatureCache(found)


@torch.inference_mode()
def _encode(encoder: nn.Module, images: np.ndarray, batch_size: int, device: torch.device | str) -> Features:
    parts = []
    for start in range(0, len(images), batch_size):
        frames = torch.from_numpy(images[start : start + batch_size].copy()).to(device)
        parts.append(encoder(frames).map(lambda tensor: tensor.half().cpu()))
    return Features(
        torch.cat([part.cls for part in parts]).contiguous(), torch.cat([part.patches for part in parts]).contiguous()
    )
