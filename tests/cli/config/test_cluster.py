"""Jobs of a cluster: what is refused before it is submitted, and how a job ends, without a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from submitit.core.utils import FailedJobError, UncompletedJobError

from pixio_robot.cli.config.cluster import GOES_ON, ONE_PROCESS, launcher_of, prepare_submission, submission_errors
from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.cli.evaluate import EvaluateCommand
from pixio_robot.cli.signals import SignalInterrupt
from pixio_robot.errors import UserError

SLURM = "hydra/launcher=slurm"


@pytest.fixture
def prepare(monkeypatch, tmp_path):
    """`prepare_submission` on a machine that has Slurm."""
    (tmp_path / "sbatch").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ConfigStore.instance().store(name="evaluate_schema", node=EvaluateCommand)
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        yield prepare_submission


def test_commands_that_are_one_process_are_started_once(prepare):
    assert prepare("evaluate", ["checkpoint=a,b", SLURM, "hydra.launcher.partition=x"]) == ONE_PROCESS
    assert prepare("train", [SLURM]) == prepare("evaluate", ["checkpoint=a,b"]) == []
    assert prepare("evaluate", ["hydra/launcher=submitit_local"]) == []
    for words in (
        [SLURM, "hydra.launcher.nodes=2"],
        ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"],
    ):
        with pytest.raises(UserError, match=r"`evaluate` is one process: leave out hydra.launcher.nodes="):
            prepare("evaluate", words)


def test_a_machine_without_slurm_is_told(prepare, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="needs Slurm's sbatch, which is not on the PATH"):
        prepare("train", [SLURM])
    assert prepare("train", ["hydra/launcher=submitit_local"]) == []


def test_what_went_wrong_with_a_job_is_told_in_a_few_lines():
    assert launcher_of(["hydra/launcher=basic", SLURM]) == "slurm"
    with pytest.raises(UserError, match=r"invalid partition.*\n.*hydra.launcher.partition"), submission_errors("slurm"):
        raise FailedJobError("sbatch: error: invalid partition specified: nope\n")
    log = "".join(f"line {number}\n" for number in range(100))
    with pytest.raises(UserError, match=r"Job 3.*OUT_OF_MEMORY") as told, submission_errors("slurm"):
        raise UncompletedJobError(f"Job 3\nhas no output (state: OUT_OF_MEMORY)\nError stream produced:\n-----\n{log}")
    assert "line 99" in str(told.value)
    assert "line 9\n" not in str(told.value)
    with pytest.raises(KeyError), submission_errors(""):
        raise KeyError


def test_after_ctrl_c_the_jobs_go_on():
    with pytest.raises(SignalInterrupt) as ended, submission_errors("slurm"):
        raise SignalInterrupt(2)
    assert ended.value.advice == GOES_ON
    with pytest.raises(SignalInterrupt) as ended, submission_errors("submitit_local"):
        raise SignalInterrupt(2)
    assert ended.value.advice != GOES_ON


TASK = """
import atexit, signal, sys
from pixio_robot.cli.config.cluster import cluster_job
from pixio_robot.errors import UserError

def requeue(*_):
    signal.raise_signal(signal.SIGTERM)  # from Slurm, which has requeued the job
    print("requeued")
    sys.exit(-1)

signal.signal(signal.SIGTERM, lambda *_: print("ignored"))
signal.signal(signal.SIGUSR2, requeue)
try:
    with cluster_job():
        atexit.register(print, "closed")
        {}
except UserError:
    print("handed on")
"""


def run_task(line: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "SUBMITIT_EXECUTOR"} | variables
    return subprocess.run(
        [sys.executable, "-c", TASK.format(line)], capture_output=True, text=True, env=environment, timeout=100
    )


@pytest.mark.parametrize(
    ("line", "code", "printed"),
    [
        ("pass", 0, "closed\n"),
        ("raise UserError('no such policy')", 2, "handed on\nclosed\n"),
        ("signal.raise_signal(signal.SIGTERM)", 143, "closed\n"),
        ("signal.raise_signal(signal.SIGUSR2)", 255, "requeued\nclosed\n"),
    ],
)
def test_how_a_task_ends(line, code, printed):
    task = run_task(line, SUBMITIT_EXECUTOR="slurm")
    assert (task.returncode, task.stdout) == (code, printed), task.stderr
    assert ("interrupted. Submit the same command again" in task.stderr) == (code == 143)


def test_outside_of_jobs_nothing_changes():
    assert run_task("raise UserError('no such policy')").returncode == 0
    assert run_task("signal.raise_signal(signal.SIGTERM)").stdout == "ignored\nclosed\n"


@pytest.mark.slow
def test_the_log_of_a_job_says_why_it_failed(tmp_path: Path):
    words = ["evaluate", "-m", "hydra/launcher=submitit_local", "run=.", "checkpoint=a,b", "device=cpu"]
    command = [sys.executable, "-m", "pixio_robot.cli.main", *words]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2
    assert "There is no policy directory a" in ended.stderr
    logs = "".join(path.read_text() for path in tmp_path.rglob("*_log.err"))
    assert all(f"this run failed: There is no policy directory {name};" in logs for name in "ab")
