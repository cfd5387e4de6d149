import copy

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.layers import compile_blocks, run_blocks
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.masking import sample_mask
from pixio_robot.vision.pixio import PixioEncoder


def make(pixel_normalisation=True, block=2):
    encoder = PixioEncoder(EncoderConfig(size="micro", patch=8, image_size=64, class_tokens=4))
    return Pixio(encoder, DecoderConfig(width=64, depth=2, heads=4), MaskConfig(block=block), pixel_normalisation)


def images(batch=3, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(batch, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def test_output_shapes_and_types():
    output = make()(images(), torch.Generator().manual_seed(0))
    assert output.loss.shape == ()
    assert output.loss.dtype == output.loss_per_image.dtype == torch.float32
    assert output.prediction.shape == (3, 64, 192)
    assert output.mask.sum(1).tolist() == [48, 48, 48]
    torch.testing.assert_close(output.loss, output.loss_per_image.mean())


@pytest.mark.parametrize("pixel_normalisation", [True, False])
def test_the_encoder_sees_no_hidden_pixel_and_the_loss_reads_no_other(pixel_normalisation):
    model = make(pixel_normalisation).eval()
    mask = sample_mask(3, (8, 8), model.mask_config, torch.Generator().manual_seed(0))
    batch = images()
    hidden_pixels = mask.hidden.view(3, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)[..., None]
    other = torch.where(hidden_pixels, images(seed=7), batch)
    one, two = model.reconstruct(batch, mask), model.reconstruct(other, mask)
    assert torch.equal(one.prediction, two.prediction)
    assert not torch.equal(one.loss_per_image, two.loss_per_image)
    (one.prediction.retain_grad(), one.loss.backward())
    reached = one.prediction.grad.abs().sum(-1) > 0
    assert torch.equal(reached, mask.hidden)


def test_the_loss_is_the_error_against_normalised_pixels_of_hidden_patches():
    model = make().eval()
    batch = images()
    output = model(batch, torch.Generator().manual_seed(3))
    patches, _ = model.encoder.patches(batch)
    expected = []
    for i in range(3):
        errors = []
        for j in range(64):
            if output.mask[i, j]:
                patch = patches[i, j]
                target = (patch - patch.mean()) / (patch.var(unbiased=True) + 1e-6).sqrt()
                errors.append((output.prediction[i, j] - target).square().mean())
        expected.append(torch.stack(errors).mean())
    torch.testing.assert_close(output.loss_per_image, torch.stack(expected))


def test_flat_images_give_a_finite_loss_and_gradient():
    model = make()
    output = model(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_every_parameter_learns():
    model = make()
    model(images()).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_same_generator_state_gives_the_same_loss():
    model = make()
    losses = [model(images(), torch.Generator().manual_seed(s)).loss.item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_parts_of_a_batch_are_masked_as_in_the_whole():
    model, batch = make().eval(), images(4)
    whole = model(batch, torch.Generator().manual_seed(3)).mask
    parts = [model(batch[i : i + 2], torch.Generator().manual_seed(3), shares=2, share=i // 2).mask for i in (0, 2)]
    assert torch.equal(torch.cat(parts), whole)


def test_other_resolutions_and_a_grid_blocks_do_not_fit():
    model = make()
    assert model(images(side=96)).prediction.shape == (3, 144, 192)
    with pytest.raises(UserError, match="does not divide the patch grid 9x9"):
        model(images(side=72))


def test_a_tiny_pixio_overfits_a_few_images():
    model = make()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    batch, mask = images(4), sample_mask(4, (8, 8), model.mask_config, torch.Generator().manual_seed(0))
    first = None
    for _ in range(80):
        loss = model.reconstruct(batch, mask).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first = first or loss.item()
    assert loss.item() < 0.4 * first


@pytest.mark.parametrize("pixel_normalisation", [True, False])
def test_panels_show_masked_predicted_and_original(pixel_normalisation):
    model = make(pixel_normalisation)
    batch = images()
    panels = model.panels(batch, torch.Generator().manual_seed(0))
    assert panels.dtype == torch.uint8
    assert panels.shape == (3, 64, 192, 3)
    mask = model(batch, torch.Generator().manual_seed(0)).mask
    hidden = mask.view(3, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    masked, predicted, original = panels.split(64, dim=2)
    assert torch.equal(original, batch)
    assert torch.equal(masked[~hidden], batch[~hidden])
    assert torch.equal(predicted[~hidden], batch[~hidden])
    assert len(masked[hidden].unique(dim=0)) == 1
    assert not torch.equal(predicted[hidden], batch[hidden])


def test_save_load_and_the_encoder_alone(tmp_path):
    model = make(pixel_normalisation=False)
    model.save(tmp_path / "model")
    loaded = Pixio.load(tmp_path / "model")
    one, two = (m(images(), torch.Generator().manual_seed(0)) for m in (model, loaded))
    assert torch.equal(one.loss_per_image, two.loss_per_image)
    assert PixioEncoder.from_pretrained(tmp_path / "model").fingerprint() == model.encoder.fingerprint()
    model.encoder.save(tmp_path / "encoder")
    with pytest.raises(UserError, match="kind 'pixio_encoder'"):
        Pixio.load(tmp_path / "encoder")


def test_bad_images_are_refused_before_anything_is_drawn():
    with pytest.raises(UserError, match="uint8"):
        make()(images().float())


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_the_compiled_step_is_one_graph_with_the_same_loss_and_gradients(backend):
    model, batch = make(), images()
    eager = model(batch, torch.Generator().manual_seed(0)).loss
    wanted = gradients(model, eager)
    model.compile(backend=backend)
    torch._dynamo.utils.counters.clear()
    compiled = model(batch, torch.Generator().manual_seed(0)).loss
    found = gradients(model, compiled)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_blocks_compiled_one_by_one_share_a_graph():
    """For several processes. They differ in the rate of dropped paths alone, which is none in the first."""
    config = EncoderConfig(size="micro", patch=8, image_size=64, drop_path=0.5)
    vit = PixioEncoder(config).vit
    tokens = torch.randn(2, 20, config.width)
    torch.manual_seed(1)
    wanted = run_blocks(vit.blocks, tokens, recompute=False)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_blocks(vit.blocks, backend="aot_eager")
    torch.manual_seed(1)
    found = run_blocks(vit.blocks, tokens, recompute=False)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_copy_of_a_compiled_model_has_weights_of_its_own():
    model, batch = make(), images()
    model.compile(backend="eager")
    before = model(batch, torch.Generator().manual_seed(0)).loss
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(model.decoder.head.weight)
    assert torch.equal(copied(batch, torch.Generator().manual_seed(0)).loss, before)


@pytest.mark.parametrize("compiled", [False, True])
def test_recomputing_activations_changes_neither_loss_nor_gradients(compiled):
    results = []
    for recompute in (False, True):
        config = EncoderConfig(size="micro", patch=8, image_size=64, drop_path=0.5, recompute=recompute)
        decoder = DecoderConfig(width=64, depth=2, heads=4, recompute=recompute)
        model = Pixio(PixioEncoder(config), decoder, MaskConfig(block=2))
        if compiled:
            del model.encoder.vit.blocks[1:-1], model.decoder.blocks[1:]  # compiling takes time for each
            model.compile(backend="aot_eager")
        torch.manual_seed(1)  # of the paths that are dropped
        loss = model(images(), torch.Generator().manual_seed(0)).loss
        results.append((loss, gradients(model, loss)))
    torch.testing.assert_close(*results)


def test_bfloat16_stays_near_float32():
    model, batch = make(), images()
    exact = model(batch, torch.Generator().manual_seed(0)).loss
    wanted = gradients(model, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch, torch.Generator().manual_seed(0))
    assert output.prediction.dtype is torch.bfloat16
    assert output.loss.dtype is torch.float32
    found = gradients(model, output.loss)
    torch.testing.assert_close(output.loss, exact, rtol=0.02, atol=0)
    for name, gradient in found.items():
        error = (gradient - wanted[name]).norm() / wanted[name].norm()
        assert error < 0.1, name


def test_pretraining_goes_on_from_a_trained_encoder_with_a_fresh_decoder():
    encoder = PixioEncoder(EncoderConfig(size="micro", patch=8, image_size=64), seed=5)
    before = encoder.fingerprint()
    one, again, other = (
        Pixio(encoder, DecoderConfig(width=64, depth=1, heads=4), MaskConfig(block=2), seed=seed) for seed in (1, 1, 2)
    )
    assert one.encoder.fingerprint() == before
    assert torch.equal(one.decoder.head.weight, again.decoder.head.weight)
    assert not torch.equal(one.decoder.head.weight, other.decoder.head.weight)
    one.encoder.requires_grad_(False)  # the warm-up: the decoder alone learns
    one(images()).loss.backward()
    assert all((p.grad is None) == name.startswith("encoder.") for name, p in one.named_parameters())
