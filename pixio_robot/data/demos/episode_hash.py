"""Recognising the same episode in several stores."""

from __future__ import annotations

import hashlib

from pixio_robot.data.demos.store import DemoStore

HASH_BYTES = 8
"""Size of the marks that saved policies keep of their training episodes."""


def hash_episode(store: DemoStore, episode: int, size: int = HASH_BYTES) -> str:
    """A hexadecimal hash of `size` bytes over states and actions, equal for the same episode in any store and at any
    position."""
    digest = hashlib.blake2b(digest_size=size)
    for values in (store.state(episode), store.actions(episode)):
        digest.update(values.tobytes())
    return digest.hexdigest()
