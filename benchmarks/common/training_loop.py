"""A training step, the same for both sides of a comparison."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Step = Callable[[], None]


def repeat_step(step: Step, times: int) -> None:
    for _ in range(times):
        step()


def make_training_step(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    device: torch.device,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.05,
    bfloat16: bool = False,
) -> Step:
    """One update by a fused AdamW a call, on a GPU under bfloat16 autocast, as in our training loop; on a CPU if
    `bfloat16`. The default `betas` and `weight_decay` are those of pretraining."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    autocast = bfloat16 or device.type == "cuda"
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, betas=betas, weight_decay=weight_decay, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = loss_of()
        loss.backward()
        optimiser.step()

    return step
