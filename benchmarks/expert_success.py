"""How often the scripted experts solve their tasks, each on the same seeds, with Wilson 95 % intervals.

    OMP_NUM_THREADS=1 python benchmarks/expert_success.py [--seeds 200] [--tasks Lift ...] [--noise 0.1]
        [--mistakes 0.02] [--robot Sawyer] [--controller osc_pose_absolute] [--out result.json]

The limit to hold against: 95 % for every task, 90 % for NutAssemblySquare. MetaWorld's tasks are played by MetaWorld's
own policies and count success at the last of 500 steps.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from common.result_file import parse_arguments, save_result
from rich.progress import track

from envs.config import Controller, EnvConfig
from envs.experts.disturbance import Disturbance
from envs.recording.episodes import record_expert_episode
from envs.registry import make_env
from pixio_robot.cli.provenance import describe_environment
from pixio_robot.evaluation.statistics import wilson_interval

TASKS = (
    *("TabletopReach", "TabletopPush", "TabletopPick"),
    *("Lift", "Stack", "Door", "PickPlaceCan", "NutAssemblySquare"),
)
FIRST_SEED = 10_000
LIMIT = {"NutAssemblySquare": 0.90}


def measure(config: EnvConfig, disturbance: Disturbance, seeds: int) -> dict[str, Any]:
    env, task = make_env(config), config.task
    began = time.perf_counter()
    episodes = [
        record_expert_episode(env, FIRST_SEED + seed, disturbance) for seed in track(range(seeds), task, transient=True)
    ]
    env.close()
    solved = [episode for episode in episodes if episode.success]
    low, high = wilson_interval(len(solved), seeds)
    return {
        "successes": len(solved),
        "seeds": seeds,
        "interval": [low, high],
        "limit": LIMIT.get(task, 0.95),
        "ratio_to_limit": len(solved) / seeds / LIMIT.get(task, 0.95),
        "failed_seeds": [episode.seed for episode in episodes if not episode.success],
        "median_steps": float(np.median([len(episode) for episode in solved])) if solved else None,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Success of the scripted experts.")
    parser.add_argument("--seeds", type=int, default=200, help="episodes a task, from seed 10000 on")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--robot", default="Panda", help="for robosuite's tasks")
    parser.add_argument("--controller", choices=[c.value for c in Controller], default="osc_pose", help="likewise")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--mistakes", type=float, default=0.0)
    arguments = parse_arguments(parser, note=True)
    disturbance = Disturbance(noise=arguments.noise, mistakes=arguments.mistakes)
    settings = {name: getattr(arguments, name) for name in ("robot", "controller", "noise", "mistakes")}
    result: dict[str, Any] = {"settings": settings, **describe_environment(), "tasks": {}}
    for task in arguments.tasks:
        controller = Controller(arguments.controller)
        config = EnvConfig(task=task, robot=arguments.robot, controller=controller, cameras=[])
        found = measure(config, disturbance, arguments.seeds)
        result["tasks"][task] = found
        low, high = found["interval"]
        print(
            f"{task:20} {found['successes']:4} of {found['seeds']} ({low:.1%} to {high:.1%}), "
            f"ratio to the limit {found['ratio_to_limit']:.2f}, {found['median_steps']:.0f} steps",
            flush=True,
        )
        save_result(result, arguments.out)  # task by task, as hours may pass


if __name__ == "__main__":
    main()
