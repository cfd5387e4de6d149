import dataclasses

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.types import Observation
from pixio_robot.vision.config import POOLINGS, EncoderConfig, PoolingConfig
from pixio_robot.vision.pixio import PixioEncoder
from policies.config import ConditioningConfig
from policies.observation_encoder.augmentation import random_shift
from policies.observation_encoder.conditioning import Conditioning
from policies.observation_encoder.standardisation import VARIANCE_RIDGE, RunningMoments, Standardiser
from policies.observation_encoder.tokens import TokenObservationEncoder

CAMERAS = ["front", "hand.top"]


def cached(conditioning: Conditioning, observation: Observation) -> Observation:
    features = {
        camera: conditioning.encoder(images.flatten(0, 1)).map(lambda x, lead=images.shape[:2]: x.unflatten(0, lead))
        for camera, images in observation.images.items()
    }
    return Observation({}, observation.state, features)


@pytest.fixture
def build(world, encoder):
    def conditioning(encoder=encoder, **options):
        config = ConditioningConfig(**({"cameras": CAMERAS} | options))
        return Conditioning(config, world.observation_steps, world.spec, world.statistics, encoder)

    return conditioning


def test_an_encoder_may_lie_on_another_device(build):
    """`meta` refuses operations across devices as a GPU does."""
    elsewhere = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=16)).to("meta")
    assert build(encoder=elsewhere).shapes == build(encoder=elsewhere.to_empty(device="cpu")).shapes


@pytest.mark.parametrize("pooling", POOLINGS)
def test_images_and_their_features_give_the_same(build, world, pooling):
    conditioning = build(pooling=PoolingConfig(name=pooling)).eval()
    observation = world.windows(5, seed=0).observation
    conditioning.prepare([observation])
    seen = conditioning(observation)
    assert seen.shape == (5, conditioning.out_dim)
    torch.testing.assert_close(conditioning(cached(conditioning, observation)), seen, rtol=1e-4, atol=1e-5)


def test_a_window_sees_only_itself_in_order(build, world):
    conditioning = build().eval()
    observation = world.windows(4, seed=1).observation
    seen = conditioning(observation)
    alone = Observation({name: images[2:3] for name, images in observation.images.items()}, observation.state[2:3])
    torch.testing.assert_close(conditioning(alone), seen[2:3], rtol=1e-4, atol=1e-5)
    backwards = Observation({n: i.flip(1) for n, i in observation.images.items()}, observation.state.flip(1))
    assert not torch.allclose(conditioning(backwards), seen)


def test_frozen_encoder_stays_in_evaluation_mode_without_gradients(build, world):
    conditioning = build().train()
    assert conditioning.training
    assert not conditioning.encoder.training
    conditioning(world.windows(2, seed=0).observation).sum().backward()
    assert all(parameter.grad is None for parameter in conditioning.encoder.parameters())


def test_adapted_encoder_is_trained(build, world, encoder):
    trained = type(encoder)(encoder.config, seed=1)
    conditioning = build(encoder=trained).train()
    assert trained.training
    observation = world.windows(2, seed=0).observation
    conditioning(observation).square().sum().backward()
    assert any(parameter.grad is not None for parameter in trained.parameters())
    with torch.no_grad(), pytest.raises(UserError, match="cannot be used to train the encoder"):
        conditioning(cached(conditioning, observation))


def test_blind_conditioning_is_the_normalised_state(build, world):
    conditioning = build(encoder=None, cameras=[])
    observation = world.windows(3, seed=0).observation
    expected = (observation.state / torch.tensor([0.5, 3.0])).flatten(1)
    torch.testing.assert_close(conditioning(observation), expected)
    conditioning.prepare([])


def test_standardised_features_have_no_mean_and_about_unit_spread(build, world):
    conditioning = build()
    observation = world.windows(64, seed=0).observation
    conditioning.prepare([world.windows(40, seed=s).observation for s in range(3)] + [observation])
    features = conditioning.encoder(observation.images["front"].flatten(0, 1))
    for standardiser, x in ((conditioning.cls[0], features.cls), (conditioning.patches[0], features.patches)):
        scaled = standardiser(x)
        assert scaled.mean(0).abs().max() < 0.5
        assert 0.5 < scaled.std() < 1.1


def test_noise_is_added_to_features_in_training_only(build, world):
    torch.manual_seed(0)
    exact, noisy = build().eval(), build(feature_noise=0.5).eval()
    observation = world.windows(64, seed=0).observation
    for conditioning in (exact, noisy):
        conditioning.prepare([observation])
    seen = exact.features(observation)
    for of_images, camera in ((True, 0), (False, 1)):
        given = observation if of_images else cached(noisy, observation)
        torch.testing.assert_close(noisy.features(given)[camera].patches, seen[camera].patches, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            added = noisy.features(given, augment=True)[camera].patches - seen[camera].patches
        frames = added.unflatten(0, (64, world.observation_steps))
        assert frames.std().item() == pytest.approx(0.5 * 2**0.5, rel=0.1)
        # What remains of the mean over positions and frames is that of the window's channels.
        assert frames.mean((1, 2, 3)).std().item() == pytest.approx(0.5, rel=0.2)
    with pytest.raises(UserError, match="needs standardise = true"):
        ConditioningConfig(feature_noise=0.5, standardise=False)


def test_moments_in_parts_equal_moments_at_once():
    x = torch.randn(50, 4, 3) * 3 + 100
    moments = RunningMoments((4, 3))
    for part in x.split([1, 20, 29]):
        moments.add(part)
    mean, variance = moments.mean_and_variance()
    torch.testing.assert_close(mean, x.double().mean(0))
    torch.testing.assert_close(variance, x.double().var(0, correction=0))
    standardiser = Standardiser((4, 3))
    assert torch.equal(standardiser(x), x)
    standardiser.fit(moments)
    torch.testing.assert_close(standardiser(x).mean(0), torch.zeros(4, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardiser(x).std(), torch.tensor((1 + VARIANCE_RIDGE) ** -0.5), atol=0.1, rtol=0)


def test_constant_features_become_zero():
    moments = RunningMoments((2, 2, 3))
    moments.add(torch.full((7, 2, 2, 3), 4.0))
    standardiser = Standardiser((2, 2, 3))
    standardiser.fit(moments)
    assert standardiser(torch.full((1, 2, 2, 3), 4.0)).abs().max() < 1e-2


def test_random_shift_moves_a_window_as_one_and_repeats_edges():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (16, 2, 9, 7, 3), dtype=torch.uint8)
    padded = torch.nn.functional.pad(images.flatten(0, 1).permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="replicate")
    padded = padded.permute(0, 2, 3, 1).unflatten(0, (16, 2)).to(torch.uint8)
    moved = random_shift(images, 2)
    crops = [[padded[:, :, y : y + 9, x : x + 7] for x in range(5)] for y in range(5)]
    places = set()
    for index in range(16):
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(crops[y][x][index], moved[index])]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 5
    assert torch.equal(random_shift(images, 0), images)


def test_augmentation_is_for_images_only(build, world):
    conditioning = build(random_shift=4).eval()
    observation = world.windows(4, seed=0).observation
    still = conditioning(observation)
    assert torch.equal(conditioning(observation), still)
    assert not torch.allclose(conditioning(observation, augment=True), still)
    features = cached(conditioning, observation)
    assert torch.equal(conditioning(features, augment=True), conditioning(features))


def test_features_of_whole_images_do_not_stand_in_for_crops(build, world):
    small = EncoderConfig(size="micro", patch=8, image_size=16, class_tokens=2, resize=16)  # any crop gives 2 x 2 cells
    conditioning = build(encoder=PixioEncoder(small, 0).requires_grad_(False), crop_shape=[24, 24]).eval()
    observation = world.windows(3, seed=0).observation
    with pytest.raises(UserError, match="are of whole images, but the policy uses crops of 24 x 24 pixels"):
        conditioning(cached(conditioning, observation))
    middle = Observation({n: i[:, :, 4:28, 4:28] for n, i in observation.images.items()}, observation.state)
    of_crops = cached(conditioning, middle)
    of_crops.features = {n: dataclasses.replace(f, crop=(24, 24)) for n, f in of_crops.features.items()}
    torch.testing.assert_close(conditioning(of_crops), conditioning(observation), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="are of crops of 24 x 24 pixels, but the policy uses whole images"):
        build()(of_crops)


def test_differences_lead_to_the_newest_frame(build, world):
    conditioning = build(fusion="difference", standardise=False).eval()
    observation = world.windows(3, seed=0).observation
    observation.images["front"] = observation.images["front"].clone()
    observation.images["front"][:, 0, :8] = 200
    state, features = conditioning.normalised_state(observation), conditioning.features(observation)
    expected = []
    for pooling, of_camera in zip(conditioning.poolings, features, strict=True):
        older, newest = pooling(of_camera).unflatten(0, (3, 2)).unbind(1)
        expected += [newest - older, newest]
    found = conditioning(observation)
    assert found.shape == (3, conditioning.out_dim)
    torch.testing.assert_close(found, torch.cat([*expected, state[:, -1]], dim=1))


def test_features_are_standardised_where_that_is_asked_for(build, world):
    observation = world.windows(8, seed=0).observation
    for standardise in (False, True):
        conditioning = build(standardise=standardise).eval()
        conditioning.prepare([observation])
        raw = conditioning.encoder(observation.images["front"].flatten(0, 1)).patches
        assert torch.equal(conditioning.features(observation)[0].patches, raw) != standardise


def test_every_camera_may_have_an_encoder_of_its_own(build, world):
    conditioning = build(share_encoder=False, standardise=False).eval()
    observation = world.windows(2, seed=0).observation
    before = conditioning.features(observation)
    with torch.no_grad():
        conditioning.encoders[1].vit.patch_embed.weight.mul_(2)
    after = conditioning.features(observation)
    assert torch.equal(after[0].patches, before[0].patches)
    assert not torch.allclose(after[1].patches, before[1].patches)


def test_tokens_are_told_how_old_their_frame_is(world, encoder):
    """The newest frame looks the same however many came before it."""
    observation = world.windows(2, seed=0).observation
    for images in observation.images.values():
        images[:, 0] = 255 - images[:, 0]
    seen = []
    for steps in (1, 2):
        torch.manual_seed(0)
        token_encoder = TokenObservationEncoder(
            ConditioningConfig(cameras=CAMERAS), steps, world.spec, world.statistics, encoder, 32
        ).eval()
        newest = {name: images[:, -steps:] for name, images in observation.images.items()}
        seen.append(token_encoder(Observation(newest, observation.state[:, -steps:])))
    one, two = seen
    images = one.shape[1] - 1
    assert two.shape[1] == 2 * one.shape[1]
    torch.testing.assert_close(two[:, 0], one[:, 0])
    torch.testing.assert_close(two[:, 2 : 2 + images], one[:, 1:])
    assert not torch.allclose(two[:, 2 + images :], one[:, 1:])


def test_bad_inputs_name_what_is_wrong(build, world):
    observation = world.windows(2, seed=0).observation
    with pytest.raises(UserError, match=r"camera 'frnt'.*Did you mean 'front'"):
        build(cameras=["frnt"])
    with pytest.raises(UserError, match="needs an encoder"):
        build(encoder=None)
    with pytest.raises(UserError, match=r"no camera 'hand.top'.*\['front'\]"):
        build()(Observation({"front": observation.images["front"]}, observation.state))
    with pytest.raises(UserError, match="3 frames"):
        build()(Observation({}, torch.zeros(1, 3, 2)))
    with pytest.raises(UserError, match="no observations on which to fit"):
        build().prepare([])
    with pytest.raises(UserError, match="neither cameras nor state"):
        build(cameras=[], use_state=False)
    with pytest.raises(UserError, match="contains duplicates"):
        ConditioningConfig(cameras=["front", "front"])
