"""Closed-form readouts: ridge regression with its penalty selected on held-out groups, and nearest neighbours.

Shapes: n rows, f inputs, c outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.errors import UserError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Candidate ridge penalties for standardised features, to be multiplied by the number of rows."""
CHOICE_SHARE = 0.2
"""Fraction of the training episodes held out to select the penalty."""
NEIGHBOURS = 5
DENSE_NEIGHBOURS, DENSE_TEMPERATURE, DENSE_BANK = 30, 0.02, 16_384
"""Neighbours and temperature as in Balažević et al. 2023 (arXiv 2306.01667), whose memory bank is far larger."""
_CHUNK = 4096

Predict = Callable[[Tensor], Tensor]


def split_episodes(episode: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Mask (n,) of the held-out frames: those of a random `share` of the episodes; at least one is held out, one kept.

    Raises UserError if there is only one episode.
    """
    names = np.unique(episode)
    if len(names) < 2:
        raise UserError("Probing needs frames from at least two episodes: one for fitting, one for testing.")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    return np.isin(episode, np.random.default_rng(seed).permutation(names)[:count])


def ridge(inputs_nf: Tensor, targets_nc: Tensor, groups: np.ndarray) -> Predict:
    """Ridge regression on standardised inputs, with the penalty selected on held-out groups."""
    choice = torch.from_numpy(split_episodes(groups, CHOICE_SHARE, seed=1))
    errors = {}
    fit = Ridge(inputs_nf[~choice], targets_nc[~choice])
    for strength in STRENGTHS:
        errors[strength] = float((fit.solve(strength)(inputs_nf[choice]) - targets_nc[choice]).square().mean())
    return Ridge(inputs_nf, targets_nc).solve(min(errors, key=lambda strength: errors[strength]))


class Ridge:
    """Ridge regression with one eigendecomposition, of the smaller of X'X and XX', for all penalties."""

    def __init__(self, inputs_nf: Tensor, targets_nc: Tensor) -> None:
        self._mean, self._std = inputs_nf.mean(0), inputs_nf.std(0).clamp_min(1e-6)
        self._offset = targets_nc.mean(0)
        x, y = (inputs_nf - self._mean) / self._std, targets_nc - self._offset
        self._rows = len(x)
        self._dual = x.shape[1] > len(x)
        gram = x @ x.T if self._dual else x.T @ x
        self._values, self._vectors = torch.linalg.eigh(gram.double())
        self._right = self._vectors.T @ (y if self._dual else x.T @ y).double()
        self._x = x

    def solve(self, strength: float) -> Predict:
        inner = self._vectors @ (self._right / (self._values.clamp_min(0) + strength * self._rows)[:, None])
        weights = (self._x.T @ inner.float()) if self._dual else inner.float()
        return lambda inputs_nf: ((inputs_nf - self._mean) / self._std) @ weights + self._offset


def nearest(inputs_nf: Tensor, targets_nc: Tensor, k: int = NEIGHBOURS) -> Predict:
    """Mean target of the k nearest training frames by cosine similarity."""
    return _neighbours(inputs_nf, targets_nc, k, None)


def nearest_patches(inputs_nf: Tensor, targets_nc: Tensor) -> Predict:
    """Dense retrieval: mean target of the 30 nearest training patches, weighted by softmax(cosine similarity / 0.02).

    At most DENSE_BANK rows, chosen at random, are searched.
    """
    if len(inputs_nf) > DENSE_BANK:
        some = torch.randperm(len(inputs_nf), generator=torch.Generator().manual_seed(0))[:DENSE_BANK]
        inputs_nf, targets_nc = inputs_nf[some], targets_nc[some]
    return _neighbours(inputs_nf, targets_nc, DENSE_NEIGHBOURS, DENSE_TEMPERATURE)


def _neighbours(inputs_nf: Tensor, targets_nc: Tensor, k: int, temperature: float | None) -> Predict:
    known = functional.normalize(inputs_nf, dim=-1)

    def predict(inputs_mf: Tensor) -> Tensor:
        parts = []
        for part in functional.normalize(inputs_mf, dim=-1).split(_CHUNK):
            closest = (part @ known.T).topk(min(k, len(known)), dim=-1)
            logits = torch.zeros_like(closest.values) if temperature is None else closest.values / temperature
            parts.append((logits.softmax(-1)[..., None] * targets_nc[closest.indices]).sum(1))
        return torch.cat(parts)

    return predict
