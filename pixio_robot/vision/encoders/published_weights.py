"""Finding an encoder's weights in a file as somebody published it: a training's checkpoint, with other networks, under
names that begin with where the encoder was.

    VC-1, MAE   model: the encoder's own names, beside `decoder_...` and `mask_token`
    R3M         r3m: module.convnet...., beside a language model
    MoCo        state_dict: module.base_encoder...., and a second encoder
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pixio_robot.errors import UserError, format_names
from pixio_robot.vision.torch_files import read_state_dicts

_PRETRAINING = ("decoder", "mask_token")
"""Beginnings of the names of what a masked autoencoder has besides its encoder."""


def read_published_weights(
    path: Path, expected: Mapping[str, torch.Size], heads: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The weights under the encoder's own names, without classifiers (`heads`) and decoders.

    Only what is complete is taken; otherwise the weights come back as they are, for an error that lists what differs.
    Raises UserError if several networks in the file fit.
    """
    groups = read_state_dicts(path)
    fitting = {
        ": ".join(part for part in (key, prefix) if part) or "the file itself": weights
        for key, group in groups.items()
        for prefix in _prefixes(group, next(iter(expected)))
        if _fits(weights := _under(group, prefix), expected)
    }
    if len(fitting) > 1:
        raise UserError(
            f"{path} holds several networks that fit ({format_names(list(fitting))}): write the one to use to a file "
            "of its own."
        )
    chosen = next(iter(fitting.values()), None) or max(groups.values(), key=lambda group: len(group.keys() & expected))
    dropped = (*_PRETRAINING, *(f"{head}." for head in heads))
    return {key: value for key, value in chosen.items() if key in expected or not key.startswith(dropped)}


def _prefixes(group: Mapping[str, Tensor], name: str) -> list[str]:
    """What precedes the name of a weight, in every place where there is one of that name."""
    prefixes = [key.removesuffix(name) for key in group if key.endswith(name)]
    return [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]


def _under(group: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in group.items() if key.startswith(prefix)}


def _fits(weights: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> bool:
    return all(name in weights and weights[name].shape == shape for name, shape in expected.items())
