"""Processes that die or hang while they work through a list."""

import pathlib
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from envs.pool import parallel_map
from envs.pool.parallel_map import ordered_map
from pixio_robot.errors import UserError

WORK = """
import os, pathlib, time

def work(item):
    folder, number = item
    mark = pathlib.Path(folder, str(number))
    first = not mark.exists()
    mark.touch()
    if number == "hangs" or (number == "hangs once" and first):
        time.sleep(1000)
    if number == "dies once" and first:
        os._exit(9)
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


class Inline:
    """An executor that works in this process, in which a process may die all the same."""

    _processes = None

    def submit(self, function, item):
        future = Future()
        try:
            future.set_result(function(item))
        except BrokenProcessPool as error:
            future.set_exception(error)
        return future

    def shutdown(self, **how): ...


def test_only_deaths_in_a_row_end_the_work(monkeypatch):
    monkeypatch.setattr(parallel_map, "_executor", lambda workers: Inline())
    deaths = []

    def dies_at_first(item):
        if item not in deaths:
            deaths.append(item)
            raise BrokenProcessPool
        return -item

    assert list(ordered_map(dies_at_first, range(12), 1, 1.0)) == [(item, -item) for item in range(12)]
    with pytest.raises(UserError, match="died 3 times in a row"):
        next(ordered_map(lambda item: deaths.clear() or dies_at_first(item), range(3), 1, 1.0))
