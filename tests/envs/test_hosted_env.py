"""Environments in a Python of their own: the same episodes, and what happens if that Python fails."""

import ast
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import painted
import pytest

import envs.hosted
from envs.config import EnvConfig
from envs.pool.worker_pool import make_pool
from envs.registry import make_env
from envs.spec import make_env_spec, max_episode_steps
from envs.third_party import hosted as hosted_module
from envs.third_party.base import SimulatorProcessDied
from envs.third_party.reproducibility import is_reproducible
from pixio_robot.errors import UserError
from pixio_robot.evaluation.rollout import run_episodes
from pixio_robot.types import UNSEEDED

DOT, PLAIN, WORLDS = (f"gymnasium:painted:painted/{name}-v0" for name in ("Dot", "Plain", "Worlds"))


def hosted(task=DOT, **settings) -> EnvConfig:
    return EnvConfig(task=task, python=sys.executable, **settings)


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """The other Python finds `painted` as a user's does a module of theirs."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """module(source): the other Python can import it as `mine`; ours cannot."""

    def write(source: str) -> None:
        (tmp_path / "mine.py").write_text(textwrap.dedent(source))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    return write


@pytest.fixture
def made():
    with contextlib.ExitStack() as stack:
        yield lambda config: stack.enter_context(contextlib.closing(make_env(config)))


def play(env, seed):
    """Frames and rewards of some steps, looked at every other time."""
    frame = env.reset(seed)
    yield frame, 0.0
    for number, action in enumerate(np.random.default_rng(seed).uniform(-1, 1, (6, 2))):
        result = env.step(action, render=number % 2 == 0)
        yield result.frame, result.reward


@pytest.mark.parametrize(("task", "make"), [(DOT, {"wind": "global"}), (PLAIN, {})], ids=["dot", "plain"])
def test_episodes_and_spec_are_those_of_our_own_python(made, task, make) -> None:
    there, here = made(hosted(task, make=make)), made(EnvConfig(task=task, make=make))
    assert there.spec == here.spec
    assert max_episode_steps(there.config) == max_episode_steps(here.config) == 40
    for (one, reward), (other, same) in zip(play(there, 4), play(here, 4), strict=True):
        assert reward == same
        assert np.array_equal(one.state, other.state)
        assert one.images.keys() == other.images.keys()
        assert all(np.array_equal(image, other.images[name]) for name, image in one.images.items())
    camera = next(iter(there.spec.cameras))
    assert np.array_equal(there.render(camera), here.render(camera))


@pytest.mark.parametrize("seen", [True, False], ids=["observed", "rendered"])
@pytest.mark.parametrize("python", ["", sys.executable], ids=["ours", "theirs"])
def test_a_batch_of_one_on_a_device_is_played_as_a_single_environment(made, python, seen) -> None:
    batch, single = (made(EnvConfig(task=task, python=python, make={"seen": seen})) for task in (WORLDS, DOT))
    assert (batch.spec.state_names, batch.spec.cameras) == (single.spec.state_names, single.spec.cameras)
    assert (batch.spec.robot, batch.spec.controller, batch.spec.control_hz) == ("dot", "delta", 10)
    for (one, reward), (other, same) in zip(play(batch, 4), play(single, 4), strict=True):
        assert reward == same
        assert np.array_equal(one.state, other.state)
        assert one.images.keys() == other.images.keys()
        assert all(np.array_equal(image, other.images[name]) for name, image in one.images.items())
    with pytest.raises(UserError, match=r"simulates 3 worlds at once.*num_envs=1"):
        make_env_spec(EnvConfig(task=WORLDS, python=python, make={"num_envs": 3}))


@pytest.mark.parametrize("python", ["", sys.executable], ids=["ours", "theirs"])
@pytest.mark.parametrize(("key", "counts"), [("is_success", True), ("solved", True), ("done", False)])
def test_success_has_several_names(made, python, key, counts) -> None:
    env = made(EnvConfig(task=DOT, python=python, make={"reports": key}, cameras=[]))
    state = env.reset(4).state
    while not (result := env.step((state[2:] - state[:2]) / painted.SPEED)).done:
        assert not result.success
        state = result.frame.state
    assert result.success == counts


@pytest.mark.slow
def test_evaluations_on_it_are_the_same_and_repeat() -> None:
    class Still:
        def reset(self, slot, seed): ...

        def needs_images(self, slot):
            return True

        def act(self, frames):
            return {slot: frame.images["pixels_top"][0, 0, :2] / 255 for slot, frame in frames.items()}

    results = []
    for config in (hosted(horizon=8), EnvConfig(task=DOT, horizon=8)):
        with make_pool(config, 1, 2) as pool:
            results.append(run_episodes(pool, Still(), [5, 6, 7]))
    there, here = ([(result.seed, result.steps, result.episode_return) for result in each] for each in results)
    assert there == here
    assert is_reproducible(hosted())


SPOKEN = """
    import gymnasium, numpy as np

    class Spoken(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))
        metadata = {"render_fps": 5, "state_names": ["x [m]", "drawn [1]"], "action_names": ["push [N]"],
                    "instruction": "push it", "robot": "Pusher", "controller": "force", "packages": ["numpy"],
                    "pictures": {"top": [8, 6]}, "of no use elsewhere": object()}
        drawn = 0

        def reset(self, *, seed=None, options=None):
            print("prints do not disturb")
            self.at = 0.0
            return self.seen(), {}

        def step(self, action):
            self.at += float(action[0])
            if self.at > 5: raise KeyError("too far")
            return self.seen(), 1.0, False, False, {"success": self.at > 1}

        def seen(self):
            return np.array([self.at, self.drawn], np.float32)

        def pictures(self):
            self.drawn += 1
            return {"top": np.full((8, 6, 3), self.drawn, np.uint8)}

    gymnasium.register("Spoken-v0", Spoken, max_episode_steps=30)
"""


def test_what_it_says_of_itself_is_in_the_spec_and_pictures_are_drawn_on_demand(made, module) -> None:
    module(SPOKEN)
    env = made(hosted("gymnasium:mine:Spoken-v0"))
    spec = env.spec
    assert (spec.task, spec.robot, spec.controller, spec.control_hz) == ("push it", "Pusher", "force", 5)
    assert (spec.state_names, spec.action_names) == (("x [m]", "drawn [1]"), ("push [N]",))
    assert (spec.cameras["top"].height, spec.cameras["top"].width) == (8, 6)
    assert spec.simulator_version.startswith(f"numpy {np.__version__}, gymnasium ")
    assert "gymnasium:mine:Spoken-v0" in spec.source
    assert max_episode_steps(env.config) == 30
    assert env.reset(0).images["top"][0, 0, 0] == 1
    result = env.step(np.ones(1), render=False)
    assert not result.frame.images
    result = env.step(np.ones(1))
    assert result.frame.state.tolist() == [2, 1]
    assert result.frame.images["top"][0, 0, 0] == 2
    assert result.success
    with pytest.raises(RuntimeError, match=r"KeyError: .too far"):
        for _ in range(9):
            env.step(np.ones(1))


MIXED = """
    import gymnasium, numpy as np
    from gymnasium import spaces as s

    class Mixed(gymnasium.Env):
        observation_space = s.Dict({
            "one": s.Discrete(3, start=2), "more": s.MultiDiscrete([2, 3], start=[5, 6]), "flags": s.MultiBinary(2),
            "pair": s.Tuple([s.Box(-1, 1, (1,), np.float64), s.Discrete(2)]), "text": s.Text(5),
        })
        action_space = s.Box(-1, 1, (1,))
        metadata = {"render_fps": 5, "packages": ["numpy"]}

        def reset(self, *, seed=None, options=None):
            flags = np.array([0, 1], np.int8)
            return {"one": 3, "more": np.array([5, 8]), "flags": flags, "pair": (np.array([0.5]), 1), "text": "no"}, {}

    gymnasium.register("Mixed-v0", Mixed, max_episode_steps=30, nondeterministic=True)
"""


def test_spaces_of_every_kind_reach_us(made, module) -> None:
    module(MIXED)
    env = made(hosted("gymnasium:mine:Mixed-v0", cameras=[]))
    values = {"flags": [0, 1], "more": [1, 0, 0, 0, 1], "one": [0, 1, 0], "pair_0": [0.5], "pair_1": [0, 1]}
    expected = [(f"{part}.{index} [?]", value) for part, of in values.items() for index, value in enumerate(of)]
    assert list(zip(env.spec.state_names, env.reset(0, False).state, strict=True)) == expected
    assert UNSEEDED in env.spec.source


def test_names_must_match_its_spaces(module) -> None:
    module(SPOKEN.replace('["push [N]"]', '["push [N]", "pull [N]"]'))
    with pytest.raises(UserError, match=r"metadata\['action_names'\] .* 2 names, but there are 1"):
        make_env_spec(hosted("gymnasium:mine:Spoken-v0", horizon=3))


OLD = """
    import sys, types
    import numpy as np
    from gymnasium import spaces

    class Old:  # the interface of gym before 0.22: a seed by itself, one end, and no information on reset
        observation_space = action_space = spaces.Box(-1, 1, (1,))
        metadata = {"packages": ["numpy"]}
        def seed(self, seed): self.start = seed / 100
        def reset(self): self.at = self.start; return np.array([self.at])
        def step(self, action): self.at += action[0]; return np.array([self.at]), 1.0, self.at > 1, {}
        def close(self): pass

    Old.unwrapped = property(lambda self: self)
    Old.spec = types.SimpleNamespace(max_episode_steps=17)

    def spec(name):
        if name != "Old-v0": raise KeyError(name)

    def make(name, **options):  # older versions do not know disable_env_checker and max_episode_steps
        assert not options, options
        return Old()

    class Layer:
        def __init__(self, env): self.env = env
        def __getattr__(self, name): return getattr(self.env, name)

    class TimeLimit(Layer):
        def __init__(self, env, max_episode_steps):
            self.env, self._max_episode_steps, self.steps = env, max_episode_steps, 0
        def step(self, action):
            self.steps += 1
            observation, reward, over, info = self.env.step(action)
            return observation, reward, over or self.steps >= self._max_episode_steps, info

    sys.modules["gym.wrappers"] = types.SimpleNamespace(TimeLimit=TimeLimit)
    sys.modules["gym"] = types.SimpleNamespace(__name__="gym", spec=spec, make=make)
"""


@pytest.mark.parametrize("limited", [False, True])
def test_environments_of_the_old_gym(made, module, limited) -> None:
    """`limited`: `make` wraps it in its own limit, which is not at the top."""
    module(OLD.replace("return Old()", "return Layer(TimeLimit(Old(), 17))") if limited else OLD)
    env = made(hosted("gymnasium:mine:Old-v0", cameras=[]))
    assert max_episode_steps(env.config) == 17
    assert env.reset(7, False).state == pytest.approx([0.07])
    assert not env.step(np.full(1, 0.5), False).done
    result = env.step(np.full(1, 0.5), False)
    assert result.done
    assert not result.success
    for horizon in (2, 19):
        other = made(hosted("gymnasium:mine:Old-v0", cameras=[], horizon=horizon))
        other.reset(7, False)
        dones = [other.step(np.zeros(1), False).done for _ in range(horizon)]
        assert dones == [False] * (horizon - 1) + [True]


CARELESS = """
    import gymnasium, numpy as np

    class Careless(gymnasium.Env):
        observation_space = action_space = gymnasium.spaces.Box(-9, 9, (2,))
        metadata = {"render_fps": 5, "packages": ["numpy"]}

        def __init__(self): self.drawn = np.random.normal(size=2)

        def reset(self, *, seed=None, options=None): return self.drawn, {}

        def step(self, action):
            action *= 2
            return action, 1.0, False, action[0] > 1, {}

    gymnasium.register("Careless-v0", Careless, max_episode_steps=3)
"""


def test_an_environment_may_draw_when_made_write_into_actions_and_end_early(made, module) -> None:
    module(CARELESS)
    one, other = (made(hosted("gymnasium:mine:Careless-v0", cameras=[])) for _ in range(2))
    assert one.reset(0, False).state.tolist() == other.reset(0, False).state.tolist()
    for pushed in (0.25, 1.0):
        result = one.step(np.full(2, pushed), False)
        assert (result.frame.state.tolist(), result.done) == ([2 * pushed] * 2, pushed > 0.5)


DYING = """
    import gymnasium, numpy as np, os, pathlib, signal, sys

    class Dying(gymnasium.Env):
        observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))
        metadata = {"render_fps": 5, "packages": ["numpy"]}

        def __init__(self, mark): self.mark = pathlib.Path(mark)

        def reset(self, *, seed=None, options=None):
            self.seed = seed
            return np.zeros(1), {}

        def step(self, action):
            if self.seed == 2 and not self.mark.exists():
                self.mark.touch()
                print("the last words", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            return np.zeros(1), 1.0, False, False, {}

    gymnasium.register("Dying-v0", Dying, max_episode_steps=3)
"""


@pytest.mark.slow
def test_an_episode_is_played_again_if_its_python_dies(module, tmp_path) -> None:
    class Still:
        def reset(self, slot, seed): ...

        def needs_images(self, slot):
            return False

        def act(self, frames):
            return {slot: np.zeros(1, np.float32) for slot in frames}

    module(DYING)
    config = hosted("gymnasium:mine:Dying-v0", cameras=[], make={"mark": str(tmp_path / "mark")})
    env = make_env(config)
    env.reset(2, False)
    with pytest.raises(SimulatorProcessDied, match=r"ended with signal 11\. It printed:[\s\S]*the last words"):
        env.step(np.zeros(1), False)
    env.close()
    (tmp_path / "mark").unlink()
    with make_pool(config, 1, 1) as pool:
        results = run_episodes(pool, Still(), [1, 2, 3])
    assert [(result.seed, result.steps) for result in results] == [(1, 3), (2, 3), (3, 3)]
    assert sum(result.restarts for result in results) == 1


WAITING = """
    import gymnasium, numpy as np, os, signal, time

    class Waiting(gymnasium.Env):
        observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))
        metadata = {"render_fps": 5, "packages": ["numpy"]}

        def reset(self, *, seed=None, options=None): return np.zeros(1), {}

        def step(self, action):
            if action[0] > 0:
                os.system("sleep 100 &")  # has our pipes
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(1000)

        def close(self): time.sleep(1000)

    gymnasium.register("Waiting-v0", Waiting, max_episode_steps=3)
"""


@pytest.fixture
def waiting(made, module, monkeypatch):
    monkeypatch.setattr(hosted_module, "_CLOSE_TIMEOUT_S", 0.1)
    module(WAITING)
    env = made(hosted("gymnasium:mine:Waiting-v0", cameras=[]))
    env.reset(0, False)
    return env


def test_a_call_that_ctrl_c_ends_does_not_answer_the_next_one(waiting) -> None:
    # A shell without job control starts background commands, such as these tests, with the signal ignored.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            waiting.step(np.array([-1.0]), False)
    finally:
        signal.signal(signal.SIGINT, earlier)
    with pytest.raises(SimulatorProcessDied):
        waiting.reset(0, False)


def test_ctrl_c_which_reaches_all_processes_is_for_us(made, module) -> None:
    module(DYING.replace("self.seed = seed", "os.kill(os.getpid(), signal.SIGINT)"))
    env = made(hosted("gymnasium:mine:Dying-v0", cameras=[], make={"mark": "-"}))
    assert env.reset(0, False).state.tolist() == [0]


def test_its_death_is_noticed_though_what_it_started_lives_on(waiting) -> None:
    with pytest.raises(SimulatorProcessDied, match="signal 9"):
        waiting.step(np.array([1.0]), False)


def test_an_environment_that_hangs_when_it_is_closed_is_killed(waiting) -> None:
    waiting.close()
    with pytest.raises(RuntimeError, match="This environment was closed"):
        waiting.reset(0, False)


def test_only_the_end_of_what_it_printed_is_read(made, module, monkeypatch) -> None:
    monkeypatch.setattr(hosted_module, "_LAST_OUTPUT_BYTES", 8)
    module(DYING.replace("self.seed = seed", "print('long ago, the last words', flush=True); os._exit(3)"))
    env = made(hosted("gymnasium:mine:Dying-v0", cameras=[], make={"mark": "-"}))
    with pytest.raises(SimulatorProcessDied, match=r"exit code 3\. It printed:\nt words$"):
        env.reset(0, False)


def running() -> str:
    """The processes that we have started."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_what_cannot_be_made_is_said(module, tmp_path) -> None:
    before = running()
    module("import nothing_of_that_name")
    with pytest.raises(UserError, match=r"cannot make the environment: ModuleNotFoundError.*nothing_of_that_name"):
        make_env_spec(hosted("gymnasium:mine:Some-v0"))
    with pytest.raises(UserError, match="cannot make the environment: NameNotFound"):
        make_env_spec(hosted("gymnasium:painted:painted/Dost-v0"))
    with pytest.raises(UserError, match=r"cannot make the environment: TypeError.*colour"):
        make_env_spec(hosted(make={"colour": 1}))
    with pytest.raises(UserError, match="is not a program that can be run"):
        EnvConfig(task=DOT, python=str(tmp_path / "python"))
    with pytest.raises(UserError, match="python applies only to Gymnasium"):
        EnvConfig(task="Lift", python=sys.executable)
    with pytest.raises(UserError, match=r"task=libero:libero_goal/3 needs python="):
        EnvConfig(task="libero:libero_goal/3")
    ended = tmp_path / "ends"
    ended.write_text("#!/bin/sh\nseq 20\necho no Python here\nexit 3\n")
    ended.chmod(0o755)
    with pytest.raises(UserError, match=r"exit code 3\. It printed:\n10\n[\s\S]*\nno Python here$"):
        make_env_spec(EnvConfig(task=DOT, python=str(ended)))
    assert running() == before


def test_it_outlives_the_thread_that_made_it(made, module) -> None:
    module(DYING)
    config = hosted("gymnasium:mine:Dying-v0", cameras=[], make={"mark": "-"})
    with ThreadPoolExecutor(1) as executor:
        env = executor.submit(made, config).result()
    time.sleep(0.2)  # for the kernel
    assert env.reset(0, False).state.tolist() == [0]


@pytest.mark.slow
def test_it_dies_with_us(module, tmp_path) -> None:
    """Also if we are killed while it simulates and does not listen."""
    module(
        DYING.replace("return np.zeros(1), {}", "self.mark.write_text(str(os.getpid())); import time; time.sleep(600)")
    )
    mark = tmp_path / "mark"
    config = {"task": "gymnasium:mine:Dying-v0", "python": sys.executable, "cameras": [], "make": {"mark": str(mark)}}
    code = "from envs.config import EnvConfig; from envs.registry import make_env; "
    code += f"make_env(EnvConfig(**{config!r})).reset(0)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    while not (mark.exists() and mark.read_text()):
        assert process.poll() is None
    other = int(mark.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text().split(")")[1][:3]:
        pass


@pytest.mark.parametrize("path", sorted(Path(envs.hosted.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_it_runs_on_old_pythons(path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))
    assert "pixio_robot" not in path.read_text().replace("pixio-robot", "")
