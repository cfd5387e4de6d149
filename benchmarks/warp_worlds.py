"""World steps a second with pictures: the tabletop tasks in MuJoCo Warp against MuJoCo with OpenGL on one core.

    OMP_NUM_THREADS=1 LP_NUM_THREADS=1 python benchmarks/warp_worlds.py [--worlds 64 256] [--task TabletopPick]
        [--out result.json]

The contestants take turns: `mujoco` is `make_env(...).step` with pictures, one environment on one core; `warp` is a
WarpPool of that many worlds, pictures copied to the host as a policy's frames are; `warp bare` leaves out the pool:
physics and pictures stay on the device. On a GPU give thousands of worlds (`--worlds 1024 4096`); without one Warp runs
its kernels on one core, which says whether the path costs anything and nothing about a GPU. Wall-clock time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common.result_file import measured_settings, parse_arguments, save_result
from common.timing import measure_alternating, medians

from envs.config import Engine, EnvConfig
from envs.registry import make_env
from envs.warp.pool import WarpPool
from envs.warp.worlds import load_warp
from pixio_robot.cli.provenance import describe_environment

FOREVER = 10**9


def one_environment(task: str, size: int) -> Callable[[], int]:
    env = make_env(EnvConfig(task=task, image_size=size, horizon=FOREVER))
    env.reset(0)
    rng = np.random.default_rng(0)

    def step() -> int:
        for _ in range(16):
            if env.step(rng.uniform(-0.3, 0.3, 4)).done:
                env.reset(0)
        return 16

    return step


def many_worlds(task: str, size: int, worlds: int) -> dict[str, Callable[[], int]]:
    pool = WarpPool(EnvConfig(task=task, engine=Engine.WARP, image_size=size, horizon=FOREVER), worlds)
    pool.reset({slot: slot for slot in range(worlds)}, {})
    rng = np.random.default_rng(0)

    def with_pool() -> int:
        actions = rng.uniform(-0.3, 0.3, (worlds, 4)).astype(np.float32)
        results, _ = pool.step(dict(enumerate(actions)), {})
        again = {slot: slot for slot, result in results.items() if result.done}
        if again:
            pool.reset(again, {})
        return worlds

    def bare() -> int:
        inside: Any = pool.worlds
        with inside._on_device():
            inside._step_worlds()
            inside._draw_worlds()
            inside._warp.synchronize()
        return worlds

    return {f"warp {worlds}": with_pool, f"warp {worlds} bare": bare}


def measure(contestants: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Median world steps a second."""

    def rate(name: str, _: int) -> float:
        began = time.perf_counter()
        done = contestants[name]()
        return done / (time.perf_counter() - began)

    return medians(measure_alternating(contestants, rate, rounds, warm_up=1))


def main() -> None:
    parser = argparse.ArgumentParser(description="World steps a second with pictures.")
    parser.add_argument("--worlds", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--task", default="TabletopPick")
    parser.add_argument("--size", type=int, default=64, help="of the images in pixels; two cameras")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parse_arguments(parser, note=True)
    contestants = {"mujoco": one_environment(arguments.task, arguments.size)}
    for worlds in arguments.worlds:
        contestants |= many_worlds(arguments.task, arguments.size, worlds)
    rates = measure(contestants, arguments.rounds)
    ratios = {name: rate / rates["mujoco"] for name, rate in rates.items() if name != "mujoco"}
    warp, _ = load_warp()
    device = warp.get_device().name
    for name, rate in rates.items():
        print(f"{name:16} {rate:9.0f} world steps/s" + (f", ratio {ratios[name]:.2f}" if name in ratios else ""))
    print(f"device of warp: {device}")
    described = describe_environment()
    described["versions"] |= {"warp-lang": warp.__version__}
    result = {
        "world_steps_per_second": rates,
        "ratio": ratios,
        "warp_device": device,
        "settings": measured_settings(arguments),
    }
    save_result(result | described, arguments.out)


if __name__ == "__main__":
    main()
