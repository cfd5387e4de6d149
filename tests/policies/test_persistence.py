import contextlib
import copy
import json

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.types import Observation
from pixio_robot.vision.config import PoolingConfig
from pixio_robot.vision.encoders.resnet import ResNetConfig, ResNetEncoder
from pixio_robot.vision.encoders.resnet18 import ResNet18Config, ResNet18Encoder
from pixio_robot.vision.pixio import PixioEncoder
from policies.persistence import load_policy, save_policy
from policies.registry import POLICIES


@pytest.mark.parametrize(
    ("name", "sight"), [*((name, "pixio") for name in sorted(POLICIES)), ("bc", "blind"), ("bc", "resnet")]
)
def test_a_loaded_policy_acts_the_same(make, world, encoder, tmp_path, name, sight):
    encoder = {"blind": None, "pixio": encoder, "resnet": ResNetEncoder(ResNetConfig(width=16))}[sight]
    policy = make(name, cameras=[] if sight == "blind" else ["hand.top", "front"], encoder=encoder).eval()
    observation = world.windows(3, seed=0).observation
    policy.prepare([observation])
    save_policy(tmp_path / "policy", policy, encoder_source={"kind": sight}, extra={"step": 7})
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_policy(tmp_path / "policy")
    assert torch.equal(loaded.act(observation, [1, 2, 3]), policy.act(observation, [1, 2, 3]))
    assert loaded.spec == policy.spec
    assert loaded.config == policy.config
    assert (loaded.cameras, loaded.horizon, loaded.observation_steps) == (policy.cameras, 8, 2)
    assert not loaded.training
    save_policy(tmp_path / "again", loaded, encoder_source={"kind": sight}, extra={"step": 7})
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "policy" / file).read_bytes()


def test_saving_replaces_a_policy_and_nothing_else(make, tmp_path):
    policy = make("bc", cameras=[])
    save_policy(tmp_path / "policy", policy)
    save_policy(tmp_path / "policy", policy)
    (tmp_path / "demos.hdf5").write_text("the only copy")
    with pytest.raises(UserError, match=r"holds demos\.hdf5 and 1 more besides weights"):
        save_policy(tmp_path, policy)
    assert (tmp_path / "demos.hdf5").read_text() == "the only copy"


def test_the_image_head_of_diffusion_policy_is_kept(make, world, tmp_path):
    pooling = PoolingConfig(name="spatial_softmax", activations=False, learn_sharpness=False, project=16)
    policy = make("bc", encoder=ResNet18Encoder(ResNet18Config(pixels="symmetric")), pooling=pooling).eval()
    save_policy(tmp_path / "policy", policy)
    observation = world.windows(3, seed=0).observation
    assert torch.equal(load_policy(tmp_path / "policy").act(observation), policy.act(observation))


def test_a_loaded_policy_takes_cached_features(make, world, tmp_path):
    policy = make("bc").eval()
    save_policy(tmp_path / "policy", policy)
    loaded = load_policy(tmp_path / "policy")
    observation = world.windows(2, seed=0).observation
    images = observation.images["front"]
    features = loaded.conditioning.encoder(images.flatten(0, 1)).map(lambda x: x.unflatten(0, images.shape[:2]))
    cached = loaded.act(Observation({}, observation.state, {"front": features}))
    torch.testing.assert_close(cached, policy.act(observation), rtol=1e-4, atol=1e-5)


def test_the_encoder_that_a_policy_was_trained_with(make, encoder, tmp_path):
    policy = make("bc", encoder=copy.deepcopy(encoder))
    with torch.no_grad():
        next(policy.conditioning.encoder.parameters()).add_(1)  # as training would
    save_policy(tmp_path / "policy", policy)
    found = PixioEncoder.from_pretrained(tmp_path / "policy")
    assert found.fingerprint() == policy.conditioning.encoder.fingerprint() != encoder.fingerprint()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cameras": []}, "an encoder of kind none, not a Pixio"),
        ({"encoder": ResNetEncoder(ResNetConfig(width=16))}, "an encoder of kind resnet, not"),
        ({"cameras": ["front", "hand.top"], "share_encoder": False}, "an encoder for each camera"),
    ],
)
def test_encoders_that_a_policy_cannot_give(make, tmp_path, kwargs, message):
    save_policy(tmp_path / "policy", make("bc", **kwargs))
    with pytest.raises(UserError, match=message):
        PixioEncoder.from_pretrained(tmp_path / "policy")


@pytest.fixture
def saved(make, tmp_path):
    save_policy(tmp_path / "policy", make("bc", cameras=[]))
    return tmp_path / "policy"


def edit(directory, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pixio_encoder"}, "'pixio_encoder', but a policy directory is expected"),
        ({"format_version": 99}, "format_version 99"),
        ({"policy": "bv"}, "Did you mean 'bc'"),
        ({"config": {"widht": 3}}, "Did you mean 'width'"),
        ({"config": {"conditioning": {"cameras": [], "pooling": {"keypoint": 1}}}}, "Did you mean 'keypoints'"),
        ({"config": {"width": 32}}, r"wrong shape|do not fit"),
        ({"spec": {}}, "not a complete policy description"),
    ],
)
def test_a_wrong_config_is_named(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(UserError, match=message):
        load_policy(saved)


@pytest.mark.parametrize("value", [None, "x", -1, 1e400, [], {}, [1, 2], True])
@pytest.mark.parametrize(
    "keys",
    [
        ("policy",),
        ("config", "width"),
        ("config", "activation"),
        ("config", "conditioning", "cameras"),
        ("spec", "state_names"),
        ("spec", "cameras"),
        ("statistics", "state"),
        ("statistics", "actions", "minimum"),
        ("encoder",),
        ("goals",),
    ],
)
def test_any_damage_of_a_config_is_a_user_error(saved, keys, value):
    path = saved / "config.json"
    description = json.loads(path.read_text())
    parent = description
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    path.write_text(json.dumps(description))
    is_empty = keys[-1] in ("cameras", "goals") and (value == {} or (value == [] and keys[0] != "spec"))
    with contextlib.nullcontext() if is_empty or (keys, value) == (("encoder",), None) else pytest.raises(UserError):
        load_policy(saved)


def test_an_encoder_checkpoint_is_no_policy(encoder, tmp_path):
    encoder.save(tmp_path / "encoder")
    with pytest.raises(UserError, match=r"encoder.*but a policy directory is expected"):
        load_policy(tmp_path / "encoder")


def test_damaged_directories(saved, tmp_path):
    with pytest.raises(UserError, match=r"There is no policy directory .*nowhere"):
        load_policy(tmp_path / "nowhere")
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_policy(saved)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_policy(saved)


def test_an_encoder_of_an_unknown_class_cannot_be_saved(make, encoder, tmp_path):
    class Other(type(encoder)):
        pass

    policy = make("bc", encoder=Other(encoder.config))
    with pytest.raises(UserError, match="Other cannot be saved"):
        save_policy(tmp_path / "policy", policy)
    assert not (tmp_path / "policy").exists()
