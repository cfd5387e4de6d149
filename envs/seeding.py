"""Seeding of simulators that use the global random generators, without disturbing the user's generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np


def _states() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()  # noqa: NPY002


def _set_states(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002


@contextlib.contextmanager
def _restored_generators() -> Iterator[None]:
    """Restore the global generators afterwards."""
    states = _states()
    try:
        yield
    finally:
        _set_states(states)


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators inside, and restore them afterwards."""
    with _restored_generators():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield


class IsolatedGenerators:
    """Gives one environment its own state of Python's and NumPy's global generators, independent of other users."""

    def __init__(self) -> None:
        self._states: tuple[Any, Any] | None = None

    def reset(self, seed: int) -> contextlib.AbstractContextManager[None]:
        """Inside, the global generators start from that seed."""
        with global_seed(seed):
            self._states = _states()
        return self.activated()

    @contextlib.contextmanager
    def activated(self) -> Iterator[None]:
        """Inside, the environment's generators continue where they were; the global ones are restored afterwards."""
        assert self._states is not None, "reset first"
        with _restored_generators():
            _set_states(self._states)
            try:
                yield
            finally:
                self._states = _states()
