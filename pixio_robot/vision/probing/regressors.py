"""Closed-form readouts: ridge regression with its penalty selected on held-out groups, and nearest neighbours.

Shapes: n rows, f inputs, c outputs, s candidate penalties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.errors import UserError

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Candidate ridge penalties for standardised features, to be multiplied by the number of rows."""
MIN_RELATIVE_STD, CONSTANT_RELATIVE_STD = 1e-2, 1e-6
"""Inputs that hardly vary in the fitted frames are divided by this fraction of the median standard deviation, and those
below the other fraction are not used: otherwise features that vary only in other frames would dominate the predictions
there."""
SELECTION_SHARE = 0.2
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


def fit_ridge(inputs_nf: Tensor, targets: Sequence[Tensor], groups: np.ndarray) -> Predict:
    """Ridge regression on standardised inputs, with the penalty of each target (n, c) selected on held-out groups.
    Predicts the columns of all targets side by side."""
    selection = torch.from_numpy(split_episodes(groups, SELECTION_SHARE, seed=1))
    together_nc = torch.cat(list(targets), 1)
    widths = [target.shape[1] for target in targets]
    candidates = Ridge(inputs_nf[~selection]).solve(
        together_nc[~selection].repeat(1, len(PENALTIES)), torch.tensor(PENALTIES).repeat_interleave(sum(widths))
    )
    residuals_nsc = (
        candidates(inputs_nf[selection]).unflatten(1, (len(PENALTIES), -1)) - together_nc[selection][:, None]
    )
    del candidates
    errors = [part.square().mean((0, 2)) for part in residuals_nsc.split(widths, 2)]
    penalties = torch.tensor([PENALTIES[int(each.argmin())] for each in errors])
    return Ridge(inputs_nf).solve(together_nc, penalties.repeat_interleave(torch.tensor(widths)))


class Ridge:
    """Ridge regression with one eigendecomposition, of the smaller of X'X and XX', for all targets and penalties."""

    def __init__(self, inputs_nf: Tensor) -> None:
        self._mean_f, self._scale_f = inputs_nf.mean(0), inverse_std(inputs_nf.std(0))
        self._x_nf = standardise(inputs_nf, self._mean_f, self._scale_f)
        self._dual = self._x_nf.shape[1] > len(self._x_nf)
        gram = self._x_nf @ self._x_nf.T if self._dual else self._x_nf.T @ self._x_nf
        self._values, self._vectors = torch.linalg.eigh(gram.double())

    def solve(self, targets_nc: Tensor, penalties_c: Tensor) -> Predict:
        """`penalties_c`: the penalty of each column."""
        mean_f, scale_f, offset_c, x_nf = self._mean_f, self._scale_f, targets_nc.mean(0), self._x_nf
        y_nc = targets_nc - offset_c
        projected = self._vectors.T @ (y_nc if self._dual else x_nf.T @ y_nc).double()
        scaled_penalties_c = penalties_c.double() * len(x_nf)
        inner = (self._vectors @ (projected / (self._values.clamp_min(0)[:, None] + scaled_penalties_c))).float()
        weights_fc = x_nf.T @ inner if self._dual else inner
        return lambda inputs_nf: standardise(inputs_nf, mean_f, scale_f) @ weights_fc + offset_c


def standardise(inputs_nf: Tensor, mean_f: Tensor, scale_f: Tensor) -> Tensor:
    """Inputs minus mean times scale."""
    # In place: a patch map of many frames takes gigabytes.
    return (inputs_nf - mean_f).mul_(scale_f)


def inverse_std(std_f: Tensor) -> Tensor:
    """The factor by which each input is standardised; 0 for constant ones."""
    varying = std_f[std_f > 0]
    typical = varying.median() if len(varying) else torch.ones(())
    return torch.where(std_f > CONSTANT_RELATIVE_STD * typical, 1 / std_f.clamp_min(MIN_RELATIVE_STD * typical), 0.0)


def fit_knn(inputs_nf: Tensor, targets_nc: Tensor, k: int = NEIGHBOURS) -> Predict:
    """Mean target of the k nearest training frames by cosine similarity."""
    return _fit_neighbours(inputs_nf, targets_nc, k, None)


def fit_patch_knn(inputs_nf: Tensor, targets_nc: Tensor) -> Predict:
    """Dense retrieval: mean target of the 30 nearest training patches, weighted by softmax(cosine similarity / 0.02).

    At most DENSE_BANK rows, chosen at random, are searched.
    """
    if len(inputs_nf) > DENSE_BANK:
        rows = torch.randperm(len(inputs_nf), generator=torch.Generator().manual_seed(0))[:DENSE_BANK]
        inputs_nf, targets_nc = inputs_nf[rows], targets_nc[rows]
    return _fit_neighbours(inputs_nf, targets_nc, DENSE_NEIGHBOURS, DENSE_TEMPERATURE)


def _fit_neighbours(inputs_nf: Tensor, targets_nc: Tensor, k: int, temperature: float | None) -> Predict:
    bank = functional.normalize(inputs_nf, dim=-1)

    def predict(inputs_mf: Tensor) -> Tensor:
        parts = []
        for part in functional.normalize(inputs_mf, dim=-1).split(_CHUNK):
            closest = (part @ bank.T).topk(min(k, len(bank)), dim=-1)
            logits = torch.zeros_like(closest.values) if temperature is None else closest.values / temperature
            parts.append((logits.softmax(-1)[..., None] * targets_nc[closest.indices]).sum(1))
        return torch.cat(parts)

    return predict
