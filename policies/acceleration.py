"""A policy compiled for acting: fewer, larger kernels; on a GPU each network is one CUDA graph a call.

The encoder runs once an observation and the denoiser once a step, so the denoiser's overhead counts as often as there
are steps. Both keep their parameters and their names: a compiled policy is saved like any other.
"""

from __future__ import annotations

from policies.base import ChunkPolicy

NOT_CALLED = ("conditioning", "actions", "schedule", "lstm")
"""Children that are not one network: the sight is taken apart, normalisers are two lines, and an LSTM is a kernel of
its own already."""


def compile_for_acting(policy: ChunkPolicy) -> None:
    """Compile the encoders and every network behind them, in place; the first calls of each shape then take seconds.

    Shapes are fixed: call with the same number of rows every time, as `ChunkedActor` does. On a GPU one thread makes
    all calls, the first included: PyTorch keeps CUDA graphs by thread.
    """
    on_gpu = next(policy.parameters()).device.type == "cuda"
    policy.replays_graphs = on_gpu
    networks = [child for name, child in policy.named_children() if name not in NOT_CALLED]
    for network in [*policy.conditioning.encoders, *networks]:
        network.compile(mode="reduce-overhead" if on_gpu else "default", dynamic=False)
