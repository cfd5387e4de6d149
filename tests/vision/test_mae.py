import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.masking import sample_mask
from pixio_robot.vision.pixio import PixioEncoder


def make(pixel_normalisation=True, block=2):
    encoder = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=64, class_tokens=4))
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


def test_the_compiled_model_gives_the_same_loss_and_gradients():
    model, batch = make(), images()
    eager = model(batch, torch.Generator().manual_seed(0)).loss
    eager.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager")(batch, torch.Generator().manual_seed(0)).loss
    compiled.backward()
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-3, rtol=1e-3)
