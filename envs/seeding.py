"""Simulators that draw from the global generators, made to depend on a seed without disturbing the user's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed python's and numpy's global generators, and give them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


class OwnGenerators:
    """Python's and numpy's global generators as one environment has them, whoever else draws between its steps."""

    def __init__(self) -> None:
        self._states: tuple[Any, Any] | None = None

    def reset(self, seed: int) -> contextlib.AbstractContextManager[None]:
        """What runs inside draws from that seed."""
        with global_seed(seed):
            self._states = random.getstate(), np.random.get_state()  # noqa: NPY002
        return self.held()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What runs inside goes on drawing where it was; the global generators stay as they are."""
        assert self._states is not None, "reset first"
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.setstate(self._states[0])
        np.random.set_state(self._states[1])  # noqa: NPY002
        try:
            yield
        finally:
            self._states = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
