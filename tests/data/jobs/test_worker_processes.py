"""Worker processes that die, hang or raise cost one job each."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pixio_robot.data.jobs.worker_processes import run_jobs
from pixio_robot.errors import UserError

JOBS = """
import os, signal, threading, time
from pixio_robot.errors import UserError

def job(argument, report):
    if argument == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if argument == "die once":
        try:
            open(__file__ + ".died", "x").close()
        except FileExistsError:
            return "LIVES"
        os.kill(os.getpid(), signal.SIGKILL)
    if argument == "exit":
        os._exit(3)
    if argument == "hang":
        time.sleep(60)
    if argument == "raise":
        raise ZeroDivisionError("no")
    if argument == "full":
        raise UserError("disk full")
    if argument == "die later":
        threading.Timer(0.1, os._exit, [1]).start()
    if argument == "slow":
        for _ in range(35):
            time.sleep(0.1)
            report(0.1)
    return argument.upper()
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "jobs_of_this_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    import jobs_of_this_test  # type: ignore[import-not-found]

    yield jobs_of_this_test.job
    monkeypatch.delitem(__import__("sys").modules, "jobs_of_this_test")


def test_accidents_cost_one_job_each(job) -> None:
    arguments = ["a", "die", "b", "hang", "raise", "c", "exit", "die once", "slow"]
    progress: list[float] = []
    outcomes = run_jobs(job, arguments, workers=2, timeout_s=3.0, on_progress=progress.append)
    found = {arguments[outcome.index]: outcome.result or outcome.failure for outcome in outcomes}
    assert found == {
        "a": "A",
        "b": "B",
        "c": "C",
        "slow": "SLOW",  # longer than the limit, but it kept reporting
        "die once": "LIVES",
        "die": "decoder process died (SIGSEGV)",
        "exit": "decoder process died (exit code 3)",
        "hang": "gave up after 3 s without progress",
        "raise": "ZeroDivisionError: no",
    }
    assert sum(progress) == pytest.approx(3.5)


def test_a_worker_that_dies_between_two_jobs_costs_none(job) -> None:
    found = []
    for outcome in run_jobs(job, ["a", "die later", "b", "c"], workers=1, timeout_s=5):
        found.append(outcome.result or outcome.failure)
        time.sleep(0.3)
    assert found == ["A", "DIE LATER", "B", "C"]


def test_a_user_error_ends_the_run(job) -> None:
    with pytest.raises(UserError, match="disk full"):
        list(run_jobs(job, ["a", "full", "b"], workers=1, timeout_s=5))


def test_no_jobs(job) -> None:
    assert list(run_jobs(job, [], workers=2, timeout_s=5)) == []
