"""`pixio-robot serve`: serve a trained policy over a websocket."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.cli.settings import RunSettings
from pixio_robot.serving.server import PolicyServer, ServeConfig, ServedPolicy
from policies.acting import ActingConfig, apply_acting_config, explain_unused_noise_seed

STOP_TIMEOUT_S = 10.0
"""Time for the calls under way when the server is stopped: a policy may hang."""


@dataclass(kw_only=True)
class ServeCommand(ServeConfig, ActingConfig, RunSettings):
    """Serve a policy over a websocket to `pixio_robot.serving.PolicyClient`, which does not need torch."""

    checkpoint: str = MISSING
    """Output directory of `train`."""
    compile: bool = False
    """Compile the policy (on a GPU: CUDA graphs); the warm-up can then take minutes."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if available."""


def load_served_policy(checkpoint: str, acting: ActingConfig, device_name: str, compiled: bool = False) -> ServedPolicy:
    """Load a policy in the form that the server needs."""
    import torch

    from pixio_robot.training.device import pick_device
    from pixio_robot.types import Observation
    from policies.acceleration import compile_for_acting
    from policies.chunking import get_call_seed
    from policies.persistence import load_policy

    device = pick_device(device_name)
    policy: Any = load_policy(policy_directory(checkpoint), device)
    policy.eval()
    apply_acting_config(policy, acting)
    if words := explain_unused_noise_seed(policy, acting):
        print(f"serve: {words}")
    # Actions beyond `execute` are sent only if the client averages predictions.
    execute, ensemble_weight = policy.config.executed, policy.config.ensemble_weight
    sent = execute if ensemble_weight is None else policy.horizon
    if compiled:
        compile_for_acting(policy)

    def plan(images: dict, state: Any, seed: int, step: int, task: str | None) -> Any:
        with torch.inference_mode():
            pictures = {name: torch.tensor(image)[None] for name, image in images.items()}
            goal = torch.tensor(policy.goals[task])[None] if task in policy.goals else None
            observation = Observation(pictures, torch.tensor(state)[None], goal=goal).to(device)
            return (
                policy.act(observation, [get_call_seed(seed, step, acting.noise_seed)])[0, :sent].float().cpu().numpy()
            )

    return ServedPolicy(
        spec=policy.spec,
        cameras=list(policy.cameras),
        observation_steps=policy.observation_steps,
        execute=execute,
        ensemble_weight=ensemble_weight,
        plan=plan,
        tasks=list(policy.goals),
        state_range=policy.state_range,
    )


def _run(command: ServeCommand) -> int:
    served = load_served_policy(command.checkpoint, command, command.device, command.compile)
    token = command.token or secrets.token_urlsafe(24)
    server = PolicyServer(served, command, token)

    def ready(address: str) -> None:
        print(f"serve: {served.spec.task} policy at {address}, token {token}", flush=True)

    asyncio.run(_serve_until_signal(server, ready))
    print(f"serve: {_latency_text(server.latency())}")
    return 0


async def _serve_until_signal(server: PolicyServer, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then close the connections properly, after the calls under way."""
    serving = asyncio.create_task(server.run(ready))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        serving.cancel()
        loop.call_later(STOP_TIMEOUT_S, serving.cancel)  # this ends its wait for them

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _latency_text(latency: Mapping[str, float]) -> str:
    if not latency:
        return "no calls"
    quantiles = ", ".join(f"{name} {latency[f'{name}_ms']:.1f} ms" for name in ("p50", "p90", "p99"))
    return f"{latency['calls']} calls, {quantiles}"


def main(arguments: list[str]) -> int:
    return run_command_line("serve", ServeCommand, _run, arguments)
