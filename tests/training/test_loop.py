"""What the loop promises beside exact resume (test_resume.py)."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pixio_robot.errors import UserError
from pixio_robot.files import read_json
from pixio_robot.training.job import Hook
from pixio_robot.training.loop import LoopConfig, fit
from pixio_robot.training.optim import parameter_groups


def test_it_learns_and_reports(lab, tmp_path):
    result = fit(lab.regression(lr=3e-2), lab.loop_config(steps=300, log_every=20), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(20, 301, 20))
    names = {"step", "loss", "mean_error", "grad_norm", "lr", "seconds", "examples_per_second", "data_wait_share"}
    assert set(lines[0]) == names
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]
    assert result.metrics["loss"] == lines[-1]["loss"]
    assert all(0 < line["data_wait_share"] < 1 for line in lines)
    assert sorted(line["seconds"] for line in lines) == [line["seconds"] for line in lines]
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 300


def test_warmup_as_long_as_the_run_prints_a_warning(lab, tmp_path, capsys):
    job = lab.regression()
    fit(
        dataclasses.replace(job, optim=dataclasses.replace(job.optim, warmup_steps=40)),
        lab.loop_config(steps=10),
        tmp_path,
    )
    assert "warmup_steps=40 is not below loop.steps=10: the learning rate ends at 25% of" in capsys.readouterr().err


def test_the_deployed_weights_are_the_averages(lab, tmp_path):
    job = lab.regression()
    fit(job, lab.loop_config(), tmp_path)
    deployed = load_file(tmp_path / "model/model.safetensors")
    averages = lab.load_sharded_part(tmp_path / "checkpoints/step_00000060/ema")
    live = dict(job.model.named_parameters())
    for name, value in averages.items():
        assert torch.equal(deployed[name], value)
        assert not torch.equal(live[name], value)


def test_the_last_checkpoints_are_kept(lab, tmp_path):
    fit(lab.regression(), lab.loop_config(keep_checkpoints=3), tmp_path)
    checkpoints = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert checkpoints == ["latest", "step_00000044", "step_00000055", "step_00000060"]
    assert (tmp_path / "checkpoints/latest").read_text() == "step_00000060\n"


def test_accumulated_batches_are_one_large_batch(lab, tmp_path):
    """Without what depends on the batch (dropout, batch norm, noise), k batches of n are one of k * n."""

    class Wide(lab.PointStream):
        def __next__(self):
            parts = [super(Wide, self).__next__() for _ in range(4)]
            stacked = [torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "targets")]
            return lab.Points(*stacked, [])

    weights = []
    for stream, accumulate in ((lab.PointStream(), 4), (Wide(), 1)):
        job = lab.regression(stream, use_ema=False)
        model = torch.nn.Linear(4, 1)
        torch.nn.init.constant_(model.weight, 0.3)
        torch.nn.init.zeros_(model.bias)
        job.model, job.groups = model, lab.parameter_groups(model)
        job.step = lambda batch, model=model: ((model(batch.inputs) - batch.targets).square().mean(), {})
        job.save_model = lambda directory: directory.mkdir()
        fit(job, lab.loop_config(accumulate=accumulate, steps=20), tmp_path / str(accumulate))
        weights.append(model.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_and_their_norm_before_is_logged(lab, tmp_path):
    norms: list[float] = []

    def note(optimizer, *_):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())

    handle = register_optimizer_step_pre_hook(note)
    try:
        fit(lab.regression(), lab.loop_config(steps=8, log_every=1, grad_clip=0.25), tmp_path)
    finally:
        handle.remove()
    assert len(norms) == 8
    assert max(norms) == pytest.approx(0.25, rel=1e-3)
    assert max(line["grad_norm"] for line in lab.metric_lines(tmp_path)) > 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_broken_loss_names_the_examples(lab, tmp_path, accumulate):
    stream = lab.PointStream(broken_at=30)
    config = lab.loop_config(accumulate=accumulate)
    step = 30 // accumulate + 1
    with pytest.raises(UserError, match=rf"not finite at step {step};.*nonfinite\.json"):
        fit(lab.regression(stream), config, tmp_path)
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (report["what"], report["step"]) == ("loss", step)
    assert ["30.3" in batch["ids"] for batch in report["batches"] if batch["step"] == step].count(True) == 1
    assert len(report["batches"]) <= 7 * accumulate
    assert stream.closed
    saved = list((tmp_path / "checkpoints").glob("step_*/model/*.safetensors"))
    assert saved
    for path in saved:
        assert all(torch.isfinite(value).all() for value in load_file(path).values())


def test_a_gradient_that_breaks_alone_is_noticed_even_at_the_last_step(lab, tmp_path):
    job = lab.regression()
    step = job.step

    def breaks(batch):
        loss, metrics = step(batch)
        if job.batches.position == 60:
            loss = loss + (job.model[0].weight.sum() * 0).sqrt()  # finite, its derivative is not
        return loss, metrics

    job.step = breaks
    with pytest.raises(UserError, match="gradient was not finite at step 60"):
        fit(job, lab.loop_config(), tmp_path)
    assert not (tmp_path / "model").exists()


def test_the_time_limit_ends_a_run_which_a_larger_one_continues(lab, tmp_path):
    steps = 100_000
    result = fit(lab.regression(), lab.loop_config(steps=steps, seconds=0.5), tmp_path)
    assert result.out_of_time
    assert not result.interrupted
    assert 0 < result.steps < steps
    assert result.seconds >= 0.5
    assert (tmp_path / "model").is_dir()
    assert fit(lab.regression(), lab.loop_config(steps=steps, seconds=0.5), tmp_path) == result
    least = fit(lab.regression(), lab.loop_config(steps=steps, seconds=1e-9), tmp_path / "least")
    assert least.steps == 1
    assert "loss" in least.metrics, "commands tell it"
    longer = fit(lab.regression(), lab.loop_config(steps=steps, seconds=result.seconds + 0.5), tmp_path)
    assert longer.steps > result.steps
    assert longer.seconds >= result.seconds + 0.5


def test_hooks_see_the_averages_and_their_values_are_logged(lab, tmp_path):
    seen = {}

    def look(step):
        seen[step] = job.model[0].weight.clone()
        return {"quality": float(step), "broken": math.nan}

    job = lab.regression(hooks=[Hook(every=25, call=look)])
    fit(job, lab.loop_config(), tmp_path)
    assert list(seen) == [25, 50, 60]
    deployed = load_file(tmp_path / "model/model.safetensors")
    assert torch.equal(seen[60], deployed["0.weight"])
    lines = [line for line in lab.metric_lines(tmp_path) if "quality" in line]
    assert lines[0] == {"step": 25, "quality": 25.0, "broken": None}


@pytest.mark.parametrize("at", [25, 60])
def test_interrupted_run_saves_before_hooks_and_calls_them_after_resuming(lab, tmp_path, at):
    """Whoever stops a run may not wait for an evaluation."""
    called, stopping = [], True

    def job(run_dir):
        made = lab.regression(hooks=[Hook(every=25, call=lambda step: called.append(step) or {"quality": step})])
        step = made.step

        def stops(batch):
            if stopping and made.batches.position == at:
                signal.raise_signal(signal.SIGTERM)
            return step(batch)

        made.step = stops
        return made

    result = fit(job(tmp_path / "run"), lab.loop_config(), tmp_path / "run")
    assert (result.interrupted, result.preempted, result.steps) == (True, True, at)
    assert called == [step for step in (25, 50, 60) if step < at]
    assert not (tmp_path / "run" / "model").exists()
    stopping = False
    assert not fit(job(tmp_path / "run"), lab.loop_config(), tmp_path / "run").interrupted
    assert called == [25, 50, 60]
    fit(job(tmp_path / "whole"), lab.loop_config(), tmp_path / "whole")
    lab.assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_the_last_step_is_saved_before_its_hooks_and_they_are_not_called_again(lab, tmp_path):
    called = []

    def look(step):
        trainer = read_json(tmp_path / "checkpoints" / f"step_{step:08d}" / "trainer.json")
        called.append((step, trainer["looked"]))
        return {}

    def job():
        return lab.regression(hooks=[Hook(every=1000, call=look)])

    fit(job(), lab.loop_config(), tmp_path)
    assert called == [(60, False)]
    assert read_json(tmp_path / "checkpoints" / "step_00000060" / "trainer.json")["looked"]
    fit(job(), lab.loop_config(steps=70, extend=True), tmp_path)
    assert called == [(60, False), (70, False)]


def test_two_processes_cannot_train_in_one_directory(lab, tmp_path):
    def look(step):
        with pytest.raises(UserError, match="Another process is training"):
            fit(lab.regression(), lab.loop_config(), tmp_path)
        return {}

    fit(lab.regression(hooks=[Hook(every=60, call=look)]), lab.loop_config(), tmp_path)


def test_training_in_bfloat16_learns(lab, tmp_path):
    result = fit(lab.regression(lr=3e-2), lab.loop_config(steps=200, dtype="bfloat16"), tmp_path)
    assert result.metrics["loss"] < 2
    assert all(value.dtype != torch.bfloat16 for value in load_file(tmp_path / "model/model.safetensors").values())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", 0, "loop.steps=0"),
        ("seconds", 0.0, "loop.seconds"),
        ("dtype", "float16", "Unknown loop.dtype 'float16'. Did you mean 'bfloat16'"),
        ("grad_clip", -1.0, "loop.grad_clip"),
        ("seed", -1, "loop.seed"),
        ("seed", 2**63, "loop.seed"),
    ],
)
def test_wrong_settings_are_named(key, value, message):
    with pytest.raises(UserError, match=message):
        LoopConfig(**{key: value})


def test_default_settings_are_plain(lab):
    assert json.loads(json.dumps(dataclasses.asdict(LoopConfig())))["steps"] == 1000


def test_groups_get_no_gradient_before_their_unfreeze_step(lab, tmp_path):
    seen = []
    job = lab.regression(
        at_step=lambda step: seen.append((late.weight.requires_grad, bool((late.weight != before).any())))
    )
    late = job.model[0]
    before = late.weight.detach().clone()
    job.groups = parameter_groups(job.model, unfreeze_step=lambda name: 3 if name.startswith("0.") else 0)
    fit(job, lab.loop_config(steps=5), tmp_path)
    assert seen == [(False, False)] * 3 + [(True, False), (True, True)]


def test_ctrl_c_in_a_process_of_its_own(lab, tmp_path):
    """The first signal ends the run with a checkpoint and exit code 0; nothing is left half-written."""
    from pathlib import Path

    command = [sys.executable, str(Path(__file__).with_name("train_in_a_process.py")), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "checkpoints/latest").exists():
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0
    assert "saving a checkpoint" in errors
    assert (tmp_path / "checkpoints/latest").is_file()
    assert not (tmp_path / "result.json").exists()
    assert not list(tmp_path.rglob(".tmp-*"))
