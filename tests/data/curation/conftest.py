"""Frames whose right curation is known, as finished shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixio_robot.data.ingest.pipeline import IngestConfig, ingest

Folders = Mapping[str, Sequence[np.ndarray]]


def scene(seed: int, side: int = 96) -> np.ndarray:
    """uint8 (side, side, 3): coloured shapes with texture; every seed looks different."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (6, 6, 3), np.uint8)
    image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    return scene


@pytest.fixture(scope="session")
def make_shards() -> Callable[[Path, Folders], Path]:
    """make_shards(root, {"folder": [image, ...]}) -> shards; each folder counts as one video, all in training."""

    def make(root: Path, folders: Folders) -> Path:
        for name, images in folders.items():
            (root / "in" / name).mkdir(parents=True)
            for number, image in enumerate(images):
                # Not imwrite, which crashes at names that are no text.
                encoded = cv2.imencode(".png", image[..., ::-1])[1]
                (root / "in" / name / f"{number:04d}.png").write_bytes(encoded.tobytes())
        settings = IngestConfig(
            source=str(root / "in"), out=str(root / "shards"), workers=1, shard_bytes=60_000, validation_share=0.0
        )
        ingest(settings)
        return root / "shards"

    return make
