"""Control steps a second: our robosuite tasks against robosuite itself, and the tabletop tasks against bare MuJoCo.

    OMP_NUM_THREADS=1 LP_NUM_THREADS=1 python benchmarks/env_steps.py [--rounds 5] [--steps 60] [--out result.json]

Those of a task take turns, each in a process of its own, with the same actions. The rate counts CPU seconds, so that it
means the same on a busy machine. `robosuite` is `robosuite.make(...).step` with the same task, robot, controller,
cameras and image size, as its own examples use it; ours FULL draws the light's shadows too, which robosuite's scene has
not, and FAST is the default. `mujoco` is mj_step alone, as often as the tabletop task calls it, and our renderer alone
for the same two pictures: what no environment can exceed. Overhead is the share of time by which ours takes longer.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from common.result_file import measured_settings, parse_arguments, save_result
from common.timing import measure_alternating, medians

from envs.config import CAMERAS, PHYSICS_HZ, EnvConfig, RenderQuality
from envs.registry import make_env
from envs.simulator_imports import load_robosuite
from envs.tasks import Simulator
from pixio_robot.cli.provenance import describe_environment

ROBOSUITE_CAMERAS = ["agentview", "robot0_eye_in_hand"]
OURS = ["agentview", "hand"]
FOREVER = 10**9
ROBOSUITE_TASKS = ("Lift", "NutAssemblySquare")
TABLETOP_TASKS = ("TabletopReach", "TabletopPush", "TabletopPick")

Step = Callable[[np.ndarray], Sequence[np.ndarray]]
"""One control step with an action; the images it drew."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """implementation: `ours`, `robosuite` or `mujoco`. quality is for ours; None draws nothing."""

    task: str
    implementation: str
    size: int
    quality: RenderQuality | None

    def __str__(self) -> str:
        drawn = "blind" if self.quality is None else "images"
        return " ".join(
            [
                self.task,
                self.implementation,
                drawn,
                *([self.quality.name] if self.implementation == "ours" and self.quality else []),
            ]
        )

    @property
    def action_dim(self) -> int:
        return 7 if self.task in ROBOSUITE_TASKS else 4

    def start(self) -> Step:
        return {"ours": _ours, "robosuite": _robosuite, "mujoco": _mujoco}[self.implementation](self)


def _environment(contestant: Contestant) -> Any:
    cameras = OURS if contestant.task in ROBOSUITE_TASKS else ["front", "hand"]
    quality = contestant.quality or RenderQuality.FAST
    return make_env(
        EnvConfig(
            task=contestant.task,
            cameras=cameras,
            image_size=contestant.size,
            render_quality=quality,
            horizon=FOREVER,
        )
    )


def _ours(contestant: Contestant) -> Step:
    env, seeds, render = _environment(contestant), itertools.count(), contestant.quality is not None
    env.reset(next(seeds))

    def step(action: np.ndarray) -> Sequence[np.ndarray]:
        result = env.step(action, render)
        if result.done:
            env.reset(next(seeds), render)
        return list(result.frame.images.values())

    return step


def _robosuite(contestant: Contestant) -> Step:
    robosuite, render, size = load_robosuite(), contestant.quality is not None, contestant.size
    cameras = {"camera_names": ROBOSUITE_CAMERAS, "camera_heights": size, "camera_widths": size} if render else {}
    env = robosuite.make(
        contestant.task,
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=render,
        use_camera_obs=render,
        use_object_obs=False,
        control_freq=20,
        ignore_done=True,
        **cameras,
    )
    env.reset()

    def step(action: np.ndarray) -> Sequence[np.ndarray]:
        observation = env.step(action)[0]
        return [observation[f"{name}_image"] for name in ROBOSUITE_CAMERAS] if render else []

    return step


def _mujoco(contestant: Contestant) -> Step:
    """The physics and pictures of a tabletop environment without the environment."""
    import mujoco

    env = _environment(contestant)
    env.reset(0)
    substeps = PHYSICS_HZ[Simulator.TABLETOP] // env.config.control_hz

    def step(action: np.ndarray) -> Sequence[np.ndarray]:
        del action
        mujoco.mj_step(env._model, env._data, substeps)
        drawn = env.config.cameras if contestant.quality else []
        return [env._renderer.render(CAMERAS[camera]) for camera in drawn]

    return step


def race(contestant: Contestant, steps: int, connection: Connection) -> None:
    """In a process of its own: a round whenever told to, answered with milliseconds of CPU a step."""
    step = contestant.start()
    for round_ in iter(connection.recv, None):
        rng = np.random.default_rng(round_)
        width = contestant.action_dim - 1
        actions = [np.append(rng.normal(0, 0.3, width), -1.0).clip(-1, 1) for _ in range(steps)]
        began, images = time.process_time(), []
        for action in actions:
            images = step(action)
        connection.send(1000 * (time.process_time() - began) / steps)
        if len(images) != (2 if contestant.quality else 0) or any(image.std() < 5 for image in images):
            raise RuntimeError(f"{contestant} did not draw two pictures.")


def measure(racers: Sequence[Contestant], rounds: int, steps: int) -> dict[str, float]:
    """Median milliseconds of CPU a step; the racers take turns."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for racer in racers:
        pipes[str(racer)], theirs = spawn.Pipe()
        spawn.Process(target=race, args=(racer, steps, theirs), daemon=True).start()
        theirs.close()

    def cost(name: str, round_: int) -> float:
        pipes[name].send(round_)
        return pipes[name].recv()

    found = measure_alternating(pipes, cost, rounds, warm_up=1)
    for pipe in pipes.values():
        pipe.send(None)
    return medians(found)


def contestants(task: str, size: int) -> list[Contestant]:
    """Those that run against each other."""
    full, fast = RenderQuality.FULL, RenderQuality.FAST
    entries = [("mujoco", None), ("ours", None), ("mujoco", fast), ("ours", fast)]
    if task in ROBOSUITE_TASKS:
        entries = [("robosuite", None), ("ours", None), ("robosuite", full), ("ours", full), ("ours", fast)]
    return [Contestant(task, who, size, quality) for who, quality in entries]


def compare(task: str, cost: dict[str, float]) -> dict[str, float]:
    """Time of ours over time of the other."""
    other = "robosuite" if task in ROBOSUITE_TASKS else "mujoco"
    ratios = {f"{task} blind": cost[f"{task} ours blind"] / cost[f"{task} {other} blind"]}
    for quality in RenderQuality:
        if (mine := f"{task} ours images {quality.name}") in cost:
            ratios[f"{task} images {quality.name}"] = cost[mine] / cost[f"{task} {other} images"]
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description="Control steps a second.")
    parser.add_argument(
        "--tasks", nargs="+", choices=ROBOSUITE_TASKS + TABLETOP_TASKS, default=["Lift", *TABLETOP_TASKS]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="a round")
    parser.add_argument("--size", type=int, default=96, help="of robosuite's images in pixels; two cameras")
    parser.add_argument("--table-size", type=int, default=64, help="of the tabletop's images in pixels; two cameras")
    arguments = parse_arguments(parser, note=True)
    cost: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for task in arguments.tasks:
        size = arguments.size if task in ROBOSUITE_TASKS else arguments.table_size
        found = measure(contestants(task, size), arguments.rounds, arguments.steps)
        cost |= found
        ratios |= compare(task, found)
    for name, milliseconds in cost.items():
        print(f"{name:36} {1000 / milliseconds:8.0f} steps/s on one core")
    for name, ratio in ratios.items():
        other = "mujoco" if name.startswith("Tabletop") else "robosuite"
        print(f"{name:36} time of ours over {other} {ratio:.2f} (overhead {ratio - 1:+.0%})")
    rates = {name: 1000 / milliseconds for name, milliseconds in cost.items()}
    result = {"steps_per_cpu_second": rates, "time_ratio": ratios, "settings": measured_settings(arguments)}
    save_result(result | describe_environment(), arguments.out)


if __name__ == "__main__":
    main()
