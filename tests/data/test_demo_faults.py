"""Writers that are killed, run side by side, or meet a full disk: committed episodes stay whole."""

import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from demo_data import make_episode, make_store, same

from pixio_robot.data.demo_verify import verify
from pixio_robot.data.demos import DemoStore

HERE = Path(__file__).parent

APPEND_FOREVER = """
import sys
sys.path.insert(0, {here!r})
from demo_data import make_episode
from pixio_robot.data.demos import DemoStore
store = DemoStore.open({path!r})
print("ready", flush=True)
for seed in range({first}, {stop}):
    store.append(make_episode(seed))
"""


def writer(path: Path, first: int, stop: int = 10**9) -> subprocess.Popen:
    code = textwrap.dedent(APPEND_FOREVER.format(here=str(HERE), path=str(path), first=first, stop=stop))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def check_whole(path: Path) -> DemoStore:
    store = DemoStore.open(path)
    assert verify(store) == []
    assert all(same(store.episode(number), make_episode(store.seeds[number])) for number in range(len(store)))
    return store


@pytest.mark.slow
def test_killed_writers_leave_whole_episodes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    make_store(path, episodes=1)
    rng = random.Random(0)
    for kill in range(12):
        process = writer(path, first=1000 * (kill + 1))
        time.sleep(rng.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = check_whole(path)
        before = len(store)
        assert store.append(make_episode(kill)) == before
    assert len(check_whole(path)) > 12
    assert not list((path / "episodes").glob(".tmp-*"))


@pytest.mark.slow
def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    make_store(path, episodes=0)
    processes = [writer(path, first=100 * number, stop=100 * number + 15) for number in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert sorted(check_whole(path).seeds) == sorted(100 * number + i for number in range(3) for i in range(15))


def test_a_full_disk_is_explained_and_costs_one_episode(tmp_path: Path) -> None:
    path = tmp_path / "s"
    make_store(path, episodes=2)
    code = f"""
        import resource, signal, sys
        sys.path.insert(0, {str(HERE)!r})
        from demo_data import make_episode
        from pixio_robot.data.demos import DemoStore
        from pixio_robot.errors import UserError
        store = DemoStore.open({str(path)!r})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        try:
            store.append(make_episode(7, length=40))
        except UserError as error:
            assert "No space left" in str(error), error
            sys.exit(7)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == 7
    store = check_whole(path)
    assert len(store) == 2
    assert store.append(make_episode(7)) == 2
