import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.pool.process_worker import THREAD_LIMIT_VARIABLES
from envs.pool.worker_pool import WorkerPool, make_pool
from envs.registry import make_env
from pixio_robot.errors import UserError
from pixio_robot.types import EnvPool, Frame

pytestmark = pytest.mark.sim
CONFIG = EnvConfig(image_size=32)
LIGHT = EnvConfig(task="TabletopReach", image_size=32)
"""Its workers start in a fifth of the time."""


def action(seed, step):
    return np.random.default_rng([seed, step]).uniform(-1, 1, 7)


@pytest.fixture(scope="module")
def pool():
    made = make_pool(CONFIG, num_workers=1, num_slots=2, step_timeout_s=30)
    yield made
    made.close()


@pytest.fixture(scope="module")
def light_pool():
    made = make_pool(LIGHT, num_workers=2, num_slots=3, step_timeout_s=30)
    yield made
    pids = made.worker_pids
    made.close()
    made.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="closed"):
        made.reset({0: 0}, {})


def test_two_threads_that_start_pools_leave_the_process_as_it_was():
    script, limits = sys.modules["__main__"], {name: os.environ.get(name) for name in THREAD_LIMIT_VARIABLES}

    def start(_):
        with make_pool(EnvConfig(task="TabletopReach", cameras=[]), 1, 1) as pool:
            return pool.worker_pids

    with ThreadPoolExecutor(3) as threads:
        assert len({pid for pids in threads.map(start, range(3)) for pid in pids}) == 3
    assert sys.modules["__main__"] is script
    assert {name: os.environ.get(name) for name in THREAD_LIMIT_VARIABLES} == limits


def test_slots_show_what_a_single_environment_shows(pool):
    assert isinstance(pool, EnvPool)
    env = make_env(CONFIG)
    seeds = {0: 10, 1: 11}
    frames, lost = pool.reset(seeds, dict.fromkeys(seeds, True))
    assert not lost
    results = [dict(frames)]
    for step in range(5):
        render = dict.fromkeys(seeds, step % 2 == 0)
        stepped, lost = pool.step({slot: action(seed, step) for slot, seed in seeds.items()}, render)
        assert not lost
        results.append({slot: result.frame for slot, result in stepped.items()})
    for slot, seed in seeds.items():
        alone = [env.reset(seed)] + [env.step(action(seed, step), step % 2 == 0).frame for step in range(5)]
        for mine, theirs in zip([frames[slot] for frames in results], alone, strict=True):
            assert np.array_equal(mine.state, theirs.state)
            assert mine.images.keys() == theirs.images.keys()
            for name in mine.images:
                assert np.array_equal(mine.images[name], theirs.images[name])
    env.close()


def test_frames_stay_as_they_were(pool):
    frames, _ = pool.reset({0: 1}, {0: True})
    before = frames[0].images["hand"].copy()
    pool.reset({0: 2}, {0: True})
    assert np.array_equal(frames[0].images["hand"], before)


def test_a_killed_worker_comes_back_and_its_slots_are_lost(light_pool):
    seeds = {0: 10, 1: 11, 2: 12}
    first, _ = light_pool.reset(seeds, {})
    os.kill(light_pool.worker_pids[0], signal.SIGKILL)
    results, lost = light_pool.step({slot: np.zeros(4) for slot in seeds}, {})
    assert lost == {0, 2}
    assert set(results) == {1}
    again, lost = light_pool.reset({0: 10, 2: 12}, {})
    assert not lost
    for slot in (0, 2):
        assert np.array_equal(again[slot].state, first[slot].state)
        assert np.array_equal(again[slot].images["front"], first[slot].images["front"])


def test_a_hanging_worker_is_replaced(light_pool):
    light_pool.reset({0: 0, 1: 1}, {})
    restarts, timeout = light_pool.restarts, light_pool._timeout
    os.kill(light_pool.worker_pids[1], signal.SIGSTOP)
    light_pool._timeout = 2.0
    try:
        results, lost = light_pool.step({0: np.zeros(4), 1: np.zeros(4)}, {})
    finally:
        light_pool._timeout = timeout
    assert lost == {1}
    assert set(results) == {0}
    assert light_pool.restarts == restarts + 1
    assert not light_pool.reset({1: 1}, {1: False})[1]


def test_a_worker_has_time_to_build_its_environments():
    class Patient:
        """Answers at once, and keeps how long it would have been waited for [s]."""

        def __init__(self, slots):
            self.slots, self.waits, self.ends = slots, [], "ok"

        def wait_until_ready(self): ...

        def restart(self): ...

        def close(self, deadline): ...

        def attach_images(self, slot, frame): ...

        def send(self, command, payload):
            self.asked = payload

        def receive(self, deadline):
            self.waits.append(deadline - time.monotonic())
            return self.ends, dict.fromkeys(self.asked or {}, Frame({}, np.zeros(1)))

    workers = []

    def make(index, slots):
        workers.append(Patient(slots))
        return workers[-1]

    with WorkerPool(CONFIG, 2, 5, 10.0, make) as pool:
        first = workers[0]  # of the slots 0, 2 and 4
        unseen = dict.fromkeys(range(5), False)
        pool.reset({0: 7}, unseen)
        pool.reset(dict.fromkeys(range(5), 7), unseen)
        pool.reset(dict.fromkeys(range(5), 7), unseen)
        first.ends = "hung"
        assert pool.reset({0: 7}, unseen)[1] == {0, 2, 4}
        first.ends = "ok"
        pool.reset(dict.fromkeys(range(5), 7), unseen)
        assert [round(wait / 10) for wait in first.waits] == [1, 2, 1, 1, 3]


def test_exceptions_come_out_with_their_traceback(pool):
    pool.reset({0: 0, 1: 1}, {})
    with pytest.raises(RuntimeError, match=r"envs/mujoco_env\.py(.|\n)*shape"):
        pool.step({0: np.zeros(3), 1: np.zeros(7)}, {})
    results, lost = pool.step({0: np.zeros(7), 1: np.zeros(7)}, {})
    assert set(results) == {0, 1}
    assert not lost


def test_wrong_numbers_are_named():
    for wrong in ({"num_slots": 0}, {"num_workers": -1}, {"step_timeout_s": 0.0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            make_pool(CONFIG, **wrong)


def test_a_worker_that_cannot_start_is_a_user_error(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(UserError, match="libegl1"):
        make_pool(CONFIG, num_slots=1)


@pytest.mark.slow
def test_workers_end_when_the_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\nfrom envs.config import EnvConfig\nfrom envs.pool.worker_pool import make_pool\n"
        "if __name__ == '__main__':\n"
        "    pool = make_pool(EnvConfig(image_size=32), 1, 1)\n"
        "    print(pool.worker_pids[0], flush=True)\n    time.sleep(60)\n"
    )
    expect_worker_to_end(script)


def test_a_worker_that_hangs_ends_when_the_parent_is_killed(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import gymnasium, numpy, os, time\n\nclass Hanging(gymnasium.Env):\n"
        "    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))\n"
        "    metadata = {'render_fps': 5}\n\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        print(os.getpid(), flush=True)\n        time.sleep(1000)\n\n"
        "gymnasium.register('Hanging-v0', Hanging, max_episode_steps=3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    script = tmp_path / "parent.py"
    script.write_text(
        "from envs.config import EnvConfig\nfrom envs.pool.worker_pool import make_pool\n"
        "make_pool(EnvConfig(task='gymnasium:mine:Hanging-v0', cameras=[]), 1, 1).reset({0: 0}, {})\n"
    )
    expect_worker_to_end(script)


def expect_worker_to_end(script: Path) -> None:
    """`script` prints the process id of a worker, which must end when the script is killed."""
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")
