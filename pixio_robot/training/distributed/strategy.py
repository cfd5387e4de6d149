"""Distribute a model over the processes that train it: DDP or FSDP2.

FSDP and DTensor are imported only where they are used: they import sympy, which takes five seconds that a single
process does not need to spend.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pixio_robot.training.distributed.launch import build_device_mesh
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.distributed.sync_batch_norm import convert_sync_batch_norms
from pixio_robot.vision.layers import compile_blocks
from pixio_robot.vision.weight_init import Weights, keep_full_tensor, materialise

STRATEGIES = ("ddp", "fsdp")


@dataclasses.dataclass
class DistributedModel:
    """A model distributed over processes: call `module` in training steps."""

    module: nn.Module
    compiled: bool = False
    sharded: bool = False
    """Whether each process holds a shard of every parameter (FSDP)."""

    def set_requires_gradient_sync(self, enabled: bool) -> None:
        """Set whether the next backward pass synchronises gradients: only the last one of an accumulated update needs
        to.

        FSDP always does: until then, each process would hold the gradients of the whole model in float32.
        """
        if isinstance(self.module, DistributedDataParallel):
            self.module.require_backward_grad_sync = enabled

    def rewrap(self) -> None:
        """Call after `requires_grad` of parameters has changed: DDP waits for the parameters it knew at first, and
        compiled code ignores new ones."""
        if self.compiled:
            torch._dynamo.reset()  # pyright: ignore[reportPrivateImportUsage]
        if isinstance(self.module, DistributedDataParallel):
            self.module = self.module.module
            gc.collect()  # removes the old instance's hooks on the parameters
            self.module = _wrap_ddp(self.module)

    def reshard(self) -> None:
        """Free the parameters that FSDP keeps gathered after calls without a backward pass; otherwise the next update
        would use these stale values (such as EMA weights)."""
        if not self.sharded:
            return
        from torch.distributed.fsdp import FSDPModule

        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def register_forward_method(self, name: str) -> None:
        """Make FSDP gather the parameters also when the module is called through this method."""
        if self.sharded:
            from torch.distributed.fsdp import register_fsdp_forward_method

            register_fsdp_forward_method(self.module, name)


def distribute_model(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    strategy: str,
    device: torch.device,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
    weights: Weights | None = None,
) -> DistributedModel:
    """Move `model` to `device` and distribute it over the processes.

    `ddp`: every process holds all of `model`. `fsdp`: each holds a shard of every parameter (FSDP2), gathered block by
    block; `model` is modified in place. A single process always holds all of it.

    `dtype`: dtype of the autocast around every call. Blocks are gathered in it, since their matrix multiplications use
    it anyway; gradients are reduced, and weights stored, in float32.

    `compiled`: with one process, the whole step becomes one graph through `model.compile()`; with several, each block
    is compiled separately, because gradients are reduced, or parameters gathered, between blocks during computation.

    `weights`: at least those of the parameters on the meta device. They are moved to the device one by one, and with
    `fsdp` each process drops the other shards before the next weight is made, so that none ever holds the whole model.

    Raises UserError if several processes cannot train as one would (`convert_sync_batch_norms`).
    """
    blocks = list(blocks)
    single = current_processes().world_size == 1
    sharded = strategy == "fsdp" and not single
    if not single:
        convert_sync_batch_norms(model.train(), device)
        if compiled:
            compile_blocks(blocks)
        if sharded:
            _apply_fsdp(model, blocks, device, dtype)
    if weights is not None:
        materialise(model, weights, device, _local_shard if sharded else keep_full_tensor)
    if sharded:
        return DistributedModel(model, compiled, sharded)
    model.to(device)
    if not single:
        return DistributedModel(_wrap_ddp(model), compiled)
    if compiled:
        model.compile()
    return DistributedModel(model, compiled)


def distribute_frozen_model(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    strategy: str,
    device: torch.device,
    dtype: torch.dtype,
    weights: Weights,
    method: str,
) -> None:
    """As `distribute_model`, for a frozen model on the meta device. With `fsdp` it must be called through `method`
    only, which frees the gathered parameters when it returns."""
    sharded = strategy == "fsdp" and current_processes().world_size > 1
    if sharded:
        from torch.distributed.fsdp import register_fsdp_forward_method

        _apply_fsdp(model, blocks, device, dtype, reshard_after_forward=True)
        register_fsdp_forward_method(model, method)
    materialise(model, weights, device, _local_shard if sharded else keep_full_tensor)
    if not sharded:
        model.to(device)


def _apply_fsdp(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    device: torch.device,
    dtype: torch.dtype,
    reshard_after_forward: bool | None = None,
) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = build_device_mesh(device)
    for parameter in model.parameters():  # FSDP does not accept channels_last kernels, as in our ResNets
        parameter.data = parameter.data.contiguous()
    mixed_precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in blocks:  # one by one, so that no device has to hold the whole model
        fully_shard(block, mesh=mesh, mp_policy=mixed_precision, reshard_after_forward=reshard_after_forward)
    # The rest is small, and some of it must compute in float32.
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard_after_forward)


def _local_shard(tensor: Tensor, target: Tensor) -> Tensor:
    """This process's shard of a tensor that every process has; the whole tensor if it is not sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(target, DTensor):
        return tensor
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def _wrap_ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def gather_full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor of one that may be sharded; a collective call if it is."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_full_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Full copies of all tensors, one at a time, on the first process; the others participate but get an empty dict."""
    copies = {}
    for name, tensor in tensors.items():
        complete = gather_full_tensor(tensor.detach())
        if current_processes().is_main:
            copies[name] = complete.to("cpu", copy=True).contiguous()
    return copies
