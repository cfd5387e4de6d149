"""Linear classification by softmax regression: convex, so that its result does not depend on how it was tuned.

Ridge regression on the class fractions would only work for large classes: a small one seldom has the largest
prediction.

Shapes: n rows, f inputs, c classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixio_robot.vision.probing.regressors import SELECTION_SHARE, Predict, inverse_std, split_episodes, standardise

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""Candidate weight penalties for standardised features, each fitted from the weights of the one before."""
ITERATIONS, TOLERANCE = 50, 1e-6
"""Of L-BFGS for each candidate: at most so many, until the loss changes by less. More hardly change any IoU."""


def fit_softmax_regression(inputs_nf: Tensor, shares_nc: Tensor, groups: np.ndarray) -> Predict:
    """Predicts the shares of the classes, which sum to 1 in every row, by the linear map to logits of the least
    cross-entropy, with the penalty selected on held-out groups."""
    selection = torch.from_numpy(split_episodes(groups, SELECTION_SHARE, seed=1))
    candidates = _fit_penalty_path(inputs_nf[~selection], shares_nc[~selection], len(PENALTIES))
    losses = [
        float(functional.cross_entropy(logits(inputs_nf[selection]), shares_nc[selection])) for logits in candidates
    ]
    logits = _fit_penalty_path(inputs_nf, shares_nc, 1 + int(np.argmin(losses)))[-1]
    return lambda inputs_nf: logits(inputs_nf).softmax(1)


def _fit_penalty_path(inputs_nf: Tensor, shares_nc: Tensor, count: int) -> list[Predict]:
    """The maps to logits for the first `count` PENALTIES."""
    mean_f, scale_f = inputs_nf.mean(0), inverse_std(inputs_nf.std(0))
    x_nf = standardise(inputs_nf, mean_f, scale_f)
    weights_fc = torch.zeros(x_nf.shape[1], shares_nc.shape[1], requires_grad=True)
    # Begins with the classes' frequencies.
    offset_c = shares_nc.mean(0).clamp_min(1e-6).log().requires_grad_()

    def solution(penalty: float) -> Predict:
        _minimise_loss(x_nf, shares_nc, weights_fc, offset_c, penalty)
        weights, offset = weights_fc.detach().clone(), offset_c.detach().clone()
        return lambda inputs_nf: standardise(inputs_nf, mean_f, scale_f) @ weights + offset

    return [solution(penalty) for penalty in PENALTIES[:count]]


def _minimise_loss(x_nf: Tensor, shares_nc: Tensor, weights_fc: Tensor, offset_c: Tensor, penalty: float) -> None:
    """Move weights and offset to the least penalised cross-entropy."""
    optimiser = torch.optim.LBFGS(
        [weights_fc, offset_c], max_iter=ITERATIONS, tolerance_change=TOLERANCE, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(x_nf @ weights_fc + offset_c, shares_nc)
        value = value + penalty / 2 * weights_fc.square().sum()
        value.backward()
        return value

    optimiser.step(loss)  # pyright: ignore[reportArgumentType]
