"""What the loop needs to know of a thing to train; it knows no policy, no encoder and no data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixio_robot.training.optim import OptimConfig, ParameterGroup
from pixio_robot.training.spreading import Spread


class BatchStream(Protocol):
    """Endless batches whose position can be saved (as a JSON value) and taken up again exactly.

    A batch may name its examples in an attribute `ids`; the loop reports them when the loss breaks.
    """

    def __next__(self) -> Any: ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclasses.dataclass(kw_only=True)
class Hook:
    """A look at the run every `every` steps and at its end, by `call(step)`; the numbers and pictures (uint8 arrays
    (h, w, 3)) that it returns are logged.

    It runs without gradients, in evaluation mode, with the averaged weights where there are any, and whatever
    random numbers it draws are put back: looking does not change the run.
    """

    every: int
    call: Callable[[int], Mapping[str, Any]]


@dataclasses.dataclass(kw_only=True)
class Job:
    """One thing to train."""

    title: str
    model: nn.Module
    device: torch.device
    batches: BatchStream
    """Closed by `fit`."""
    batch_size: int
    """Examples of a batch, on all processes together."""
    step: Callable[[Any], tuple[Tensor, Mapping[str, Tensor]]]
    """Batch -> (scalar loss, scalars to log), each a mean over this process's examples; it moves the batch to the
    device."""
    groups: list[ParameterGroup]
    optim: OptimConfig
    save_model: Callable[[Path], None]
    """Write the deployable model into a directory that may exist already. Called on every process."""
    settings: Mapping[str, Any]
    """Everything that decides the result, as JSON values: a run directory is resumed only by equal settings."""
    unsaid: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What flat settings are where nobody says them, by `settings.defaults`: runs begun before one existed go on."""
    generators: Mapping[str, torch.Generator] = dataclasses.field(default_factory=dict)
    """Generators that `step` draws from beside the global ones; the loop seeds and checkpoints them. Every process
    draws the same from them, for the examples of all; the global ones differ."""
    hooks: list[Hook] = dataclasses.field(default_factory=list)
    use_ema: bool = False
    spread: Spread = dataclasses.field(default_factory=lambda: Spread(nn.Identity()))
    """How the model is spread over several processes; `step` calls its module."""
    found: Callable[[], Mapping[str, Collection[str]]] = dict
    """What this process met, such as the ids of images that it skipped, by the name under which the number of different
    ones of all processes is logged."""
    flop_per_example: float | None = None
    """Matrix-multiplication FLOP of a forward and backward pass, for the reported MFU."""
