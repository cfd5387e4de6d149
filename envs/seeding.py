"""Simulators that draw from the global generators, made to depend on a seed without disturbing the user's."""

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
def _given_back() -> Iterator[None]:
    """The global generators are afterwards as they were."""
    states = _states()
    try:
        yield
    finally:
        _set_states(states)


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed python's and numpy's global generators, and give them back as they were."""
    with _given_back():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield


class OwnGenerators:
    """Python's and numpy's global generators as one environment has them, whoever else draws between its steps."""

    def __init__(self) -> None:
        self._states: tuple[Any, Any] | None = None

    def reset(self, seed: int) -> contextlib.AbstractContextManager[None]:
        """What runs inside draws from that seed."""
        with global_seed(seed):
            self._states = _states()
        return self.held()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What runs inside goes on drawing where it was; the global generators stay as they are."""
        assert self._states is not None, "reset first"
        with _given_back():
            _set_states(self._states)
            try:
                yield
            finally:
                self._states = _states()
