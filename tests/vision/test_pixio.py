import dataclasses
import hashlib
import subprocess
import sys

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.types import Encoder
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.layers import DropPath
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.positions import interpolate_positions
from pixio_robot.vision.vit import patchify, unpatchify

CONFIG = EncoderConfig(size="tiny", patch=8, image_size=32, class_tokens=3)


def images(batch=2, height=32, width=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)


def test_it_is_an_encoder_and_gives_class_tokens_and_a_patch_map():
    encoder = PixioEncoder(CONFIG)
    assert isinstance(encoder, Encoder)
    features = encoder(images(2, 24, 40))
    assert features.cls.shape == (2, 3, 192)
    assert features.patches.shape == (2, 3, 5, 192)
    assert encoder.grid(24, 40) == (3, 5)


def test_patchify_and_back():
    pixels = torch.randn(2, 3, 16, 24)
    patches = patchify(pixels, 8)
    assert torch.equal(patches[1, 4], pixels[1, :, 8:16, 8:16].flatten())
    assert torch.equal(unpatchify(patches, 8, (2, 3)), pixels)


def test_patches_of_the_map_lie_where_they_lie_in_the_image():
    encoder = PixioEncoder(CONFIG).eval()
    one, other = images(1), images(1)
    other[:, 8:16, 24:32] ^= 255
    change = (encoder(one).patches - encoder(other).patches).abs().sum(-1)[0]
    assert change.argmax() == 1 * 4 + 3


def test_order_of_kept_patches_does_not_matter():
    encoder = PixioEncoder(CONFIG).eval()
    patches, grid = encoder.patches(images())
    keep = torch.tensor([[0, 3, 5, 9], [1, 2, 4, 15]])
    order = torch.tensor([2, 0, 3, 1])
    straight = encoder.vit(patches, grid, keep)
    shuffled = encoder.vit(patches, grid, keep[:, order])
    torch.testing.assert_close(straight[:, :3], shuffled[:, :3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(straight[:, 3:][:, order], shuffled[:, 3:], atol=1e-5, rtol=1e-5)


def test_keeping_everything_is_the_same_as_no_mask():
    encoder = PixioEncoder(CONFIG).eval()
    patches, grid = encoder.patches(images())
    all_kept = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(encoder.vit(patches, grid), encoder.vit(patches, grid, all_kept))


def test_intermediate_features():
    encoder = PixioEncoder(CONFIG).eval()
    last, third = encoder.intermediate(images(), [-1, 2])
    torch.testing.assert_close(last.patches, encoder(images()).patches)
    (raw,) = encoder.intermediate(images(), [2], norm=False)
    torch.testing.assert_close(encoder.vit.norm(raw.cls), third.cls)
    with pytest.raises(UserError, match="no block 6"):
        encoder.intermediate(images(), [6])


def test_positions_are_untouched_at_native_size_and_smooth_elsewhere():
    positions = torch.randn(16, 5)
    assert interpolate_positions(positions, 4, (4, 4)) is positions
    ramp = torch.arange(4.0).repeat(4, 1).flatten()[:, None]
    wide = interpolate_positions(ramp, 4, (4, 8)).view(4, 8)
    assert (wide.diff(dim=1) > 0).all()
    torch.testing.assert_close(wide, wide[:1].expand(4, 8))


def test_resize_happens_inside_and_changes_the_grid_and_the_fingerprint():
    plain = PixioEncoder(CONFIG).eval()
    resizing = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=32, class_tokens=3, resize=32)).eval()
    assert resizing.grid(100, 77) == (4, 4)
    assert resizing(images(1, 100, 77)).patches.shape == (1, 4, 4, 192)
    assert torch.equal(resizing(images()).cls, plain(images()).cls)
    assert resizing.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(2, 30, 32, 3, dtype=torch.uint8), "30x32"),
        (torch.zeros(2, 32, 32, 3), "float32"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"\(2, 3, 32, 32\)"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), r"uint8"),
    ],
)
def test_invalid_images_are_refused(bad, words):
    with pytest.raises(UserError, match=words):
        PixioEncoder(CONFIG)(bad)


def test_weights_follow_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = PixioEncoder(CONFIG, seed=1), PixioEncoder(CONFIG, seed=1), PixioEncoder(CONFIG, seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_every_weight_counts_in_the_fingerprint():
    encoder = PixioEncoder(CONFIG)
    seen = {encoder.fingerprint()}
    for parameter in encoder.parameters():
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-3
        seen.add(encoder.fingerprint())
    assert len(seen) == 1 + len(list(encoder.parameters()))


@pytest.mark.slow
def test_the_fingerprint_is_the_same_in_another_process():
    code = (
        "from pixio_robot.vision.pixio import PixioEncoder; from pixio_robot.vision.config import EncoderConfig;"
        "print(PixioEncoder(EncoderConfig(size='tiny', patch=8, image_size=32, class_tokens=3)).fingerprint())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == PixioEncoder(CONFIG).fingerprint()
    assert len(out) == len(hashlib.sha256().hexdigest())


def test_save_and_load_are_the_identity(tmp_path):
    encoder = PixioEncoder(CONFIG, seed=5).eval()
    encoder.save(tmp_path / "a")
    loaded = PixioEncoder.from_pretrained(tmp_path / "a")
    assert not loaded.training
    assert loaded.config == encoder.config
    assert loaded.fingerprint() == encoder.fingerprint()
    assert torch.equal(loaded(images()).patches, encoder(images()).patches)
    assert PixioEncoder.from_pretrained(tmp_path / "a", resize=16).grid(32, 32) == (2, 2)


def test_pretrained_encoder_gives_the_same_features_in_training_mode(tmp_path):
    """Its pretraining dropped paths; and arrays are taken as they are."""
    PixioEncoder(dataclasses.replace(CONFIG, drop_path=0.9)).save(tmp_path / "a")
    encoder = PixioEncoder.from_pretrained(tmp_path / "a")
    before = encoder(images())
    assert torch.equal(encoder.train()(images().numpy()).patches, before.patches)


def test_numpy_images_give_the_same_features_as_tensors():
    encoder, array = PixioEncoder(CONFIG).eval(), images().numpy()
    for view in (array[:, :, ::-1], array[..., ::-1], array.transpose(0, 2, 1, 3)):
        assert torch.equal(encoder(view).cls, encoder(view.copy()).cls)
    with pytest.raises(UserError, match=r"one tensor or array, .* not as list; combine"):
        encoder(list(array))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_encoder_may_be_cast(dtype):
    encoder = PixioEncoder(CONFIG).eval()
    before = encoder(images()).cls
    features = encoder.to(dtype)(images())
    assert features.cls.dtype == dtype
    torch.testing.assert_close(features.cls.float(), before, atol=0.1, rtol=0)


def test_paths_that_are_not_dropped_are_scaled_up():
    torch.manual_seed(0)
    kept = DropPath(0.75).train()(torch.ones(4000, 2, 3))
    assert set(kept.unique().tolist()) == {0.0, 4.0}
    assert (kept == kept[:, :1, :1]).all(), "a sample is dropped whole"
    assert kept.mean().item() == pytest.approx(1, abs=0.1)


def test_drop_path_acts_in_training_only():
    encoder = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=32, drop_path=0.9))
    assert [block.drop_path.rate for block in encoder.vit.blocks] == pytest.approx([0, 0.18, 0.36, 0.54, 0.72, 0.9])
    batch = images(1).expand(6, -1, -1, -1)
    assert (encoder(batch).cls.std(0) > 1e-3).any()
    encoder.eval()
    torch.testing.assert_close(encoder(batch).cls.std(0), torch.zeros(8, 192), atol=1e-4, rtol=0)
