"""Real students of a tiny teacher."""

import dataclasses

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.training.distill import DistillConfig, distill
from pixio_robot.training.loop import LoopConfig
from pixio_robot.training.optim import OptimConfig
from pixio_robot.vision.config import EncoderConfig, MaskConfig
from pixio_robot.vision.distill import Distillation, StudentConfig
from pixio_robot.vision.pixio import PixioEncoder

SHAPE = EncoderConfig(size="tiny", patch=8, image_size=32, class_tokens=2)


@pytest.fixture
def teacher() -> PixioEncoder:
    return PixioEncoder(dataclasses.replace(SHAPE, size="small"), seed=3)


@pytest.fixture
def config(shards, teacher, tmp_path) -> DistillConfig:
    teacher.save(tmp_path / "teacher")
    return DistillConfig(
        data=[shards],
        teacher=str(tmp_path / "teacher"),
        out=str(tmp_path / "run"),
        students=[
            StudentConfig(name="whole", encoder=SHAPE),
            StudentConfig(name="masked", encoder=SHAPE, mask=MaskConfig(ratio=0.5, block=2)),
        ],
        batch_size=8,
        optim=OptimConfig(lr=3e-3, betas=[0.9, 0.95]),
        loop=LoopConfig(steps=60, log_every=10, save_every=30),
        validation_every=30,
        validation_batches=1,
        workers=1,
        device="cpu",
    )


@pytest.mark.slow
def test_distillation_reduces_the_student_losses(config, tmp_path, lab):
    distill(config)
    lines = lab.metric_lines(tmp_path / "run")
    # The first validation comes half way.
    for name, share in (("loss/whole", 0.7), ("loss/masked", 0.7), ("validation_loss", 0.9)):
        curve = [line[name] for line in lines if name in line]
        assert curve[-1] < share * curve[0], name
    for student in config.students:
        assert PixioEncoder.from_pretrained(tmp_path / "run/model" / student.name).config.size == "tiny"


def test_validation_masks_are_fixed(config, tmp_path, lab):
    still = OptimConfig(lr=1e-12, weight_decay=0.0)
    distill(dataclasses.replace(config, optim=still, loop=LoopConfig(steps=2), validation_every=1))
    first, second = (
        line["validation_loss"] for line in lab.metric_lines(tmp_path / "run") if "validation_loss" in line
    )
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted(config, tmp_path, lab, monkeypatch):
    short = dataclasses.replace(config, loop=LoopConfig(steps=8, log_every=2, save_every=3), validation_every=4)
    distill(dataclasses.replace(short, out=str(tmp_path / "whole")))
    taken = iter(range(100))
    forward = Distillation.forward

    def interrupted(self, *arguments):
        if self.training and next(taken) == 4:
            lab.interrupt_at(0)(0)
        return forward(self, *arguments)

    monkeypatch.setattr(Distillation, "forward", interrupted)
    stopped = dataclasses.replace(short, out=str(tmp_path / "stopped"))
    assert distill(stopped).interrupted
    monkeypatch.setattr(Distillation, "forward", forward)
    assert distill(stopped).steps == 8
    lab.assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_perfect_student_has_no_loss(teacher):
    """The teacher's tokens leave before its norm, so the projection has to undo the student's: here by hand."""
    student = Distillation(teacher, [StudentConfig(name="same", encoder=teacher.config)])
    own = student.students["same"]
    own.encoder.load_state_dict(teacher.state_dict())
    own.encoder.vit.norm = torch.nn.Identity()
    own.projection = torch.nn.Identity()
    images = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    assert student(images).loss.item() == pytest.approx(0.0, abs=1e-6)


def test_parts_of_a_batch_have_the_loss_of_the_whole(teacher):
    masked = StudentConfig(name="one", encoder=SHAPE, mask=MaskConfig(ratio=0.5, block=2))
    model = Distillation(teacher, [masked]).eval()
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    whole = model(images, torch.Generator().manual_seed(0)).loss
    parts = [model(images[2 * i : 2 * i + 2], torch.Generator().manual_seed(0), 2, i).loss for i in range(2)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole)


def test_a_masked_student_is_held_against_the_patches_that_it_sees(teacher):
    """As the perfect student above, of which each token depends on its own patch alone."""
    for block in teacher.vit.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.attn.proj.bias)
    model = Distillation(teacher, [StudentConfig(name="same", encoder=teacher.config, mask=MaskConfig(block=2))])
    own = model.students["same"]
    own.encoder.load_state_dict(teacher.state_dict())
    own.encoder.vit.norm = torch.nn.Identity()
    own.projection = torch.nn.Identity()
    images = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    assert model(images).loss.item() == pytest.approx(0.0, abs=1e-6)


def test_the_teacher_drops_no_paths(teacher):
    """Whatever mode it comes in: it was pretrained with some."""
    dropping = PixioEncoder(dataclasses.replace(teacher.config, drop_path=0.9), seed=3).train()
    distillation = Distillation(dropping, [StudentConfig(name="one", encoder=SHAPE)]).train()
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    losses = [distillation.student_losses(images, {"one": None})["one"].item() for _ in range(3)]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.slow
def test_the_compiled_step_is_one_graph_with_the_same_loss_and_gradients(teacher, config):
    results = []
    images = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for compiled in (False, True):
        model = Distillation(teacher, config.students)
        if compiled:
            torch._dynamo.utils.counters.clear()
            model.compile(backend="aot_eager")
        loss = model(images, torch.Generator().manual_seed(0)).loss
        loss.backward()
        results.append((loss, {name: parameter.grad for name, parameter in model.named_parameters()}))
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_the_teacher_is_no_part_of_the_state(teacher):
    model = Distillation(teacher, [StudentConfig(name="a", encoder=SHAPE)])
    assert all(name.startswith("students.a.") for name in model.state_dict())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_incompatible_students_are_refused_by_name(config, teacher, tmp_path):
    with pytest.raises(UserError, match="Student tiny has class_tokens=1; it must have 2"):
        Distillation(teacher, [StudentConfig(encoder=dataclasses.replace(SHAPE, class_tokens=1))])
    with pytest.raises(UserError, match="must have different names, not tiny, tiny"):
        Distillation(teacher, [StudentConfig(encoder=SHAPE), StudentConfig(encoder=SHAPE)])
    with pytest.raises(UserError, match="cannot be called 'half'"):
        StudentConfig(name="half", encoder=SHAPE)
    with pytest.raises(UserError, match="Student a: mask block=3 does not divide the patch grid 4x4"):
        distill(
            dataclasses.replace(config, students=[StudentConfig(name="a", encoder=SHAPE, mask=MaskConfig(block=3))])
        )
    coarse = [StudentConfig(encoder=dataclasses.replace(SHAPE, patch=16))]
    with pytest.raises(UserError, match="Student tiny has a 2x2 patch grid for 32 px images, the teacher 4x4"):
        distill(dataclasses.replace(config, students=coarse))
    with pytest.raises(UserError, match="students is empty"):
        dataclasses.replace(config, students=[])
