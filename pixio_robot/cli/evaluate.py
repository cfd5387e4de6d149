"""`pixio-robot evaluate`: roll a policy, or random actions, out in the simulator."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from envs.config import EnvConfig
from envs.registry import spec_of
from pixio_robot.cli.compose import run
from pixio_robot.cli.policy_directory import policy_directory, weights_fingerprint
from pixio_robot.cli.stages import run_stage
from pixio_robot.evaluation.rollout import EvaluateConfig
from pixio_robot.types import Actor, DemoSpec, EpisodeResult

RANDOM = "random"
CPU_ROWS = 2


@dataclass(kw_only=True)
class EvaluateCommand(EvaluateConfig):
    """Closed-loop rollouts from fixed initial states: success rate, interval, episodes.jsonl, videos."""

    checkpoint: str = MISSING
    """Directory that `train` wrote, or the word `random` for uniformly random actions."""
    out: str = MISSING
    """Results directory."""
    execute: int = 4
    """Actions of each predicted chunk that are carried out before the policy looks again."""
    env: EnvConfig = field(default_factory=EnvConfig)
    device: str = "auto"
    run: str = "runs/default"
    overwrite: bool = False


def _evaluate(command: EvaluateCommand) -> bool:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from envs.pool import ProcessPool
    from pixio_robot.evaluation.baselines import RandomActor
    from pixio_robot.evaluation.evaluate import check_spec, evaluate
    from pixio_robot.evaluation.results import EvaluatedPolicy
    from pixio_robot.training.device import pick_device
    from policies.chunking import ChunkedActor
    from policies.persistence import load_policy, read_policy_config

    device = pick_device(command.device)
    policy, train_seeds = None, []
    if command.checkpoint != RANDOM:
        directory = policy_directory(command.checkpoint)
        description = read_policy_config(directory)
        # Before any simulator starts: a policy that does not fit is refused at once.
        check_spec(DemoSpec.from_json(description["spec"]), spec_of(command.env))
        policy = load_policy(directory, device)
        extra = description["extra"]
        train_seeds = extra.get("train_seeds", [])
        identity = EvaluatedPolicy(
            name=Path(command.out).name,
            label=extra.get("label", Path(command.out).name),
            policy=description["policy"],
            encoder=extra.get("encoder", "unknown"),
            adaptation=extra.get("adaptation", ""),
            training_seed=extra.get("seed"),
            fingerprint=weights_fingerprint(directory),
        )
    else:
        identity = EvaluatedPolicy(name=Path(command.out).name, label="Random actions", policy="random", encoder="none")

    workers = min(command.workers or len(os.sched_getaffinity(0)), command.num_slots)
    pool = ProcessPool(command.env, workers, command.num_slots, command.step_timeout_s)
    try:
        actor: Actor
        if policy is None:
            actor = RandomActor(pool.spec.action_dim)
        else:
            # Calls have a fixed number of rows, the empty ones padded: few on a CPU, where each row costs time.
            rows = command.num_slots if device.type == "cuda" else min(CPU_ROWS, command.num_slots)
            actor = ChunkedActor(policy, command.execute, device, batch_size=rows)
        successes = 0
        console = Console(stderr=True)
        columns = (
            TextColumn("evaluate"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[successes]} succeeded"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=command.episodes, successes=0)

            def count(result: EpisodeResult) -> None:
                nonlocal successes
                successes += result.success
                progress.update(bar, advance=1, successes=successes)

            summary = evaluate(
                pool, actor, identity, command, Path(command.out), train_seeds=train_seeds, on_episode=count
            )
    finally:
        pool.close()
    print(
        f"evaluate: {summary.label}: {summary.successes} of {summary.episodes} succeeded "
        f"({summary.rate:.0%}, 95 % interval {summary.low:.0%} to {summary.high:.0%})"
        + (f"; ended early, because {summary.stopped}" if summary.stopped else "")
    )
    return True


def _run(command: EvaluateCommand) -> int:
    inputs = [] if command.checkpoint == RANDOM else [str(policy_directory(command.checkpoint))]
    return run_stage(
        "evaluate", command.out, command, lambda: _evaluate(command), inputs=inputs, overwrite=command.overwrite
    )


def main(arguments: list[str]) -> int:
    return run("evaluate", EvaluateCommand, _run, arguments)
