"""`pixio-robot serve`: a trained policy behind a websocket."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from pixio_robot.cli.compose import run
from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.cli.settings import RunSettings
from pixio_robot.serving.server import PolicyServer, ServeConfig, Served


@dataclass(kw_only=True)
class ServeCommand(ServeConfig, RunSettings):
    """Serve a policy to `pixio_robot.serving.client.PolicyClient`, which needs no torch."""

    checkpoint: str = MISSING
    """Directory that `train` wrote."""
    execute: int = 4
    """Actions of each predicted chunk that a client carries out before it asks again."""
    inference_steps: int | None = None
    """Steps of the sampler, for policies that draw their actions; null: as trained."""
    compile: bool = False
    """Compile the policy (on a GPU: CUDA graphs); the warm-up then takes up to minutes."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""


def served_policy(
    checkpoint: str, execute: int, device_name: str, inference_steps: int | None = None, compiled: bool = False
) -> Served:
    """The policy in the form that the server takes."""
    import torch

    from pixio_robot.errors import UserError
    from pixio_robot.training.device import pick_device
    from pixio_robot.types import Observation
    from policies.acceleration import compile_for_acting
    from policies.chunking import call_seed
    from policies.generative import set_inference_steps
    from policies.persistence import load_policy

    device = pick_device(device_name)
    policy: Any = load_policy(policy_directory(checkpoint), device)
    policy.eval()
    if not 1 <= execute <= policy.horizon:
        raise UserError(f"execute={execute} must lie between 1 and the policy's horizon, {policy.horizon}.")
    if inference_steps is not None:
        set_inference_steps(policy, inference_steps)
    if compiled:
        compile_for_acting(policy)

    def plan(images: dict, state: Any, seed: int, step: int, task: str | None) -> Any:
        with torch.inference_mode():
            pictures = {name: torch.tensor(image)[None] for name, image in images.items()}
            goal = torch.tensor(policy.goals[task])[None] if task in policy.goals else None
            observation = Observation(pictures, torch.tensor(state)[None], goal=goal).to(device)
            return policy.act(observation, [call_seed(seed, step)])[0, :execute].float().cpu().numpy()

    return Served(
        spec=policy.spec,
        cameras=list(policy.cameras),
        observation_steps=policy.observation_steps,
        execute=execute,
        plan=plan,
        tasks=list(policy.goals),
    )


def _run(command: ServeCommand) -> int:
    served = served_policy(
        command.checkpoint, command.execute, command.device, command.inference_steps, command.compile
    )
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
        # About one end in six crashed while the interpreter was taken down, after all was done: some library's thread
        # outlives its objects (not found out whose). A server has nothing left to write.
        sys.stdout.flush()
        os._exit(0)
    return 0


def main(arguments: list[str]) -> int:
    return run("serve", ServeCommand, _run, arguments)
