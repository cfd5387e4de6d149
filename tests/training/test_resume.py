"""Resume is exact: interrupted-then-resumed equals uninterrupted, bit for bit on the CPU."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.training import loop, state
from pixio_robot.training.checkpoint import latest_checkpoint
from pixio_robot.training.distributed.processes import Processes
from pixio_robot.training.loop import fit
from pixio_robot.training.state import TrainingState


@pytest.fixture(scope="module")
def whole(lab, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    result = fit(lab.regression(), lab.loop_config(), run_dir)
    assert (result.steps, result.interrupted) == (60, False)
    return run_dir


def test_others_may_read_checkpoints(whole, tmp_path):
    (tmp_path / "any").touch()
    modes = {path.stat().st_mode for path in (whole / "checkpoints").rglob("*.*") if path.is_file()}
    assert modes == {(tmp_path / "any").stat().st_mode}


@pytest.mark.parametrize("stops", [(0,), (6,), (10, 3), (24, 0, 0, 16), (58,)])
def test_interrupted_and_resumed_equals_uninterrupted(lab, whole, tmp_path, stops):
    for stop in stops:
        torch.manual_seed(random.randrange(1000))  # another process begins with other random numbers
        result = fit(lab.regression(at_step=lab.interrupt_at(stop)), lab.loop_config(), tmp_path)
        assert (result.interrupted, result.preempted) == (True, False), "by Ctrl-C, not by a scheduler"
        assert not (tmp_path / "model").exists()
    assert result.steps == sum(stop + 1 for stop in stops)
    assert fit(lab.regression(), lab.loop_config(), tmp_path).steps == 60
    lab.assert_same_run(whole, tmp_path)


def test_a_run_that_continues_in_another_precision_says_so(lab, tmp_path, monkeypatch, capsys):
    """As when a scheduler moves it to another kind of device."""
    said = []
    for computes in (False, True, True):
        monkeypatch.setattr(loop, "computes_in_bfloat16", lambda device, computes=computes: computes)
        fit(lab.regression(at_step=lab.interrupt_at(3)), lab.loop_config(), tmp_path)
        said.append("computed in float32; the run continues in bfloat16" in capsys.readouterr().err)
    assert said == [False, True, False]


def test_the_time_limit_counts_earlier_sessions(lab, tmp_path):
    fit(lab.regression(at_step=lab.interrupt_at(9)), lab.loop_config(), tmp_path)
    trainer = latest_checkpoint(tmp_path / "checkpoints") / "trainer.json"
    trainer.write_text(json.dumps(json.loads(trainer.read_text()) | {"seconds": 1000.0}))
    result = fit(lab.regression(), lab.loop_config(seconds=1000.0), tmp_path)
    assert (result.steps, result.out_of_time) == (10, True)
    assert result.seconds >= 1000


def test_a_crash_between_checkpoints_equals_uninterrupted(lab, whole, tmp_path):
    def crash(step):
        if step == 40:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fit(lab.regression(at_step=crash), lab.loop_config(), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 35, "loss": 1.0}\n{"step": 42, "lo')
    fit(lab.regression(), lab.loop_config(), tmp_path)
    lab.assert_same_run(whole, tmp_path)


def test_a_checkpoint_holds_the_merged_state_of_the_streams_of_all_processes(lab, tmp_path):
    class Stream(lab.PointStream):
        seen = ("b",)

        def state_dict(self):
            return {"seen": list(self.seen)}

        def load_state_dict(self, state):
            self.seen = state["seen"]

        def merge_states(self, states):
            return {"seen": sorted(name for state in states for name in state["seen"])}

    class Two(Processes):
        def all_gather(self, value):
            """The other process saw something else; everything else it says is the same."""
            return [value, {"seen": ["a"]} if value == {"seen": ["b"]} else value]

    state = TrainingState(lab.regression(Stream()), seed=0)
    state.processes = Two(rank=0, world_size=2)
    state.save(tmp_path, keep=1)
    job = lab.regression(Stream())
    TrainingState(job, seed=0).load(latest_checkpoint(tmp_path))
    assert job.batches.seen == ["a", "b"]


def test_processes_draw_other_numbers_each_but_the_same_for_the_whole_batch(lab, tmp_path, monkeypatch):
    """From the start, and after a run of one process goes on with two."""

    def drawn(rank, saved=None):
        monkeypatch.setattr(state, "current_processes", lambda: Processes(rank, 2))
        job = lab.regression()
        own = TrainingState(job, 3)
        if saved is not None:
            own.load(saved)
        return torch.rand(1).item(), torch.rand(1, generator=job.generators["noise"]).item()

    alone = TrainingState(lab.regression(), 3)
    torch.rand(5)
    alone.save(tmp_path, keep=1)
    for saved in (None, latest_checkpoint(tmp_path)):
        (first, noise), (second, same) = drawn(0, saved), drawn(1, saved)
        assert first != second
        assert noise == same


def test_killed_before_the_model_was_written(lab, whole, tmp_path):
    job = lab.regression()
    job.save_model = lambda directory: (_ for _ in ()).throw(RuntimeError("power cut"))
    with pytest.raises(RuntimeError):
        fit(job, lab.loop_config(), tmp_path)
    fit(lab.regression(), lab.loop_config(), tmp_path)
    lab.assert_same_run(whole, tmp_path)


def test_hooks_do_not_change_the_run(lab, whole, tmp_path):
    from pixio_robot.training.job import Hook

    def look(step):
        assert not torch.is_grad_enabled()
        assert not job.model.training
        job.generators["noise"].manual_seed(1)
        return {"validation_loss": torch.rand(()).item()}

    job = lab.regression(hooks=[Hook(every=9, call=look)])
    result = fit(job, lab.loop_config(), tmp_path)
    assert "validation_loss" in result.metrics
    lines = lab.metric_lines(tmp_path)
    assert [line["step"] for line in lines if "validation_loss" in line] == [9, 18, 27, 36, 45, 54, 60]
    assert [line for line in lines if "validation_loss" not in line] == lab.metric_lines(whole)
    assert (whole / "model/model.safetensors").read_bytes() == (tmp_path / "model/model.safetensors").read_bytes()


def test_resume_keeps_the_average_and_its_step(lab, tmp_path):
    """A peer's defect: without the average's step, the first update after resuming overwrites it with the weights."""
    fit(lab.regression(at_step=lab.interrupt_at(29)), lab.loop_config(), tmp_path)
    before = lab.load_sharded_part(tmp_path / "checkpoints/step_00000030/ema")
    assert json.loads((tmp_path / "checkpoints/step_00000030/trainer.json").read_text())["ema_step"] == 30
    fit(lab.regression(at_step=lab.interrupt_at(0)), lab.loop_config(), tmp_path)
    after = lab.load_sharded_part(tmp_path / "checkpoints/step_00000031/ema")
    weights = lab.load_sharded_part(tmp_path / "checkpoints/step_00000031/model")
    for name in before:
        moved = (after[name] - before[name]).norm()
        assert 0 < moved < 0.2 * (weights[name] - before[name]).norm()


def test_a_finished_run_returns_at_once(lab, whole):
    stream = lab.PointStream()
    before = {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")}
    result = fit(lab.regression(stream), lab.loop_config(), whole)
    assert (result.steps, result.interrupted, stream.position, stream.closed) == (60, False, 0, True)
    assert before == {path: path.stat().st_mtime_ns for path in (whole / "checkpoints").rglob("*")}


def test_other_settings_are_refused_by_name(lab, whole):
    with pytest.raises(UserError, match=r"optim\.lr: 0\.01 there, 0\.5 now.*another directory, or overwrite=true"):
        fit(lab.regression(lr=0.5), lab.loop_config(), whole)
    with pytest.raises(UserError, match=r"data: 'points' there, 'lines' now.*loop\.steps: 60 there, 70 now"):
        fit(lab.regression(settings={"data": "lines"}), lab.loop_config(steps=70), whole)
    fit(lab.regression(), lab.loop_config(log_every=9, save_every=20, keep_checkpoints=1), whole)


def test_finished_run_is_extended_with_loop_extend(lab, tmp_path):
    fit(lab.regression(), lab.loop_config(steps=20), tmp_path)
    with pytest.raises(UserError, match=r"loop\.steps: 20 there, 30 now"):
        fit(lab.regression(), lab.loop_config(steps=30), tmp_path)
    with pytest.raises(UserError, match=r"optim\.lr"):
        fit(lab.regression(lr=0.5), lab.loop_config(steps=30, extend=True), tmp_path)
    stream = lab.PointStream()
    assert fit(lab.regression(stream), lab.loop_config(steps=30, extend=True), tmp_path).steps == 30
    assert stream.position == 30
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["grew"] == [{"setting": "loop.steps", "was": 20}]
    # It is a run of 30 steps now, and no shorter one.
    assert fit(lab.regression(), lab.loop_config(steps=30), tmp_path).steps == 30
    with pytest.raises(UserError, match=r"loop\.steps: 30 there, 20 now"):
        fit(lab.regression(), lab.loop_config(steps=20, extend=True), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["grew"] == config["grew"]


def test_settings_may_change_before_the_first_checkpoint(lab, tmp_path):
    def crash(step):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        fit(lab.regression(at_step=crash), lab.loop_config(), tmp_path)
    assert fit(lab.regression(lr=0.5), lab.loop_config(steps=3), tmp_path).steps == 3


def test_foreign_directories_are_left_alone(lab, tmp_path):
    (tmp_path / "config.json").write_text('{"kind": "pixio_encoder"}')
    with pytest.raises(UserError, match="not the config of a training run"):
        fit(lab.regression(), lab.loop_config(), tmp_path)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(lab, tmp_path):
    """SIGKILL a real process again and again; whatever it was doing, the end is the same."""
    child = Path(__file__).with_name("train_in_a_process.py")
    command = [sys.executable, str(child)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=250)
    dice, kills = random.Random(0), 0
    for _ in range(6):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        time.sleep(dice.uniform(0.2, 1.5))
        process.kill()
        kills += process.wait() != 0
        process.stdout.close()
        if (tmp_path / "killed" / "result.json").is_file():
            break
    assert kills >= 3
    subprocess.run([*command, str(tmp_path / "killed")], check=True, timeout=250)
    lab.assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").rglob(".tmp-*"))
