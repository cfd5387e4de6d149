"""What the training loop needs to know about a job; it knows nothing of policies, encoders or data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixio_robot.training.distributed.strategy import DistributedModel
from pixio_robot.training.optim import OptimConfig, ParameterGroup


class BatchStream(Protocol):
    """Endless batches whose position can be saved (as a JSON value) and restored exactly.

    A batch may name its examples in an attribute `ids`; the loop reports them if the loss is not finite.
    """

    def __next__(self) -> Any: ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def merge_states(self, states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """One state, from which any number of processes can continue, of those of all processes of a run."""
        ...

    def close(self) -> None: ...


@dataclasses.dataclass(kw_only=True)
class Hook:
    """`call(step)` is called every `every` steps and at the end of the run; the numbers and images (uint8 arrays
    (h, w, 3)) that it returns are logged.

    It runs without gradients, in evaluation mode, with the averaged weights if there are any. Random states are
    restored afterwards, so a hook does not change the run.
    """

    every: int
    call: Callable[[int], Mapping[str, Any]]


@dataclasses.dataclass(kw_only=True)
class Job:
    """One training job."""

    title: str
    model: nn.Module
    device: torch.device
    batches: BatchStream
    """Closed by `fit`."""
    batch_size: int
    """Examples per batch, over all processes."""
    step: Callable[[Any], tuple[Tensor, Mapping[str, Tensor]]]
    """Maps a batch to (scalar loss, scalars to log), each a mean over this process's examples. Moves the batch to the
    device."""
    weight_batches: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    """Maps all batches of one update, which are then in memory together, to the arguments of `step`, such as pairs of a
    batch and its weight. None: `step` is called with one batch after the other."""
    groups: list[ParameterGroup]
    optim: OptimConfig
    save_model: Callable[[Path], None]
    """Save the deployable model to a directory that may already exist. Called on every process."""
    settings: Mapping[str, Any]
    """Everything that determines the result, as JSON values: a run is only resumed with equal settings."""
    generators: Mapping[str, torch.Generator] = dataclasses.field(default_factory=dict)
    """Generators that `step` uses besides the global ones; the loop seeds and checkpoints them. They are identical on
    all processes, each of which draws for the whole batch; the global generators differ."""
    hooks: list[Hook] = dataclasses.field(default_factory=list)
    use_ema: bool = False
    distributed_model: DistributedModel = dataclasses.field(default_factory=lambda: DistributedModel(nn.Identity()))
    """How the model is distributed over processes; `step` calls its module."""
    distinct_items: Callable[[], Mapping[str, Collection[str]]] = dict
    """Items that this process has encountered, such as ids of skipped images, by metric name. The number of distinct
    items over all processes is logged."""
    flop_per_example: float | None = None
    """Matrix multiplication FLOP of a forward and backward pass, for the reported MFU."""
