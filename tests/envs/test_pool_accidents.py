"""Whole evaluations on real workers that are killed, hang, are many or few, or live on a Ray cluster."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from multiprocessing.context import SpawnProcess
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from envs.config import EnvConfig, Variation
from envs.pool.process_worker import StartMethod
from envs.pool.startup import MAX_FAILED_STARTS, wait_for_start
from envs.pool.worker_pool import make_pool
from envs.rendering.egl_devices import EGL_DEVICE_VARIABLE
from envs.third_party.base import SimulatorProcessDied
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError
from pixio_robot.evaluation.rollout import run_episodes

CONFIG = EnvConfig(task="TabletopPush", image_size=32, cameras=["front"], horizon=12, variation=Variation.ALL)
SEEDS = list(range(300, 310))


class Looking:
    """Acts by what it sees, so that a wrong picture shows in the outcome; `at` is called before every step."""

    def __init__(self, at=lambda step: None):
        self.at, self.step, self.seeds, self.seen = at, 0, {}, {}

    def reset(self, slot, seed):
        self.seeds[slot] = seed
        self.seen[seed] = []

    def needs_images(self, slot):
        return True

    def act(self, frames):
        self.at(self.step)
        self.step += 1
        actions = {}
        for slot, frame in frames.items():
            image = frame.images["front"].astype(np.float32)
            self.seen[self.seeds[slot]].append((frame.state.tobytes(), frame.images["front"].tobytes()))
            numbers = np.random.default_rng([self.seeds[slot], int(image.sum())]).uniform(-1, 1, 4)
            actions[slot] = numbers.astype(np.float32)
        return actions


def play(pool, at=lambda step: None):
    actor = Looking(at)
    return run_episodes(pool, actor, SEEDS), actor.seen


@pytest.fixture(scope="module")
def expected():
    with make_pool(CONFIG, 1, 4) as pool:
        results, seen = play(pool)
    assert len({result.steps for result in results}) >= 1
    assert all(result.restarts == 0 for result in results)
    return results, seen


@pytest.mark.parametrize("workers", [2, 4])
def test_more_workers_give_the_same_episodes(expected, workers):
    with make_pool(CONFIG, workers, 4) as pool:
        assert play(pool) == expected


def test_forked_workers_give_the_same_episodes(expected):
    with make_pool(CONFIG, 2, 4, start_method=StartMethod.FORKSERVER) as pool:
        assert play(pool) == expected


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_costs_a_restart_and_changes_nothing(expected, how):
    with make_pool(CONFIG, 2, 4, step_timeout_s=5.0) as pool:
        found, seen = play(pool, lambda step: os.kill(pool.worker_pids[1], how) if step == 5 else None)
        assert pool.restarts == 1
    # Slots 1 and 3 were the worker's, each with an episode under way.
    assert sum(result.restarts for result in found) == 2
    assert [dataclasses.replace(result, restarts=0) for result in found] == expected[0]
    assert seen == expected[1]


def test_a_call_that_ctrl_c_ended_does_not_answer_the_next_one(expected):
    def interrupted(deadline):
        del worker.receive  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with make_pool(CONFIG, 2, 4) as pool:
        pool.reset(dict.fromkeys(range(4), 1), {})
        worker = pool._workers[0]
        worker.receive = interrupted
        with pytest.raises(KeyboardInterrupt):
            pool.step(dict.fromkeys(range(4), np.zeros(4, np.float32)), {})
        assert play(pool) == expected


def test_after_ctrl_c_while_a_worker_is_started_again_the_pool_goes_on_and_can_be_closed(monkeypatch):
    def interrupt(pool):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(SpawnProcess, "start", Mock(side_effect=KeyboardInterrupt))
            pool._workers[0].restart()

    with make_pool(CONFIG, 1, 1) as pool:
        interrupt(pool)
        assert set(pool.reset({0: 0}, {0: False})[0]) == {0}
        interrupt(pool)


def test_a_worker_that_does_not_start_is_tried_again_a_few_times_unless_that_is_hopeless():
    def starts(*answers):
        said, restarts = iter(answers), []
        try:
            wait_for_start(lambda deadline: next(said), lambda: restarts.append(1), "A worker", fatal=("error",))
        except UserError as error:
            return len(restarts), str(error)
        return len(restarts), "ready"

    died = ("died", "it ended (exit code -9)")
    assert starts(died, ("hung", "it did not answer"), ("ok", None)) == (2, "ready")
    assert starts(("error", "no such file")) == (0, "A worker could not start: no such file")
    assert starts(died, ("user_error", "No such task.")) == (1, "No such task.")
    often = MAX_FAILED_STARTS
    words = f"A worker could not start, {often} times: it ended (exit code -9)"
    assert starts(*[died] * often) == (often - 1, words)


def test_a_policy_that_never_looks_needs_no_graphics():
    # No such device exists: whoever makes an OpenGL context fails.
    with make_pool(CONFIG, 1, 1, egl_devices=[99]) as pool:
        frames, _ = pool.reset({0: 1}, {0: False})
        assert frames[0].images == {}
        with pytest.raises(UserError, match=EGL_DEVICE_VARIABLE):
            pool.reset({0: 1}, {0: True})


def test_a_plain_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        "from envs.config import EnvConfig\nfrom envs.pool.worker_pool import make_pool\n"
        "print('the script runs')\n"
        "pool = make_pool(EnvConfig(task='TabletopReach', cameras=[]), 1, 1)\n"
        "print(pool.reset({0: 3}, {})[0][0].state.shape)\npool.close()\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=Path.cwd(), timeout=250)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "the script runs\n(5,)\n"


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_episodes_and_survives_a_death(expected, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with make_pool(CONFIG, 2, 4, executor=Executor.RAY, step_timeout_s=20.0) as pool:
            nodes = {worker._actor._actor_id.hex() for worker in pool._workers}
            assert len(nodes) == 2
            assert signal.getsignal(signal.SIGTERM) is handler  # not Ray's
            pids = pool.worker_pids

            def kill(step):
                if step == 5:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pids[1], signal.SIGKILL)

            found, seen = play(pool, kill)
            assert pool.restarts == 1
        assert sum(result.restarts for result in found) == 2
        assert [dataclasses.replace(result, restarts=0) for result in found] == expected[0]
        assert seen == expected[1]
        assert not ray.is_initialized()
    finally:
        cluster.shutdown()


def test_an_answer_that_ray_has_lost_is_that_of_a_dead_worker(monkeypatch):
    """It is in the memory of a machine that has gone away, or the actor was killed for memory: no RayActorError."""
    ray = pytest.importorskip("ray")
    from envs.pool.ray_worker import RayWorker, _SlotActor

    worker = object.__new__(RayWorker)
    worker._pending = None
    for error in (
        ray.exceptions.ObjectReconstructionFailedError("aa", None, ""),
        ray.exceptions.OutOfMemoryError("killed"),
        ray.exceptions.RayActorError(),
    ):
        monkeypatch.setattr(ray, "get", Mock(side_effect=error))
        assert worker.receive(0.0)[0] == "died"

    class DeadSimulator:
        def serve(self, command, payload):
            raise SimulatorProcessDied("ended with signal 11")

    actor = object.__new__(_SlotActor)
    actor._server = DeadSimulator()
    assert actor.serve("step", {}) == ("died", "ended with signal 11")
