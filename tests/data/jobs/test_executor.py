"""Jobs that die, hang or raise cost one job each, in processes and, with the same outcomes, on a Ray cluster."""

from __future__ import annotations

import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pixio_robot.data.jobs import worker_processes
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
        time.sleep(60)  # on Ray, another thread dies of it
    if word == "die_once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "die_later":
        threading.Timer(0.1, os._exit, [1]).start()
    if word == "exit":
        os._exit(3)
    if word == "hang":
        time.sleep(60)
    if word == "hang_there":
        Path(rest).write_text(str(os.getpid()))
        time.sleep(600)
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


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie: an orphan's new parent may never wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
        "die": ["worker process died (SIGSEGV)"],
        "exit": ["worker process died (exit code 3)"],
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


def test_a_worker_that_dies_just_before_it_gets_a_job_costs_none(job, monkeypatch: pytest.MonkeyPatch) -> None:
    started, send, start = [], Connection.send, worker_processes._start_worker

    def start_worker(job):
        started.append(start(job))
        return started[-1]

    def send_job(connection, argument) -> None:
        if argument == "b" and len(started) == 1:
            started[0].process.kill()
            started[0].process.join()
        send(connection, argument)

    monkeypatch.setattr(worker_processes, "_start_worker", start_worker)
    monkeypatch.setattr(Connection, "send", send_job)
    assert outcomes(job, ["a", "b", "c"], workers=1, timeout_s=5) == {"a": ["A"], "b": ["B"], "c": ["C"]}
    assert len(started) == 2


def test_a_job_that_hangs_ends_with_a_parent_that_is_killed(job, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from jobs_of_the_executor_test import job; "
    code += "from pixio_robot.data.jobs.executor import run_tasks; "
    code += f"list(run_tasks(job, ['hang_there {mark}'], workers=1))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    while not (mark.exists() and mark.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while is_running(int(mark.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_user_error_ends_the_run(job) -> None:
    with pytest.raises(UserError, match="disk full"):
        list(run_tasks(job, ["a", "full", "b"], workers=1, timeout_s=5))


def test_no_jobs(job) -> None:
    assert list(run_tasks(job, [], workers=2)) == []


def test_a_cluster_that_cannot_be_reached_is_named_and_tokens_are_mentioned(
    job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(UserError, match=r"RAY_ADDRESS=nowhere: .*nowhere.*RAY_AUTH_MODE=token"):
        list(run_tasks(job, ["a"], executor=Executor.RAY))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(UserError, match=r"RAY_ADDRESS=nowhere: .*nowhere\.$"):
        list(run_tasks(job, ["a"], executor=Executor.RAY))


@pytest.mark.slow
def test_accidents_on_a_cluster_of_two_machines_cost_one_job_each(
    job, ray_cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from pixio_robot.data.jobs import ray_cluster as ray_cluster_jobs

    met = tmp_path / "met"
    met.mkdir()
    accidents = ["die", "hang", "raise", f"die_once {tmp_path / 'died'}"]
    arguments = ["a", *accidents, "b", "slow 70", *([f"node {met}"] * 6)]
    progress: list[float] = []
    found = outcomes(job, arguments, executor=Executor.RAY, timeout_s=6.0, on_progress=progress.append)
    nodes = found.pop("node")
    assert len(nodes) == 6
    assert set(nodes) == {node["NodeID"] for node in ray_cluster}
    assert found.pop("die")[0].startswith("worker process died")
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

    started, start = [], ray_cluster_jobs._start_worker

    def start_and_kill(make):
        started.append(start(make))
        if len(started) < ray_cluster_jobs.STARTS or deadly:
            ray.kill(started[-1].actor)
        return started[-1]

    monkeypatch.setattr(ray_cluster_jobs, "_start_worker", start_and_kill)
    deadly = False
    assert outcomes(job, ["a"], executor=Executor.RAY, timeout_s=5) == {"a": ["A"]}
    deadly = True
    with pytest.raises(UserError, match="could not start"):
        list(run_tasks(job, ["a"], executor=Executor.RAY, timeout_s=5))
    assert list(run_tasks(job, [], executor=Executor.RAY)) == []
