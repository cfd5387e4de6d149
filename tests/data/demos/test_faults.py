"""Writers that are killed, run side by side, or meet a full disk: committed episodes stay whole."""

import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.data.demos.atomic_commit import STAGING
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.files import staging_directory

HERE = Path(__file__).parents[1]

APPEND_FOREVER = """
import sys
sys.path.insert(0, {here!r})
from demo_data import make_episode
from pixio_robot.data.demos.store import DemoStore
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
    assert verify_store(store) == []
    assert all(same(store.episode(number), make_episode(store.seeds[number])) for number in range(len(store)))
    return store


KILLED_AT_ONCE = """
import itertools, os, signal, sys, time
sys.path.insert(0, {here!r})
from demo_data import make_episode
from pixio_robot.data.demos.store import DemoStore
# Forked, because a kill shall cost milliseconds and not an import of everything.
for kill in range({kills}):
    done, committed = os.pipe()
    child = os.fork()
    if child == 0:
        store = DemoStore.open({path!r})
        for seed in itertools.count(1000 * (kill + 1)):
            store.append(make_episode(seed))
            os.write(committed, b".")
    # After 0, 1 or 2 episodes, however busy the machine is, and then somewhere within the next ones.
    for _ in range(kill % 3):
        os.read(done, 1)
    time.sleep(0.06 * (kill * 0.6180339887 % 1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(done), os.close(committed)
    DemoStore.open({path!r})
"""


@pytest.mark.slow
def test_killed_writers_leave_whole_episodes(tmp_path: Path) -> None:
    path, kills = tmp_path / "s", 200
    make_store(path, episodes=1)
    code = KILLED_AT_ONCE.format(here=str(HERE), path=str(path), kills=kills)
    subprocess.run([sys.executable, "-c", code], check=True)
    store = check_whole(path)
    # Of every writer a beginning without gaps: what it appended before it was killed.
    for kill in range(kills):
        mine = [seed for seed in store.seeds if seed // 1000 == kill + 1]
        assert mine == list(range(1000 * (kill + 1), 1000 * (kill + 1) + len(mine)))
    assert len(store) >= 1 + kills
    before = len(store)
    assert store.append(make_episode(7)) == before
    assert not list((path / "episodes").glob(".tmp-*"))
    check_whole(path)


def test_a_killed_writer_is_swept_by_the_next_and_a_living_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = make_store(path, episodes=1)
    process = writer(path, first=1000)
    # Until it is in the middle of an episode.
    while not (dead := list((path / "episodes").glob(".tmp-*/episode"))):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    with staging_directory(path / "episodes", STAGING) as living:
        (living / "half").touch()
        store.append(make_episode(1))
        assert (living / "half").exists()
        assert not any(leftover.exists() for leftover in dead)
    assert not list((path / "episodes").glob(".tmp-*"))
    check_whole(path)


def test_leftovers_of_others_are_let_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=0)
    (tmp_path / "s" / "episodes" / ".tmp-somebody").mkdir()
    (tmp_path / "s" / "episodes" / ".DS_Store").touch()
    assert store.append(make_episode(0)) == 0
    assert (tmp_path / "s" / "episodes" / ".tmp-somebody").exists()
    assert len(DemoStore.open(tmp_path / "s")) == 1


def test_threads_side_by_side_lose_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=0)

    def write(first: int) -> None:
        store = DemoStore.create(tmp_path / "s", SPEC, exist_ok=True)
        for seed in range(first, first + 4):
            store.append(make_episode(seed))

    threads = [threading.Thread(target=write, args=(100 * number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(check_whole(tmp_path / "s").seeds) == [100 * number + i for number in range(3) for i in range(4)]


def test_creating_at_the_same_time_makes_one_store(tmp_path: Path) -> None:
    for attempt in range(5):
        path = tmp_path / "deep" / str(attempt)
        barrier = threading.Barrier(3)
        failures: list[BaseException] = []

        def create(seed: int, path: Path = path, barrier=barrier, failures=failures) -> None:
            barrier.wait()
            try:
                DemoStore.create(path, SPEC, exist_ok=True).append(make_episode(seed))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=create, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert sorted(check_whole(path).seeds) == [0, 1, 2]


def test_a_copy_of_a_store_is_a_store(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    assert check_whole(tmp_path / "copy").append(make_episode(5)) == 4


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
        from pixio_robot.data.demos.store import DemoStore
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
    assert not list((path / "episodes").glob(".tmp-*"))
    assert store.append(make_episode(7)) == 2
