"""Processes that die or hang while they work through a list."""

import pathlib
import subprocess
import sys

import pytest

from envs.pool.parallel_map import ordered_map
from pixio_robot.errors import UserError

WORK = """
import os, pathlib, time

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

def work(item):
    folder, number = item
    mark = pathlib.Path(folder, str(number))
    first = not mark.exists()
    mark.touch()
    if number == "hangs" or (number == "hangs once" and first):
        time.sleep(1000)
    if "dies once" in number and first:
        os._exit(9)
    if number == "returns a lambda":
        return lambda: None
    if number == "raises oddly":
        raise Odd(1, 2)
    if number == "raises":
        raise TimeoutError("of its own")
    return number
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "work_of_the_fanout_test.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    from work_of_the_fanout_test import work  # type: ignore[import-not-found]

    return work


def items(folder: pathlib.Path, *names: str) -> list[tuple[str, str]]:
    return [(str(folder), name) for name in names]


def test_what_hangs_or_dies_is_done_again(work, tmp_path):
    given = items(tmp_path, "a", "hangs once", "b", "dies once", "c")
    assert [result for _, result in ordered_map(work, given, 1, 5)] == [name for _, name in given]


def test_what_always_hangs_ends_in_an_error(work, tmp_path):
    with pytest.raises(UserError, match=r"died 3 times in a row \(no result in 2 seconds\)"):
        list(ordered_map(work, items(tmp_path, "hangs"), 1, 2))


def test_errors_of_the_work_are_its_own(work, tmp_path):
    with pytest.raises(TimeoutError, match="of its own"):
        list(ordered_map(work, items(tmp_path, "raises"), 1, 30))


def test_only_deaths_in_a_row_end_the_work(work, tmp_path):
    given = items(tmp_path, "dies once", "a", "dies once too", "b", "and again dies once", "c")
    assert [result for _, result in ordered_map(work, given, 1, 30)] == [name for _, name in given]


def test_a_result_that_cannot_be_sent_is_an_error(work, tmp_path):
    with pytest.raises(Exception, match="pickle"):
        list(ordered_map(work, items(tmp_path, "returns a lambda"), 1, 30))


def test_an_error_that_cannot_be_sent_is_told(work, tmp_path):
    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        list(ordered_map(work, items(tmp_path, "raises oddly"), 1, 30))


def test_neither_the_time_for_imports_nor_ctrl_c_in_them_counts(tmp_path, monkeypatch):
    (tmp_path / "slow_import_of_the_fanout_test.py").write_text(
        "import multiprocessing, os, signal, time\n"
        "if multiprocessing.parent_process():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(3)\n"
        "def work(item): return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from slow_import_of_the_fanout_test import work  # type: ignore[import-not-found]

    assert list(ordered_map(work, [1], 1, 2)) == [(1, False)]


STOPS = """
import itertools, sys

from envs.pool.parallel_map import ordered_map

def work(item):
    return bytes(64 << 20)

if __name__ == "__main__":
    results = ordered_map(work, itertools.count(), 2, 60)
    next(results)
    results.close()
"""


def test_stopped_in_the_middle_of_a_result_the_program_ends(tmp_path):
    """With one pipe for all processes it did not: the reader waited for the rest of a killed process's result."""
    script = tmp_path / "stops.py"
    script.write_text(STOPS)
    for _ in range(3):
        subprocess.run([sys.executable, script], check=True, timeout=60)


NEVER_CLOSES = """
import itertools, time

from envs.pool.parallel_map import ordered_map

def work(item):
    time.sleep(1000 * item)

if __name__ == "__main__":
    results = ordered_map(work, itertools.count(), 2, 2000)
    next(results)
"""


def test_the_program_ends_though_nobody_closed_the_results(tmp_path):
    script = tmp_path / "never_closes.py"
    script.write_text(NEVER_CLOSES)
    done = subprocess.run([sys.executable, script], check=True, timeout=60, capture_output=True, text=True)
    assert done.stderr == ""
