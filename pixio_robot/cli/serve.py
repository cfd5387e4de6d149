"""`pixio-robot serve`: a trained policy behind a websocket."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from pixio_robot.cli.compose import run
from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.serving.server import PolicyServer, ServeConfig, Served


@dataclass(kw_only=True)
class ServeCommand(ServeConfig):
    """Serve a policy to `pixio_robot.serving.client.PolicyClient`, which needs no torch."""

    checkpoint: str = MISSING
    """Directory that `train` wrote."""
    execute: int = 4
    """Actions of each predicted chunk that a client carries out before it asks again."""
    device: str = "auto"
    run: str = "runs/default"


def served_policy(checkpoint: str, execute: int, device_name: str) -> Served:
    """The policy in the form that the server takes."""
    import torch

    from pixio_robot.errors import UserError
    from pixio_robot.training.device import pick_device
    from pixio_robot.types import Observation
    from policies.chunking import call_seed
    from policies.persistence import load_policy

    device = pick_device(device_name)
    policy: Any = load_policy(policy_directory(checkpoint), device)
    policy.eval()
    if not 1 <= execute <= policy.horizon:
        raise UserError(f"execute={execute} must lie between 1 and the policy's horizon, {policy.horizon}.")

    def plan(images: dict, state: Any, seed: int, step: int) -> Any:
        with torch.inference_mode():
            pictures = {name: torch.tensor(image)[None] for name, image in images.items()}
            observation = Observation(pictures, torch.tensor(state)[None]).to(device)
            return policy.act(observation, [call_seed(seed, step)])[0, :execute].float().cpu().numpy()

    return Served(
        spec=policy.spec,
        cameras=list(policy.cameras),
        observation_steps=policy.observation_steps,
        execute=execute,
        plan=plan,
    )


def _run(command: ServeCommand) -> int:
    served = served_policy(command.checkpoint, command.execute, command.device)
    token = command.token or secrets.token_urlsafe(24)
    server = PolicyServer(served, command, token)

    def ready(address: str) -> None:
        print(f"serve: {served.spec.task} policy at {address}, token {token}", flush=True)

    try:
        asyncio.run(server.run(ready))
    except KeyboardInterrupt:
        latency = server.latency()
        if latency:
            print(
                f"serve: {latency['calls']} calls, p50 {latency['p50_ms']:.1f} ms, p90 {latency['p90_ms']:.1f} ms, "
                f"p99 {latency['p99_ms']:.1f} ms"
            )
    return 0


def main(arguments: list[str]) -> int:
    return run("serve", ServeCommand, _run, arguments)
