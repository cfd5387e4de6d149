"""Jobs that die, hang or raise cost one job each, in processes and, with the same outcomes, on a Ray cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pixio_robot.data.jobs.executor import Executor, run_tasks
from pixio_robot.errors import UserError

JOBS = """
import os, signal, threading, time
from pathlib import Path
from pixio_robot.errors import UserError

def job(argument, report):
    word, _, rest = argument.partition(" ")
    if word == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "die_once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "die_later":
        threading.Timer(0.1, os._exit, [1]).start()
    if word == "exit":
        os._exit(3)
    if word == "hang":
        time.sleep(60)
    if word == "raise":
        raise ZeroDivisionError("no")
    if word == "full":
        raise UserError("disk full")
    if word == "slow":
        for _ in range(int(rest)):
            time.sleep(0.1)
            report(0.1)
    if word == "node":
        import ray
        mine = ray.get_runtime_context().get_node_id()
        Path(rest, mine).touch()
        for _ in range(600):  # a busy machine is slow to start the second machine's worker
            if len(os.listdir(rest)) == 2:
                break
            time.sleep(0.1)
            report(0.0)
        return mine
    return word.upper()
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "jobs_of_the_executor_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    import jobs_of_the_executor_test  # type: ignore[import-not-found]

    yield jobs_of_the_executor_test.job
    monkeypatch.delitem(__import__("sys").modules, "jobs_of_the_executor_test")


def outcomes(job, arguments: list[str], **settings) -> dict[str, list]:
    """What came of the jobs, by the first word of their arguments."""
    found: dict[str, list] = {}
    for outcome in run_tasks(job, arguments, **settings):
        found.setdefault(arguments[outcome.index].split()[0], []).append(outcome.result or outcome.failure)
    return found


def test_accidents_cost_one_job_each(job, tmp_path: Path) -> None:
    accidents = ["die", "b", "hang", "raise", "c", "exit", f"die_once {tmp_path / 'died'}"]
    progress: list[float] = []
    found = outcomes(job, ["a", *accidents, "slow 35"], workers=2, timeout_s=3.0, on_progress=progress.append)
    assert found == {
        "a": ["A"],
        "b": ["B"],
        "c": ["C"],
        "slow": ["SLOW"],  # longer than the limit, but it kept reporting
        "die_once": ["DIE_ONCE"],
        "die": ["decoder process died (SIGSEGV)"],
        "exit": ["decoder process died (exit code 3)"],
        "hang": ["gave up after 3 s without progress"],
        "raise": ["ZeroDivisionError: no"],
    }
    assert sum(progress) == pytest.approx(3.5)


def test_a_worker_that_dies_between_two_jobs_costs_none(job) -> None:
    found = []
    for outcome in run_tasks(job, ["a", "die_later", "b", "c"], workers=1, timeout_s=5):
        found.append(outcome.result or outcome.failure)
        time.sleep(0.3)
    assert found == ["A", "DIE_LATER", "B", "C"]


def test_a_user_error_ends_the_run(job) -> None:
    with pytest.raises(UserError, match="disk full"):
        list(run_tasks(job, ["a", "full", "b"], workers=1, timeout_s=5))


def test_no_jobs(job) -> None:
    assert list(run_tasks(job, [], workers=2)) == []


@pytest.mark.slow
def test_accidents_on_a_cluster_of_two_machines_cost_one_job_each(job, ray_cluster, tmp_path: Path) -> None:
    met = tmp_path / "met"
    met.mkdir()
    accidents = ["die", "hang", "raise", f"die_once {tmp_path / 'died'}"]
    arguments = ["a", *accidents, "b", "slow 70", *([f"node {met}"] * 6)]
    progress: list[float] = []
    found = outcomes(job, arguments, executor=Executor.RAY, timeout_s=6.0, on_progress=progress.append)
    nodes = found.pop("node")
    assert len(nodes) == 6
    assert set(nodes) == {node["NodeID"] for node in ray_cluster}
    assert found.pop("die")[0].startswith("decoder process died")
    assert found == {
        "a": ["A"],
        "b": ["B"],
        "slow": ["SLOW"],
        "die_once": ["DIE_ONCE"],
        "hang": ["gave up after 6 s without progress"],
        "raise": ["ZeroDivisionError: no"],
    }
    assert sum(progress) == pytest.approx(7.0)
    with pytest.raises(UserError, match="disk full"):
        list(run_tasks(job, ["a", "full"], executor=Executor.RAY, timeout_s=5))
    assert list(run_tasks(job, [], executor=Executor.RAY)) == []
