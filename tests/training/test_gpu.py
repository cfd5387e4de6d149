"""What only a CUDA device can show: bfloat16 and compiled steps, copies that do not wait, losses near the CPU's."""

import dataclasses
import itertools
import time

import pytest
import torch

from pixio_robot.machine import to_device
from pixio_robot.training.distill import DistillConfig, distill
from pixio_robot.training.loop import LoopConfig, _TrainingRun
from pixio_robot.training.monitoring.throughput import GpuWaitTimer
from pixio_robot.training.optim import OptimConfig
from pixio_robot.training.pretrain import PretrainConfig, pretrain
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.distill import StudentConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder

pytestmark = pytest.mark.gpu


@pytest.fixture
def config(shards, tmp_path) -> PretrainConfig:
    return PretrainConfig(
        data=[shards],
        out=str(tmp_path / "run"),
        encoder=EncoderConfig(size="tiny", patch=8, image_size=32, class_tokens=2),
        decoder=DecoderConfig(width=64, depth=2, heads=2),
        mask=MaskConfig(block=1),
        batch_size=8,
        optim=OptimConfig(lr=0.03, betas=[0.9, 0.95], weight_decay=0.05),
        loop=LoopConfig(steps=12, log_every=3, save_every=5),
        panels_every=6,
        validation_batches=2,
        workers=1,
        device="cuda",
    )


def test_float32_training_on_gpu_matches_cpu(config, tmp_path, lab):
    """The masks come from the device's own generator, so the curves agree in level, not step by step."""
    exact = dataclasses.replace(config, loop=dataclasses.replace(config.loop, dtype="float32"))
    pretrain(exact)
    pretrain(dataclasses.replace(exact, out=str(tmp_path / "cpu"), device="cpu"))
    curves = [
        [line["validation_loss"] for line in lab.metric_lines(tmp_path / run) if "validation_loss" in line]
        for run in ("run", "cpu")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=0.05)


@pytest.mark.slow
def test_a_compiled_bfloat16_run_resumes(config, tmp_path, lab, monkeypatch):
    compiled = dataclasses.replace(config, loop=dataclasses.replace(config.loop, compile=True))
    taken = iter(range(100))
    forward = Pixio.forward

    def interrupted(self, *arguments):
        if self.training and next(taken) == 6:
            lab.interrupt_at(0)(0)
        return forward(self, *arguments)

    monkeypatch.setattr(Pixio, "forward", interrupted)
    assert pretrain(compiled).interrupted
    monkeypatch.setattr(Pixio, "forward", forward)
    assert pretrain(compiled).steps == 12
    assert lab.metric_lines(tmp_path / "run")[-1]["validation_loss"] < 1.3
    encoder = PixioEncoder.from_pretrained(tmp_path / "run/model")
    assert all(parameter.dtype is torch.float32 for parameter in encoder.parameters())


def test_students_learn(config, tmp_path, lab):
    PixioEncoder(dataclasses.replace(config.encoder, size="small"), seed=3).save(tmp_path / "teacher")
    students = [StudentConfig(encoder=config.encoder, mask=MaskConfig(ratio=0.5, block=2))]
    distill(
        DistillConfig(
            data=config.data,
            teacher=str(tmp_path / "teacher"),
            out=str(tmp_path / "students"),
            students=students,
            batch_size=8,
            optim=OptimConfig(lr=3e-3),
            loop=LoopConfig(steps=40, log_every=10),
            workers=1,
            device="cuda",
        )
    )
    losses = [line["loss"] for line in lab.metric_lines(tmp_path / "students") if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]


def test_copies_do_not_wait_for_the_device():
    """With the device busy for a while, the call that copies comes back at once, and what arrives is whole."""
    device = torch.device("cuda")
    images = torch.randint(0, 256, (64, 96, 96, 3), dtype=torch.uint8)
    to_device(images, device)  # the first call sets up the allocators
    torch.cuda.synchronize()
    torch.cuda._sleep(500_000_000)  # cycles: some tenths of a second
    copied = to_device(images, device)
    assert not torch.cuda.current_stream().query()
    assert torch.equal(copied.cpu(), images)


def test_training_step_never_synchronises_with_the_device(config, monkeypatch):
    """PyTorch raises on any synchronising call in a step of the optimiser, but for the first, which sets up."""
    step, calls = _TrainingRun._optimizer_step, itertools.count()

    def watched(run: _TrainingRun) -> None:
        if next(calls):
            torch.cuda.set_sync_debug_mode("error")
        try:
            step(run)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_TrainingRun, "_optimizer_step", watched)
    assert pretrain(config).steps == next(calls) > 2


def test_data_wait_is_measured_while_the_gpu_is_idle():
    waits, seconds = GpuWaitTimer(), []
    for cycles in (1_000_000_000, 0):  # half a second of work or more, then none
        torch.cuda.synchronize()
        torch.cuda._sleep(cycles)
        with waits.time_wait():
            time.sleep(0.1)
        torch.cuda.synchronize()
        seconds.append(waits.read_and_reset())
    assert seconds[0] < 0.01
    assert 0.09 < seconds[1] < 0.2
