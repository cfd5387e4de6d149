"""Schedules, averages, checkpoints and devices, each by its law."""

import json
import os
import pickle
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pixio_robot.errors import UserError
from pixio_robot.machine import usable_cores
from pixio_robot.training import rng
from pixio_robot.training.checkpoint import latest_checkpoint, load_weights, read_checkpoint, write_checkpoint
from pixio_robot.training.device import pick_device
from pixio_robot.training.distributed.sharded_files import load_sharded
from pixio_robot.training.ema import Ema, decay_at
from pixio_robot.training.interrupt import Interrupt
from pixio_robot.training.loop import fit
from pixio_robot.training.optim import (
    OptimConfig,
    build_optimizer,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)
from pixio_robot.training.pretrain import scale_lr_to_batch
from pixio_robot.training.state import TrainingState


@given(st.integers(10, 2000), st.integers(0, 9), st.floats(0, 1e-4))
def test_learning_rate_warms_up_and_decays(steps, warmup, final_lr):
    config = OptimConfig(lr=1e-3, warmup_steps=warmup, final_lr=final_lr)
    rates = [learning_rate(step, steps, config) for step in range(steps + 1)]
    peak = max(range(steps), key=rates.__getitem__)
    assert rates[peak] == pytest.approx(1e-3)
    assert peak in (warmup, warmup - 1)
    assert rates[:warmup] == pytest.approx([1e-3 * (step + 1) / warmup for step in range(warmup)])
    assert all(after <= before for before, after in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert rates[steps] == pytest.approx(final_lr)
    assert min(rates[:-1]) > 0


def test_the_default_warm_up_fits_the_run():
    config = OptimConfig(lr=1.0)
    assert [max(range(steps), key=lambda s, n=steps: learning_rate(s, n, config)) for steps in (5, 100, 20_000)] == [
        0,
        9,
        499,
    ]


def test_learning_rate_scales_with_the_batch_size():
    scaled = scale_lr_to_batch(OptimConfig(lr=2.5e-5, final_lr=1e-6), 8192)
    assert (scaled.lr, scaled.final_lr) == pytest.approx((8e-4, 3.2e-5))  # arXiv 2512.15715: H on ImageNet


def test_groups_leave_out_frozen_parameters_and_decay_only_matrices():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 3), "head": nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 1))})
    model["head"][1].bias.requires_grad_(False)
    groups = parameter_groups(model, lambda name: 0.1 if name.startswith("encoder") else 1.0)
    assert {(tuple(group.parameters), group.lr_scale, group.decayed) for group in groups} == {
        (("encoder.weight",), 0.1, True),
        (("encoder.bias",), 0.1, False),
        (("head.0.weight", "head.0.bias"), 1.0, False),
        (("head.1.weight",), 1.0, True),
    }


def test_optimiser_has_the_configured_settings():
    groups = parameter_groups(nn.Linear(2, 3), lambda name: 0.1 if name == "bias" else 1.0)
    config = OptimConfig(lr=0.5, betas=[0.8, 0.7], eps=1e-3, weight_decay=0.3)
    optimizer = build_optimizer(groups, config)
    set_learning_rate(optimizer, 0.5)
    keys = ("lr", "betas", "eps", "weight_decay")
    assert [tuple(group[key] for key in keys) for group in optimizer.param_groups] == [
        (0.5, (0.8, 0.7), 1e-3, 0.3),
        (0.05, (0.8, 0.7), 1e-3, 0.0),
    ]


def test_a_run_draws_other_numbers_for_another_seed(lab):
    drawn = []
    for seed in (3, 3, 4):
        job = lab.regression()
        TrainingState(job, seed)
        drawn.append((torch.rand(()).item(), torch.rand((), generator=job.generators["noise"]).item()))
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


@pytest.mark.parametrize(
    "wrong", [{"lr": 0.0}, {"betas": [0.9]}, {"betas": [0.9, 1.0]}, {"warmup_steps": -1}, {"final_lr": 1.0}]
)
def test_wrong_optimiser_settings_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        OptimConfig(**wrong)


def test_the_average_follows_its_definition():
    model = nn.Linear(2, 1, bias=False)
    ema, expected = Ema(model), torch.zeros(1, 2)
    for step in range(1, 50):
        nn.init.constant_(model.weight, float(step))
        ema.update()
        decay = 0.0 if step == 1 else min(1 - step**-0.75, 0.9999)
        assert decay_at(step) == pytest.approx(decay)
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(ema.tensors()["weight"], expected)
    with ema.average_parameters():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert model.weight[0, 0] == 49.0
    assert decay_at(10**9) == 0.9999


def test_all_random_states_are_restored():
    own = {"own": torch.Generator().manual_seed(4)}
    draw = lambda: (torch.rand(3).tolist(), np.random.normal(), torch.rand(2, generator=own["own"]).tolist())  # noqa: E731, NPY002
    device = torch.device("cpu")
    np.random.normal()  # noqa: NPY002 - leaves half a pair behind, which is part of the state
    tensors, values = rng.get_rng_state(device, own)
    values = json.loads(json.dumps(values))
    first = draw()
    assert draw() != first
    rng.set_rng_state(device, own, tensors, values)
    assert draw() == first
    rng.set_rng_state(device, own, {"torch.cpu": tensors["torch.cpu"]}, values, fallback_seed=9)
    assert draw()[2] == torch.rand(2, generator=torch.Generator().manual_seed(9)).tolist()


SHARDED = {"model": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}}


def write(directory, step, sharded=SHARDED, keep=2):
    return write_checkpoint(directory, step, sharded, {"window": {}}, {"x": [1, None]}, keep)


def test_checkpoint_round_trip(tmp_path):
    tied = torch.ones(2)
    written = write(tmp_path, 7, SHARDED | {"tied": {"a": tied, "b": tied, "c": tied[:1]}}, keep=1)
    path = latest_checkpoint(tmp_path)
    assert path == written
    sizes, parts, trainer = read_checkpoint(path)
    assert sizes == {"model": {"weight": (2, 3), "count": ()}, "tied": {"a": (2,), "b": (2,), "c": (1,)}}
    assert parts == {"window": {}}
    for name, tensors in SHARDED.items():
        found = {key: torch.zeros_like(value) for key, value in tensors.items()}
        load_sharded(path / name, found)
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    header = [trainer[key] for key in ("kind", "format_version", "step", "x")]
    assert header == ["training_state", 4, 7, [1, None]]


def test_frozen_weights_are_written_once(tmp_path):
    encoder, head = torch.arange(3.0), torch.ones(2)

    def save(step, encoder):
        return write_checkpoint(tmp_path, step, {"model": {"head": head * step}}, {}, {}, 2, {"encoder": encoder})

    def load(path):
        assert read_checkpoint(path)[0] == {"model": {"head": (2,), "encoder": (3,)}}
        load_weights(path, weights := {"encoder": torch.zeros(3), "head": torch.zeros(2)})
        return weights["encoder"].tolist(), weights["head"].tolist()

    save(1, encoder + 5)
    shutil.rmtree(tmp_path / "step_00000001")  # as of another run, killed before it had a checkpoint
    first = save(1, encoder)
    (written,) = (tmp_path / "frozen").iterdir()
    before = written.stat()
    second = save(2, encoder)
    assert written.stat() == before
    assert load(first) == ([0, 1, 2], [1, 1])
    assert load(second) == ([0, 1, 2], [2, 2])
    assert latest_checkpoint(tmp_path) == second
    written.unlink()
    with pytest.raises(UserError, match="frozen is missing"):
        read_checkpoint(second)


def test_latest_checkpoint_is_found_without_the_pointer(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for step in (1, 2, 10):
        write(tmp_path, step)
    assert latest_checkpoint(tmp_path) == tmp_path / "step_00000010"
    (tmp_path / "latest").write_text("../../etc\n")
    assert latest_checkpoint(tmp_path) == tmp_path / "step_00000010"
    (tmp_path / "step_00000010/trainer.json").unlink()
    assert latest_checkpoint(tmp_path) == tmp_path / "step_00000002"


def test_a_run_goes_on_from_where_latest_points_though_later_checkpoints_are_there(tmp_path):
    for step in (1, 2, 10):
        write(tmp_path, step)
    (tmp_path / "latest").write_text("step_00000002\n")
    assert latest_checkpoint(tmp_path) == tmp_path / "step_00000002"
    assert write(tmp_path, 5, keep=1) == latest_checkpoint(tmp_path)


def test_damaged_checkpoints_are_refused_with_a_remedy(tmp_path):
    path = write(tmp_path, 3)
    (weights,) = (path / "model").iterdir()
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(UserError, match=rf"{weights.name} cannot be read.*remove .*step_00000003 to continue"):
        read_checkpoint(path)
    weights.unlink()
    with pytest.raises(UserError, match=rf"{weights.name} is missing.*remove .*step_00000003 to continue"):
        read_checkpoint(path)
    trainer = path / "trainer.json"
    whole = trainer.read_text()
    trainer.write_text(whole.replace('"format_version": 4', '"format_version": 1'))
    with pytest.raises(UserError, match="format_version 1; this release reads 4"):
        read_checkpoint(path)
    trainer.write_text("[]")
    with pytest.raises(UserError, match="not a training checkpoint"):
        read_checkpoint(path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_opening_a_strangers_checkpoint_runs_nothing(lab, tmp_path, monkeypatch):
    """A peer's defect: unpickling a checkpoint executes code."""
    monkeypatch.chdir(tmp_path)
    fit(lab.regression(at_step=lab.interrupt_at(2)), lab.loop_config(), tmp_path / "run")
    checkpoint = tmp_path / "run/checkpoints/step_00000003"
    files = list(checkpoint.rglob("*.safetensors"))
    assert len(files) == 5
    for file in files:
        original = file.read_bytes()
        file.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(UserError, match=file.name):
            fit(lab.regression(), lab.loop_config(), tmp_path / "run")
        torch.save(Bomb(), file)
        with pytest.raises(UserError, match=file.name):
            fit(lab.regression(), lab.loop_config(), tmp_path / "run")
        file.write_bytes(original)
    assert not (tmp_path / "exploded").exists()
    assert fit(lab.regression(), lab.loop_config(), tmp_path / "run").steps == 60


def test_a_model_of_another_shape_does_not_resume(lab, tmp_path):
    fit(lab.regression(at_step=lab.interrupt_at(2)), lab.loop_config(), tmp_path)
    job = lab.regression()
    job.model[0] = nn.Linear(5, 32)
    with pytest.raises(UserError, match=r"wrong shape: 0\.weight"):
        fit(job, lab.loop_config(), tmp_path)
    with pytest.raises(UserError, match="use_ema: True there, False now"):
        fit(lab.regression(use_ema=False), lab.loop_config(), tmp_path)


@pytest.fixture
def sigint_heard():
    """Tests that a script has put into the background by `&` are started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_heard")
def test_first_signal_requests_a_stop_and_the_second_interrupts(monkeypatch):
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)  # at once: the same one, passed on by a launcher
        monkeypatch.setattr("pixio_robot.training.interrupt.SAME_SIGNAL_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    earlier = signal.getsignal(signal.SIGTERM)
    with Interrupt():
        assert signal.getsignal(signal.SIGTERM) != earlier
    assert signal.getsignal(signal.SIGTERM) == earlier


def test_outside_the_main_thread_signals_are_left_alone():
    failed = []

    def work():
        try:
            with Interrupt() as interrupt:
                assert interrupt.signal == 0
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="Unknown device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(UserError, match="PyTorch finds no CUDA device; use device=cpu"):
            pick_device("cuda")
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
