"""A tiny Pixio on real shards: what a run leaves behind, exact resume, and weights to begin from."""

import dataclasses
import os

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixio_robot.errors import UserError
from pixio_robot.training.distributed.strategy import DistributedModel
from pixio_robot.training.loop import LoopConfig
from pixio_robot.training.optim import OptimConfig, freeze_by_schedule, parameter_groups
from pixio_robot.training.pretrain import PretrainConfig, build_pixio, pretrain
from pixio_robot.types import Features
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weight_init import materialise


@pytest.fixture
def config(shards, tmp_path) -> PretrainConfig:
    return PretrainConfig(
        data=[shards],
        out=str(tmp_path / "run"),
        encoder=EncoderConfig(size="tiny", patch=8, image_size=32, class_tokens=2, drop_path=0.1),
        decoder=DecoderConfig(width=32, depth=1, heads=2),
        mask=MaskConfig(block=1),
        batch_size=8,
        optim=OptimConfig(lr=0.03, betas=[0.9, 0.95], weight_decay=0.05),
        loop=LoopConfig(steps=12, log_every=3, save_every=5),
        panels_every=6,
        validation_batches=2,
        workers=1,
        device="cpu",
    )


def at(config: PretrainConfig, out, **changes) -> PretrainConfig:
    return dataclasses.replace(config, out=str(out), **changes)


def test_a_run_leaves_an_encoder_a_whole_model_and_pictures(config, tmp_path, lab):
    result = pretrain(config)
    run = tmp_path / "run"
    assert (result.steps, result.interrupted) == (12, False)
    encoder = PixioEncoder.from_pretrained(run / "model")
    assert isinstance(encoder(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)), Features)
    assert Pixio.load(run / "mae").encoder.fingerprint() == encoder.fingerprint()
    lines = lab.metric_lines(run)
    validation = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert list(validation) == [6, 12]
    assert validation[12] < validation[6] < 1.3
    assert sorted(path.name for path in (run / "panels").iterdir()) == ["step_00000006.png", "step_00000012.png"]
    picture = cv2.imread(str(run / "panels/step_00000012.png"))
    assert picture.shape == (6 * 32, 3 * 32, 3)
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    shown = board.Images("panels")
    assert [image.step for image in shown] == [6, 12]
    in_board = cv2.imdecode(np.frombuffer(shown[-1].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert (in_board == picture).all()
    assert {"loss", "lr", "grad_norm", "examples_per_second", "validation_loss"} <= set(board.Tags()["scalars"])
    assert lines[1]["lr"] <= config.optim.lr * 8 / 256


def test_interrupted_and_resumed_equals_uninterrupted(config, tmp_path, lab, monkeypatch):
    pretrain(at(config, tmp_path / "whole"))
    taken = iter(range(100))
    forward = Pixio.forward

    def interrupted(self, *args):
        if self.training and next(taken) == 6:
            os.kill(os.getpid(), 2)
        return forward(self, *args)

    monkeypatch.setattr(Pixio, "forward", interrupted)
    assert pretrain(at(config, tmp_path / "stopped")).interrupted
    monkeypatch.setattr(Pixio, "forward", forward)
    torch.manual_seed(99)
    assert pretrain(at(config, tmp_path / "stopped")).steps == 12
    lab.assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_the_rate_is_that_of_all_images_of_an_update(config, tmp_path, lab):
    loop = LoopConfig(steps=1, accumulate=2, log_every=1)
    optim = OptimConfig(lr=0.03, warmup_steps=0)
    pretrain(at(config, tmp_path / "run", loop=loop, optim=optim))
    (line,) = [line for line in lab.metric_lines(tmp_path / "run") if "lr" in line]
    assert line["lr"] == pytest.approx(0.03 * 2 * 8 / 256)


def test_panels_depend_only_on_the_weights(config, tmp_path, lab):
    """The same images, crops and masks."""
    config = dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, drop_path=0.9),
        optim=OptimConfig(lr=1e-12, weight_decay=0.0),
        loop=LoopConfig(steps=2),
        panels_every=1,
        validation_batches=1,
        batch_size=4,
    )
    pretrain(config)
    lines = [line["validation_loss"] for line in lab.metric_lines(tmp_path / "run") if "validation_loss" in line]
    assert len(lines) == 2
    assert lines[0] == pytest.approx(lines[1], rel=1e-5)
    first, second = (cv2.imread(str(tmp_path / f"run/panels/step_{step:08d}.png")).astype(int) for step in (1, 2))
    assert np.abs(first - second).max() <= 1


def test_initial_weights(config, tmp_path):
    one_step = LoopConfig(steps=1, save_every=5)
    slow = OptimConfig(lr=1e-9, weight_decay=0.0)
    seed_encoder = PixioEncoder(config.encoder, seed=77)
    seed_encoder.save(tmp_path / "encoder")
    first = at(config, tmp_path / "first", initial_weights=str(tmp_path / "encoder"), loop=one_step, optim=slow)
    pretrain(first)
    trained = Pixio.load(tmp_path / "first/mae")
    torch.testing.assert_close(trained.encoder.state_dict(), seed_encoder.state_dict())
    second = at(first, tmp_path / "second", initial_weights=str(tmp_path / "first/mae"))
    pretrain(second)
    torch.testing.assert_close(Pixio.load(tmp_path / "second/mae").state_dict(), trained.state_dict())
    assert dict(build_pixio(at(second, tmp_path / "x", initial_weights=str(tmp_path / "first")))[1]).keys() == (
        trained.state_dict().keys()
    ), "a run stands for the whole Pixio that it left"
    (tmp_path / "none").mkdir()
    (tmp_path / "none/config.json").write_text("[1]")
    with pytest.raises(UserError, match="describes neither an encoder"):
        build_pixio(at(first, tmp_path / "x", initial_weights=str(tmp_path / "none")))
    wider = dataclasses.replace(config.encoder, size="small")
    with pytest.raises(UserError, match=r"encoder\.size='small' against 'tiny'"):
        pretrain(at(first, tmp_path / "third", encoder=wider))
    deeper = DecoderConfig(width=32, depth=2, heads=2)
    with pytest.raises(UserError, match=r"decoder\.depth=2 against 1"):
        pretrain(at(second, tmp_path / "third", decoder=deeper))


def test_encoder_stays_frozen_until_encoder_begins(config, tmp_path):
    PixioEncoder(config.encoder, seed=77).save(tmp_path / "encoder")
    before = PixioEncoder(config.encoder, seed=77).state_dict()
    warming = at(
        config, tmp_path / "a", initial_weights=str(tmp_path / "encoder"), encoder_begins=4, loop=LoopConfig(steps=4)
    )
    pretrain(warming)
    still = Pixio.load(tmp_path / "a/mae")
    assert all(torch.equal(value, before[name]) for name, value in still.encoder.state_dict().items())
    pretrain(at(warming, tmp_path / "b", encoder_begins=3))
    moved = Pixio.load(tmp_path / "b/mae")
    assert not torch.equal(moved.encoder.vit.patch_embed.weight, before["vit.patch_embed.weight"])
    _, first_weights = build_pixio(warming)
    assert not torch.equal(moved.decoder.head.weight, dict(first_weights)["decoder.head.weight"])


def test_compiled_encoder_trains_after_its_unfreeze_step(config, tmp_path):
    """Compiled code does not notice by itself that parameters require gradients again."""
    model, weights = build_pixio(at(config, tmp_path, encoder=EncoderConfig(size="micro", patch=8, image_size=32)))
    materialise(model, weights)
    del model.encoder.vit.blocks[1:]  # compiling takes time for each
    model.compile(backend="aot_eager")
    distributed = DistributedModel(model, compiled=True)
    groups = parameter_groups(model, unfreeze_step=lambda name: 1 if name.startswith("encoder.") else 0)
    images, trained = torch.zeros(2, 32, 32, 3, dtype=torch.uint8), []
    for step in range(3):
        if freeze_by_schedule(groups, step):
            distributed.rewrap()
        model(images).loss.backward()
        trained.append({name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    assert trained == [{"decoder"}, {"encoder", "decoder"}, {"encoder", "decoder"}]


def test_mistakes_are_named(config, tmp_path):
    with pytest.raises(UserError, match="patches of 8 pixels"):
        pretrain(at(config, tmp_path / "a", image_size=36))
    with pytest.raises(UserError, match="nowhere"):
        pretrain(at(config, tmp_path / "a", data=["nowhere"]))
    with pytest.raises(UserError, match=r"data_weights=\[1, 2\] must have one .* for each of the 1 sources"):
        pretrain(at(config, tmp_path / "a", data_weights=[1, 2]))
    with pytest.raises(UserError, match="batch_size=0"):
        at(config, tmp_path / "a", batch_size=0)
    pretrain(at(config, tmp_path / "b", loop=LoopConfig(steps=1)))
    with pytest.raises(UserError, match=r"mask\.ratio"):
        pretrain(at(config, tmp_path / "b", loop=LoopConfig(steps=1), mask=MaskConfig(ratio=0.5, block=1)))
