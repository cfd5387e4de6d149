"""How the parameters of one model are spread over the processes that train it.

FSDP and DTensor are imported where something is spread: they bring sympy along, five seconds that one process would
pay for nothing.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pixio_robot.training.batch_norm import share_batch_norms
from pixio_robot.training.distributed import current, mesh_of_all
from pixio_robot.vision.initial import Weights, all_of_it, fill
from pixio_robot.vision.layers import compile_blocks

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

STRATEGIES = ("ddp", "fsdp")


@dataclasses.dataclass
class Spread:
    """A model spread over the processes: call `module` in training steps."""

    module: nn.Module
    compiled: bool = False
    sharded: bool = False
    """Whether each process has a part of every parameter (FSDP)."""

    def reduce_gradients(self, wanted: bool) -> None:
        """Whether the next backward pass exchanges gradients: only the last of an accumulated update has to."""
        if isinstance(self.module, DistributedDataParallel):
            self.module.require_backward_grad_sync = wanted
        elif self.sharded:
            cast("FSDPModule", self.module).set_requires_gradient_sync(wanted)

    def renew(self) -> None:
        """After parameters began or ceased to require gradients: DDP waits for those of which it knew at first, and
        compiled code goes on without the others'."""
        if self.compiled:
            torch._dynamo.reset()  # pyright: ignore[reportPrivateImportUsage]
        if isinstance(self.module, DistributedDataParallel):
            self.module = self.module.module
            gc.collect()  # the old one's hooks on the parameters go with it
            self.module = _replicated(self.module)

    def let_go(self) -> None:
        """After calls without a backward pass, of which FSDP keeps what it gathered: the next update would start from
        that, averages and parameters that did not require gradients then."""
        if not self.sharded:
            return
        from torch.distributed.fsdp import FSDPModule

        for part in self.module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()

    def shard_method(self, name: str) -> None:
        """Let the module be called by this method too, as it is for training steps."""
        if self.sharded:
            from torch.distributed.fsdp import register_fsdp_forward_method

            register_fsdp_forward_method(self.module, name)


def spread(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    strategy: str,
    device: torch.device,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
    weights: Weights | None = None,
) -> Spread:
    """`ddp`: every process has all of `model`. `fsdp`: each has its part of every parameter (FSDP2), gathered a block
    at a time; `model` itself changes. One process has all of it in any case. It ends up on `device`.

    `dtype`: that of autocast around every call. Blocks are gathered in it, which their matrices are multiplied in
    anyway; gradients are summed, and weights kept, in float32.

    `compiled`: of one process the step becomes one graph, by `model.compile()`; of several each block one, because
    gradients are exchanged, or parameters gathered, between them while the others compute.

    `weights`: those of what of the model was made without, at least. Each goes to the device by itself, and under
    `fsdp` a process lets go of the others' parts of it before the next is made: none ever holds the whole model.

    Raises UserError where several processes cannot learn what one would (`share_batch_norms`)."""
    blocks = list(blocks)
    alone = current().count == 1
    sharded = strategy == "fsdp" and not alone
    if not alone:
        share_batch_norms(model.train(), device)
        if compiled:
            compile_blocks(blocks)
        if sharded:
            _shard(model, blocks, device, dtype)
    if weights is not None:
        fill(model, weights, device, _part if sharded else all_of_it)
    if sharded:
        return Spread(model, compiled, sharded)
    model.to(device)
    if not alone:
        return Spread(_replicated(model), compiled)
    if compiled:
        model.compile()
    return Spread(model, compiled)


def spread_frozen(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    strategy: str,
    device: torch.device,
    dtype: torch.dtype,
    weights: Weights,
    method: str,
) -> None:
    """As `spread`, for a model that does not learn, made without weights. Under `fsdp` it is called by `method` alone,
    and has let go of what it gathered when that returns."""
    sharded = strategy == "fsdp" and current().count > 1
    if sharded:
        from torch.distributed.fsdp import register_fsdp_forward_method

        _shard(model, blocks, device, dtype, reshard_after_forward=True)
        register_fsdp_forward_method(model, method)
    fill(model, weights, device, _part if sharded else all_of_it)
    if not sharded:
        model.to(device)


def _shard(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    device: torch.device,
    dtype: torch.dtype,
    reshard_after_forward: bool | None = None,
) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = mesh_of_all(device)
    for parameter in model.parameters():  # FSDP takes no kernels that lie channels last, as those of our ResNets
        parameter.data = parameter.data.contiguous()
    half = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in blocks:  # each goes to the device by itself, of which none then has to hold the whole model
        fully_shard(block, mesh=mesh, mp_policy=half, reshard_after_forward=reshard_after_forward)
    # What lies outside of them is little, and some of it computes in float32 whatever surrounds it.
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard_after_forward)


def _part(tensor: Tensor, place: Tensor) -> Tensor:
    """This process's part of a tensor that every process has; all of it where it is not spread, as a constant."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(place, DTensor):
        return tensor
    return distribute_tensor(tensor.to(place.device), place.device_mesh, place.placements, src_data_rank=None)


def _replicated(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread; a collective if it is."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of all, one at a time, on the first process; the others only take part and get nothing."""
    copies = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if current().first:
            copies[name] = complete.to("cpu", copy=True).contiguous()
    return copies
