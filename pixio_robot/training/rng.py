"""Save and restore every random number generator that a training run uses, without pickle."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Generators = Mapping[str, torch.Generator]
GLOBAL_PREFIX = "torch."
"""Name prefix of torch's global generators."""


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries use the global generator
    random.seed(seed)


def _named_generators(device: torch.device, generators: Generators) -> dict[str, torch.Generator]:
    """All torch generators in use, named with their device: states are not portable between device types."""
    named = {f"{GLOBAL_PREFIX}cpu": torch.default_generator}
    if device.type == "cuda":
        torch.cuda.init()
        named[f"{GLOBAL_PREFIX}cuda"] = torch.cuda.default_generators[device.index or 0]
    return named | {f"{name}.{generator.device.type}": generator for name, generator in generators.items()}


def get_rng_state(device: torch.device, generators: Generators) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The generator states as tensors (torch) and as a JSON value (numpy and Python)."""
    tensors = {name: generator.get_state() for name, generator in _named_generators(device, generators).items()}
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    version, words, python_gauss = random.getstate()
    values = {
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), python_gauss],
    }
    return tensors, values


def set_rng_state(
    device: torch.device,
    generators: Generators,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    fallback_seed: int = 0,
) -> None:
    """Restore the states of `get_rng_state`. A generator that has moved to another device type is reseeded."""
    for name, generator in _named_generators(device, generators).items():
        if name in tensors:
            generator.set_state(tensors[name])
        else:
            generator.manual_seed(fallback_seed)
    kind, keys, position, has_gauss, gauss = values["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, words, python_gauss = values["python"]
    random.setstate((version, tuple(words), python_gauss))


@contextlib.contextmanager
def preserve_rng_state(device: torch.device, generators: Generators) -> Iterator[None]:
    """Restore all generators on exit, so that validation and logging do not change the run."""
    tensors, values = get_rng_state(device, generators)
    try:
        yield
    finally:
        set_rng_state(device, generators, tensors, values)
