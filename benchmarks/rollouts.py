"""Rollout episodes a minute: our engine against a serial loop and gymnasium's AsyncVectorEnv, same policy, same cores.

    python benchmarks/rollouts.py [--episodes 8] [--rounds 3] [--env Lift] [--out benchmarks/results/rollouts.json]

All play the same untrained policy (behaviour cloning on a frozen Pixio micro encoder, two cameras of
96 px), which fails, so that every episode lasts the full horizon. `serial` is how robomimic evaluates: one environment
in the policy's process, an image of every camera at every step, a policy call where its chunk of actions is used up.
`async_N` is gymnasium's AsyncVectorEnv of N environments, one process each, pictures through shared memory, one batched
policy call. `ours_W` is the engine of `pixio-robot evaluate` with W workers and 8 slots. Contestants take turns; the
median over rounds counts. Beside wall time the CPU seconds of all processes an episode are given, which mean the same
on a busy machine. `scaling` is ours_2 over ours_1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `pixio-robot` does: threads that spin starve simulators

import gymnasium
import numpy as np
import torch
from common.result_file import parse_arguments, provenance, save_result
from common.timing import medians

from envs.config import EnvConfig, Variation
from envs.gymnasium_env import GymnasiumEnv
from envs.pool.process_worker import single_threaded_children
from envs.pool.worker_pool import make_pool
from envs.recording.collect import CollectConfig, collect
from envs.registry import make_env
from envs.spec import max_episode_steps
from pixio_robot.child_processes import hide_main_module
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.stats import compute_statistics
from pixio_robot.evaluation.rollout import run_episodes
from pixio_robot.machine import usable_cores
from pixio_robot.types import Frame
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder
from policies.chunking import ChunkedActor, choose_batch_size
from policies.registry import POLICIES, build_policy

EXECUTE, SLOTS, ROWS = 4, 8, 2
"""ROWS: of the asynchronous vector's policy calls."""
FIRST_SEED = 100_000

Contestant = tuple[Callable[[int], int], Callable[[], list[int]]]
"""Plays so many episodes and returns the steps; and the process ids of its simulators, now."""


def make_policy(config: EnvConfig) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        collect(config, CollectConfig(out=f"{folder}/demos", episodes=1, workers=1))
        store = DemoStore.open(f"{folder}/demos")
        torch.manual_seed(0)
        settings = POLICIES["bc"].config()
        settings.conditioning.cameras = list(store.spec.cameras)
        encoder = PixioEncoder(EncoderConfig(size="micro", patch=8, image_size=config.image_size), 0)
        return build_policy("bc", settings, store.spec, compute_statistics(store, [0]), encoder).eval()


def cpu_seconds(pids: list[int]) -> float:
    """Of this process and those."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serial(config: EnvConfig, policy: Any) -> Iterator[Contestant]:
    env = make_env(config)
    actor = ChunkedActor(policy, EXECUTE, batch_size=1)

    def play(episodes: int) -> int:
        steps = 0
        for seed in range(FIRST_SEED, FIRST_SEED + episodes):
            frame, done = env.reset(seed), False
            actor.reset(0, seed)
            while not done:
                result = env.step(actor.act({0: frame})[0])
                frame, done = result.frame, result.done
                steps += 1
        return steps

    try:
        yield play, list
    finally:
        env.close()


@contextlib.contextmanager
def asynchronous(config: EnvConfig, policy: Any, count: int) -> Iterator[Contestant]:
    words = {"task": config.task, "image_size": config.image_size, "variation": config.variation.value}

    def make() -> gymnasium.Env:
        return GymnasiumEnv(**words)

    with single_threaded_children(), hide_main_module():
        envs = gymnasium.vector.AsyncVectorEnv([make] * count, context="spawn")
    cameras = list(config.cameras)
    actor = ChunkedActor(policy, EXECUTE, batch_size=min(ROWS, count))

    def frames(observation: dict[str, np.ndarray]) -> dict[int, Frame]:
        return {
            slot: Frame({name: observation[name][slot] for name in cameras}, observation["state"][slot])
            for slot in range(count)
        }

    def play(episodes: int) -> int:
        observation, _ = envs.reset(seed=[FIRST_SEED + slot for slot in range(count)])
        for slot in range(count):
            actor.reset(slot, slot)
        finished = steps = 0
        over = np.zeros(count, bool)
        while finished < episodes:
            actions = actor.act(frames(observation))
            observation, _, terminated, truncated, _ = envs.step(np.stack([actions[slot] for slot in range(count)]))
            # The step after an episode's last is its environment's reset, and plays nothing.
            for slot in np.flatnonzero(over):
                actor.reset(int(slot), finished)
            steps += int((~over).sum())
            over = terminated | truncated
            finished += int(over.sum())
        return steps

    try:
        yield play, lambda: [process.pid for process in envs.processes]
    finally:
        envs.close(terminate=True)


@contextlib.contextmanager
def ours(config: EnvConfig, policy: Any, workers: int) -> Iterator[Contestant]:
    with make_pool(config, workers, SLOTS) as pool:
        actor = ChunkedActor(policy, EXECUTE, batch_size=choose_batch_size(torch.device("cpu"), SLOTS))

        def play(episodes: int) -> int:
            seeds = range(FIRST_SEED, FIRST_SEED + episodes)
            return sum(result.steps for result in run_episodes(pool, actor, list(seeds)))

        yield play, lambda: pool.worker_pids


def main() -> None:
    parser = argparse.ArgumentParser(description="Rollout episodes a minute.")
    parser.add_argument("--episodes", type=int, default=SLOTS, help="of each contestant in a round; a multiple of 8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--env", default="Lift", help="a task with the cameras front and hand")
    parser.add_argument("--threads", type=int, default=0, help="of torch, for all alike; 0 for one a core")
    arguments = parse_arguments(parser, note=True)
    cores = usable_cores()
    torch.set_num_threads(arguments.threads or cores)
    config = EnvConfig(task=arguments.env, variation=Variation.CLUTTERED)
    policy = make_policy(config)
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        contestants = {"serial": stack.enter_context(serial(config, policy))}
        for count in sorted({cores, SLOTS}):
            contestants[f"async_{count}"] = stack.enter_context(asynchronous(config, policy, count))
        for workers in (1, cores):
            contestants[f"ours_{workers}"] = stack.enter_context(ours(config, policy, workers))
        for play, _ in contestants.values():
            play(1)
        for number in range(arguments.rounds):
            # Another one begins each time, so that a change of the machine's load meets all alike.
            names = list(contestants)[number % len(contestants) :] + list(contestants)[: number % len(contestants)]
            for name in names:
                play, pids = contestants[name]
                began, cpu_began = time.perf_counter(), cpu_seconds(pids())
                episodes = play(arguments.episodes) / max_episode_steps(config)
                wall.setdefault(name, []).append(60 * episodes / (time.perf_counter() - began))
                cpu.setdefault(name, []).append((cpu_seconds(pids()) - cpu_began) / episodes)
                print(f"{name:9} {wall[name][-1]:7.1f} episodes/min, {cpu[name][-1]:.2f} CPU s an episode", flush=True)
    rates, costs = medians(wall), medians(cpu)
    best_async = max(rate for name, rate in rates.items() if name.startswith("async"))
    ratios = {
        "over_serial": rates[f"ours_{cores}"] / rates["serial"],
        "over_async": rates[f"ours_{cores}"] / best_async,
        "scaling": rates[f"ours_{cores}"] / rates["ours_1"],
        "cpu_of_serial_over_ours": costs["serial"] / costs[f"ours_{cores}"],
        "cpu_of_async_over_ours": min(cost for name, cost in costs.items() if name.startswith("async"))
        / costs[f"ours_{cores}"],
    }
    print(", ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    result = {
        "episodes_per_minute": rates,
        "cpu_seconds_per_episode": costs,
        "ratios": ratios,
        "rounds": wall,
        "settings": {
            "task": config.task,
            "horizon": max_episode_steps(config),
            "execute": EXECUTE,
            "slots": SLOTS,
            "rows_of_async": ROWS,
            "threads": torch.get_num_threads(),
            "rounds": arguments.rounds,
            "episodes": arguments.episodes,
        },
        **provenance("gymnasium", "mujoco", "numpy", "robosuite", "torch", note=arguments.note),
    }
    save_result(result, arguments.out)


if __name__ == "__main__":
    main()
