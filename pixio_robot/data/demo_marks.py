"""What episodes are known by when they lie in several stores."""

from __future__ import annotations

import hashlib

from pixio_robot.data.demos import DemoStore

BYTES = 8
"""Of the marks that saved policies keep of what they learned from."""


def mark(store: DemoStore, episode: int, size: int = BYTES) -> str:
    """The same for the same states and actions, whichever store they lie in and by whichever number; hexadecimal, of
    `size` bytes."""
    digest = hashlib.blake2b(digest_size=size)
    for values in (store.state(episode), store.actions(episode)):
        digest.update(values.tobytes())
    return digest.hexdigest()
