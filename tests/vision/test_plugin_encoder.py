"""Encoders of installed packages: built, saved and opened by name, refused by a sentence that names their package."""

from pathlib import Path

import pytest
import torch
from site_packages import lay_down

from pixio_robot.errors import UserError
from pixio_robot.types import Encoder
from pixio_robot.vision.adapt import Adaptation, AdaptConfig, adapt
from pixio_robot.vision.build import EncoderKind, EncoderSource, build_encoder
from pixio_robot.vision.encoders.plugin_encoder import GROUP, InstalledConfig, InstalledEncoder
from policies.persistence import describe_encoder, rebuild_encoder

SOURCE = """
import torch
from safetensors.torch import load_file
from torch import nn
from pixio_robot.types import Features
from pixio_robot.vision import ForeignConfig, ForeignEncoder

class Stripes(ForeignEncoder):
    def __init__(self, weights, width=8):
        super().__init__(ForeignConfig(resize=32))
        self.feature_dim = width
        self.model = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.ReLU())
        self.never = nn.Linear(2, 2)
        if weights is not None:
            self.model.load_state_dict(load_file(weights))

    def represent(self, pixels):
        patches = self.model(pixels).permute(0, 2, 3, 1)
        return Features(patches.mean((1, 2))[:, None], patches)

def bare(weights):
    return nn.Linear(3, 3)

text = "encoder".upper
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    points = {name: f"stripes_{tmp_path.name}:{found}" for name, found in (("stripes", "Stripes"), ("bare", "bare"))}
    points |= {"text": f"stripes_{tmp_path.name}:text", "gone": "no_such_module:x"}
    lay_down(tmp_path / "site", "lab-encoders", points, {f"stripes_{tmp_path.name}": SOURCE}, group=GROUP)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def source(**settings) -> EncoderSource:
    return EncoderSource(kind=EncoderKind.INSTALLED, name="stripes", **settings)


def test_it_is_built_adapted_saved_and_rebuilt(site: Path) -> None:
    images = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)
    first = build_encoder(source(pretrained=False, options={"width": 16}, seed=1))
    assert isinstance(first, Encoder)
    assert first.feature_dim == 16
    assert first.grid(40, 40) == (4, 4)
    assert first(images).patches.shape == (2, 4, 4, 16)
    assert {name for name, p in first.named_parameters() if any(p is x for x in first.unused_parameters())} == {
        "own.never.weight",
        "own.never.bias",
    }
    again, other = (build_encoder(source(pretrained=False, options={"width": 16}, seed=seed)) for seed in (1, 2))
    assert again.fingerprint() == first.fingerprint() != other.fingerprint()
    description = describe_encoder(first)
    assert description == {
        "kind": "installed",
        "config": {"name": "stripes", "options": {"width": 16}, "package": "lab-encoders"},
    }
    rebuilt = rebuild_encoder(description, "here")
    rebuilt.load_state_dict(other.state_dict())
    assert torch.equal(rebuilt(images).cls, other(images).cls)
    adapt(first, AdaptConfig(mode=Adaptation.FROZEN))
    assert not any(parameter.requires_grad for parameter in first.parameters())
    adapt(first, AdaptConfig(mode=Adaptation.FULL))
    trained = {name for name, parameter in first.named_parameters() if parameter.requires_grad}
    assert trained == {"own.model.0.weight", "own.model.0.bias"}, "no gradient would ever reach the others"


def test_its_weights_are_those_of_the_path(site: Path) -> None:
    from safetensors.torch import save_file

    trained = build_encoder(source(pretrained=False, seed=5))
    save_file(trained.own.model.state_dict(), site / "w.safetensors")
    found = build_encoder(source(path=str(site / "w.safetensors")))
    assert torch.equal(found.own.model[0].weight, trained.own.model[0].weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": None}, "needs `name`, one of: bare, gone, stripes, text"),
        ({"name": "strips", "pretrained": False}, "installed encoder 'strips'.*Did you mean 'stripes'"),
        ({}, "'stripes' needs encoder.path, its weights, or encoder.pretrained=false"),
        ({"pretrained": False, "resize": 64}, "encoder.resize=64 is not for installed encoders"),
        ({"pretrained": False, "options": {"widht": 3}}, "the package lab-encoders 1.0 was called .*widht"),
        ({"pretrained": False, "name": "bare"}, "returned a Linear without feature_dim and grid and fingerprint"),
        ({"pretrained": False, "name": "text"}, "was called with None"),
        ({"pretrained": False, "name": "gone"}, "package lab-encoders 1.0 cannot be imported from no_such_module:x"),
    ],
)
def test_plugin_errors_name_the_package(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_encoder(EncoderSource(kind=EncoderKind.INSTALLED, **{"name": "stripes"} | settings))


def test_a_checkpoint_names_the_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="'stripes' was that of the package other, but here it is that of lab-encoders"):
        InstalledEncoder(InstalledConfig(name="stripes", package="other"))
    monkeypatch.undo()
    with pytest.raises(UserError, match="'stripes' of the package lab-encoders is not installed here"):
        InstalledEncoder(InstalledConfig(name="stripes", package="lab-encoders"))
    with pytest.raises(UserError, match="No installed package offers an encoder"):
        InstalledEncoder(InstalledConfig(name="stripes"))
