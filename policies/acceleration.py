"""Compilation of a policy for acting: fewer, larger kernels; on a GPU, each network call is one CUDA graph.

The encoder runs once per observation and the denoiser once per sampling step, so the denoiser's overhead is multiplied
by the number of steps. Parameters and their names do not change: a compiled policy is saved like any other.
"""

from __future__ import annotations

import torch

from pixio_robot.vision.layers import raise_recompile_limit
from policies.base import ChunkPolicy

UNCOMPILED_CHILDREN = ("conditioning", "actions", "schedule", "lstm")
"""Children that are not compiled as a whole: only the encoders of `conditioning` are compiled, the normaliser and the
schedule are trivial, and an LSTM is already a single kernel."""


def compile_for_acting(policy: ChunkPolicy) -> None:
    """Compile the encoders and all networks after them, in place; the first calls with each shape then take seconds.

    Shapes are fixed: call with the same number of rows every time, as `ChunkedActor` does. On a GPU, make all calls,
    including the first, from the same thread: PyTorch keeps CUDA graphs per thread.
    """
    on_gpu = next(policy.parameters()).device.type == "cuda"
    policy.uses_cuda_graphs = on_gpu
    networks = [child for name, child in policy.named_children() if name not in UNCOMPILED_CHILDREN]
    mode = "reduce-overhead" if on_gpu else "default"
    raise_recompile_limit()
    for network in [*policy.encoders, *networks]:
        # `Module.compile` compiles the frames of our own code below a call, so nothing of a network that consists of
        # PyTorch's modules alone (torch 2.11). As there, copies and pickles of the module are not compiled.
        network._compiled_call_impl = torch.compile(network.forward, mode=mode, dynamic=False)
