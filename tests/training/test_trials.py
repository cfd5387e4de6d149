"""Rollouts beside a training, with real processes in the place of the simulator: they write what they are told."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixio_robot.errors import UserError
from pixio_robot.training.distributed.launch import single_process_environment
from pixio_robot.training.run_record import lock_run
from pixio_robot.training.trials import Trial, TrialResult, Trials, TrialsConfig, rank_trials

EVALUATE = """
import json, pathlib, sys, time
model, out, gate = map(pathlib.Path, sys.argv[1:])
while not gate.exists():
    time.sleep(0.05)
rate = float((model / "skill").read_text())
if rate < 0:
    sys.exit("the arm fell off")
out.mkdir()
(out / "summary.json").write_text(json.dumps({"episodes": 10, "successes": round(10 * rate), "rate": rate}))
"""


def outcome(results: Path) -> TrialResult | None:
    path = results / "summary.json"
    return TrialResult(**json.loads(path.read_text()), low=0.0, high=1.0) if path.is_file() else None


def make(run_dir: Path, gate: Path = Path("/"), **settings) -> Trials:
    """gate: no evaluation ends before this path exists."""

    def command(model: Path, results: Path) -> list[str]:
        return [sys.executable, "-c", EVALUATE, str(model), str(results), str(gate)]

    return Trials(run_dir, TrialsConfig(**{"every": 100, "keep_best": 1, **settings}), command, outcome)


def saver(skill: float):
    def save(directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "skill").write_text(str(skill))

    return save


def play(trials: Trials, skills: dict[int, float]) -> list[dict]:
    return [dict(trials.make_hook(saver(skill)).call(step)) for step, skill in skills.items()]


def test_best_and_newest_trials_are_kept_and_the_best_is_labelled_as_biased(tmp_path):
    written: list = []
    with make(tmp_path) as trials:
        play(trials, {100: 0.2, 200: 0.9, 300: 0.4, 400: 0.3})
        done = trials.finish(written.append)
    assert [trial.step for trial in done] == [100, 200, 300, 400]
    record = json.loads((tmp_path / "trials/ranking.json").read_text())
    assert [entry["step"] for entry in record["trials"]] == [200, 300, 400, 100]
    assert record["best_of"] == 4
    assert "evaluate it again on other seeds" in record["note"]
    assert [entry["step"] for entry in record["trials"] if entry["model_kept"]] == [200, 400]
    kept = sorted(path.parent.name for path in tmp_path.glob("trials/*/model"))
    assert kept == ["step_00000200", "step_00000400"]
    assert written[-1]["trial_step"] == 400
    assert written[-1]["trial_success"] == 0.3
    assert (written[-1]["trial_best_of_k"], written[-1]["trial_k"]) == (0.9, 4)


def test_training_does_not_wait(tmp_path):
    gate = tmp_path / "gate"
    with make(tmp_path, gate) as trials:
        assert play(trials, {100: 0.2, 200: 0.9, 300: 0.4}) == [{}] * 3  # while not one evaluation can end
        gate.touch()
        assert len(trials.finish(lambda numbers: None)) == 3


def test_result_is_logged_at_the_next_hook_call_with_its_own_step(tmp_path):
    with make(tmp_path) as trials:
        assert play(trials, {100: 0.5}) == [{}]
        while not (tmp_path / "trials/step_00000100/evaluation/summary.json").is_file():
            time.sleep(0.05)
        time.sleep(0.3)
        (numbers,) = play(trials, {200: 0.5})
        assert (numbers["trial_step"], numbers["trial_success"]) == (100, 0.5)


def test_failed_evaluation_is_reported_and_training_continues(tmp_path, capsys):
    with make(tmp_path) as trials:
        play(trials, {100: -1.0, 200: 0.5})
        done = trials.finish(lambda numbers: None)
    assert [trial.outcome is None for trial in done] == [True, False]
    assert "at step 100 failed: the arm fell off" in capsys.readouterr().err
    record = json.loads((tmp_path / "trials/ranking.json").read_text())
    assert (record["failed_at"], record["best_of"]) == ([100], 1)


def test_interrupted_run_terminates_its_evaluation_and_repeats_it_when_resumed(tmp_path):
    with make(tmp_path, tmp_path / "never") as trials:
        play(trials, {100: 0.5, 200: 0.6})
        pid = trials._running[1].pid  # type: ignore[index]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    # The part after the last checkpoint is trained again: what was tried there does not count.
    with make(tmp_path) as trials:
        play(trials, {200: 0.7})
        done = trials.finish(lambda numbers: None)
    assert [(trial.step, trial.outcome.rate) for trial in done if trial.outcome] == [(100, 0.5), (200, 0.7)]


KILLED = """
import sys
from pathlib import Path
from pixio_robot.training.trials import Trials, TrialsConfig

def save(directory):
    directory.mkdir(parents=True)

sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
trials = Trials(sys.argv[1], TrialsConfig(every=1), lambda model, results: sleeper, lambda results: None)
trials.make_hook(save).call(1)
print(trials._running[1].pid, flush=True)
trials.finish(lambda numbers: None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there does the system tell a process that its parent died")
def test_evaluation_is_terminated_when_training_is_killed(tmp_path):
    training = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert training.stdout is not None
    pid = int(training.stdout.readline())
    command = Path(f"/proc/{pid}/cmdline")
    while b"time.sleep" not in command.read_bytes() or b"parent_death_signal" in command.read_bytes():
        time.sleep(0.02)  # until it is what it was started for
    training.kill()
    training.wait()
    for _ in range(200):
        if not command.exists() or not command.read_bytes():  # it may stay a zombie where nobody waits for it
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    pytest.fail("the evaluation outlived its training")


def test_run_interrupted_at_its_end_evaluates_what_is_missing(tmp_path):
    with make(tmp_path, tmp_path / "never") as trials:
        play(trials, {100: 0.5, 200: 0.6})
    with make(tmp_path) as trials:  # nothing is left to train, so nobody looks
        done = trials.finish(lambda numbers: None)
    assert [(trial.step, trial.outcome.rate) for trial in done if trial.outcome] == [(100, 0.5), (200, 0.6)]


def test_finished_trials_survive_an_interruption(tmp_path):
    with make(tmp_path) as trials:
        play(trials, {100: 0.5})
        trials.finish(lambda numbers: None)
    with make(tmp_path) as trials:
        play(trials, {200: 0.6})
        assert [trial.step for trial in trials.finish(lambda numbers: None)] == [100, 200]


def test_ties_are_ranked_by_the_later_step():
    same = TrialResult(episodes=2, successes=1, rate=0.5, low=0.0, high=1.0)
    trials = [Trial(step=1, outcome=same), Trial(step=3, outcome=None), Trial(step=2, outcome=same)]
    assert [trial.step for trial in rank_trials(trials)] == [2, 1]


def test_trial_interval_may_change_on_resume_but_not_the_episodes(tmp_path):
    first = {"trials": {"every": 100, "keep_best": 2, "episodes": 20}}
    with lock_run(tmp_path, first, started=False):
        pass
    with lock_run(tmp_path, {"trials": {"every": 0, "keep_best": 1, "episodes": 20}}, started=True):
        pass
    other = lock_run(tmp_path, {"trials": {"every": 0, "keep_best": 1, "episodes": 5}}, started=True)
    with pytest.raises(UserError, match=r"\(trials\.episodes: 20 there, 5 now\)"), other:
        pass


def test_settings_are_checked():
    with pytest.raises(UserError, match=r"trials\.every=-1"):
        TrialsConfig(every=-1)


def test_evaluation_started_under_torchrun_is_a_single_process(tmp_path, monkeypatch):
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none", "MINE": "kept"}
    for name, value in (told | {"OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    seen = tmp_path / "environment.json"
    config = TrialsConfig(every=100)
    with Trials(tmp_path, config, lambda *_: [sys.executable, "-c", code, str(seen)], lambda _: None) as trials:
        play(trials, {100: 0.5})
        trials.finish(lambda numbers: None)
    environment = json.loads(seen.read_text())
    assert environment["MINE"] == "kept"
    assert not environment.keys() & (told.keys() - {"MINE"} | {"OMP_NUM_THREADS"})


def test_thread_settings_not_set_by_torchrun_are_kept():
    assert single_process_environment({"OMP_NUM_THREADS": "1"}) == {"OMP_NUM_THREADS": "1"}
    assert single_process_environment({"OMP_NUM_THREADS": "4", "TORCHELASTIC_RUN_ID": "none"}) == {
        "OMP_NUM_THREADS": "4"
    }
