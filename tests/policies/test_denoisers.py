import re

import pytest
import torch

from pixio_robot.errors import UserError
from policies.config import DENOISERS as NAMES
from policies.config import DenoiserConfig
from policies.networks.denoisers import DENOISERS, build_denoiser

CONFIGS = [
    DenoiserConfig(name="unet", widths=[16, 32]),
    DenoiserConfig(name="unet", widths=[16, 16, 32], kernel=3, groups=4),
    DenoiserConfig(name="unet", widths=[16]),
    DenoiserConfig(name="mlp", widths=[32, 32]),
]


def test_every_configurable_name_is_built():
    assert set(NAMES) == set(DENOISERS)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("horizon", [4, 8, 16])
def test_shape_and_dependence(config, horizon):
    """The answer depends on every input, and a row on its own inputs only."""
    network = build_denoiser(config, horizon, action_dim=5, condition_dim=6).eval()
    noisy, steps, condition = torch.randn(3, horizon, 5), torch.tensor([1, 50, 99]), torch.randn(3, 6)
    out = network(noisy, steps, condition)
    assert out.shape == noisy.shape
    changed = network(noisy, torch.tensor([1, 51, 99]), condition)
    assert not torch.allclose(changed[1], out[1])
    torch.testing.assert_close(changed[[0, 2]], out[[0, 2]])
    assert not torch.allclose(network(noisy, steps, condition + 1), out)
    noisy = noisy.clone().requires_grad_()
    network(noisy, steps, condition)[1].sum().backward()
    assert noisy.grad is not None
    assert noisy.grad[1].abs().amin() > 0
    assert noisy.grad[[0, 2]].abs().amax() == 0


@pytest.mark.parametrize("config", CONFIGS)
def test_every_parameter_is_used(config):
    network = build_denoiser(config, 8, 3, 4)
    network(torch.randn(2, 8, 3), torch.tensor([3, 4]), torch.randn(2, 4)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_the_transformer_looks_back_only_and_knows_how_old_a_frame_is():
    config = DenoiserConfig(name="transformer", widths=[32, 32])
    network = build_denoiser(config, 6, action_dim=5, condition_dim=4).eval()
    noisy, steps, frames = torch.randn(1, 6, 5), torch.tensor([7]), torch.randn(1, 3, 4)
    out = network(noisy, steps, frames)
    later = noisy.clone()
    later[:, 3] += 1
    changed = (network(later, steps, frames) - out).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [False] * 3 + [True] * 3
    assert not torch.allclose(network(noisy, steps, frames.flip(1)), out)
    seen: list[torch.Tensor] = []
    network.memory.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for count in (1, 2, 3):
        network(noisy, steps, frames[:, -count:])
    for memory in seen:
        torch.testing.assert_close(memory[:, -1], seen[0][:, -1])  # the newest frame has one age
    torch.testing.assert_close(seen[2][:, -2], seen[1][:, -2])


THEIR_NAMES = (
    (r"diffusion_step_encoder\.(\d)", lambda found: f"step_embedding.network.{int(found[1]) - 1}"),
    (r"down_modules\.(\d)\.2", r"shrink.\1"),
    (r"up_modules\.(\d)\.2", r"grow.\1"),
    (r"(down|up)_modules", r"\1"),
    (r"mid_modules", "middle"),
    (r"conv1\.block", "first"),
    (r"conv2\.block", "second"),
    (r"cond_encoder", "film"),
    (r"residual_conv", "residual"),
    (r"final_conv\.0\.block", "out.0"),
    (r"final_conv", "out"),
)


def test_the_transformer_has_the_parameters_of_the_published_one():
    """Those of diffusion_policy's `TransformerForDiffusion` but for its 3 learned positions of step and frames."""
    config = DenoiserConfig(name="transformer", widths=[256] * 8, heads=4)
    ours = build_denoiser(config, horizon=10, action_dim=10, condition_dim=137)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 8_997_642 - 3 * 256


def test_the_unet_is_the_published_one():
    """With the weights of lerobot's, which was ported from the release, it answers the same."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig as TheirConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d

    widths = [16, 32, 64]
    settings = TheirConfig(down_dims=tuple(widths), diffusion_step_embed_dim=12, use_film_scale_modulation=True)
    settings.output_features = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(5,))}
    theirs = DiffusionConditionalUnet1d(settings, global_cond_dim=7).eval()
    ours = build_denoiser(DenoiserConfig(name="unet", widths=widths, step_dim=12), 8, 5, 7).eval()
    weights = {}
    for name, value in theirs.state_dict().items():
        for pattern, ours_is in THEIR_NAMES:
            name = re.sub(pattern, ours_is, name)
        weights[name] = value
    ours.load_state_dict(weights)
    noisy, steps, condition = torch.randn(3, 8, 5), torch.tensor([1, 50, 99]), torch.randn(3, 7)
    torch.testing.assert_close(ours(noisy, steps, condition), theirs(noisy, steps, condition))


def test_published_recipe_can_be_expressed():
    config = DenoiserConfig(name="unet", widths=[512, 1024, 2048], kernel=5, groups=8, step_dim=128)
    with torch.device("meta"):
        network = build_denoiser(config, 16, 10, 2 * (2 * 64 + 9))
    assert sum(parameter.numel() for parameter in network.parameters()) > 200e6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_denoiser(DenoiserConfig(name="unet", widths=[8, 16, 32]), 6, 2, 2), "divisible by 4"),
        (lambda: DenoiserConfig(name="unt"), "unet"),
        (lambda: DenoiserConfig(name="unet", widths=[12]), "groups = 8"),
        (lambda: DenoiserConfig(name="unet", widths=[64], kernel=4), "odd"),
        (lambda: DenoiserConfig(step_dim=3), "even"),
        (lambda: DenoiserConfig(name="unet", widths=[]), "widths"),
        (lambda: DenoiserConfig(name="mlp", widths=[32, 64]), "equal"),
    ],
)
def test_bad_configs_say_what_is_right(make, message):
    with pytest.raises(UserError, match=message):
        make()
