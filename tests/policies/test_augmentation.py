"""What augmentations change and what they leave, and that a policy applies them where it learns and nowhere else."""

import pytest
import torch

from policies.observation_encoder.augmentation import LUMA, color_jitter, random_crop


def test_a_compiled_jitter_is_the_same_and_makes_no_constants():
    operations: list[str] = []

    def backend(graph, inputs):
        operations.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    images = torch.randint(0, 255, (2, 1, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = []
    for jitter in (color_jitter, torch.compile(color_jitter, backend=backend, fullgraph=True)):
        torch.manual_seed(0)
        drawn.append(jitter(images, 0.3, 0.3, 0.3, 0.1))
    assert torch.equal(*drawn)
    assert operations
    assert not [name for name in operations if "inv" in name or "method tensor" in name]


def two_tones(windows: int) -> torch.Tensor:
    """Two colours beside each other, (b, 2, 4, 6, 3), which no jitter of 0.2 clips."""
    images = torch.empty(windows, 2, 4, 6, 3, dtype=torch.uint8)
    images[..., :3, :], images[..., 3:, :] = torch.tensor([90, 130, 100]), torch.tensor([150, 110, 130])
    return images


@pytest.mark.parametrize("part", ["brightness", "contrast", "saturation", "hue"])
def test_each_part_of_the_jitter_changes_its_own_and_every_window_differently(part):
    torch.manual_seed(0)
    ranges = {name: 0.2 * (name == part) for name in ("brightness", "contrast", "saturation", "hue")}
    images = two_tones(16)
    assert torch.equal(color_jitter(images, 0.0, 0.0, 0.0, 0.0), images)
    changed = color_jitter(images, **ranges)
    assert (changed.flatten(1) != images.flatten(1)).any(1).float().mean() > 0.8
    assert torch.equal(changed[:, 0], changed[:, 1]), "all frames of a window change together"
    assert len({window.numpy().tobytes() for window in changed}) > 9
    luma = torch.tensor(LUMA)
    before, after = images.float() @ luma, changed.float() @ luma
    grey = torch.full((16, 1, 4, 6, 3), 120, dtype=torch.uint8)
    if part == "brightness":
        factor = after / before
        assert (factor - factor.mean((1, 2, 3), keepdim=True)).abs().max() < 0.01
        assert 0.8 - 0.01 < factor.min() < 0.9
        assert 1.1 < factor.max() < 1.2 + 0.01
    else:
        torch.testing.assert_close(after.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=1.0, rtol=0)
        assert torch.equal(color_jitter(grey, **ranges), grey)
    if part in ("saturation", "hue"):
        torch.testing.assert_close(after, before, atol=1.5, rtol=0)


def test_the_parts_of_the_jitter_clip_colours_one_after_the_other():
    """As torchvision's do: what brightness has made white does not come back with a lower contrast."""
    torch.manual_seed(0)
    images = torch.tensor([200, 250], dtype=torch.uint8).reshape(1, 1, 1, 2, 1).expand(64, 1, 1, 2, 3)
    changed = color_jitter(images, brightness=0.9, contrast=0.9, saturation=0.0, hue=0.0).float()
    white = (changed[..., 0, :] == changed[..., 1, :]).flatten(1).all(1)
    assert 5 < white.sum() < 40


def test_a_random_crop_cuts_a_window_as_one_at_every_place_it_fits():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (200, 2, 6, 7, 3), dtype=torch.uint8)
    cut = random_crop(images, 4, 4)
    places = []
    for window, crop in zip(images, cut, strict=True):
        (place,) = [(y, x) for y in range(3) for x in range(4) if torch.equal(window[:, y : y + 4, x : x + 4], crop)]
        places.append(place)
    assert set(places) == {(y, x) for y in range(3) for x in range(4)}
    assert torch.equal(random_crop(images, 6, 7), images)


@pytest.mark.parametrize("settings", [{"random_shift": 4}, {"crop_shape": [24, 24]}, {"color_jitter": [0.4] * 4}])
def test_a_policy_augments_what_it_learns_from_and_nothing_else(make, world, settings):
    policy, batch = make("bc", standardise=True, **settings), world.windows(4, seed=0)

    def losses() -> int:
        return len({policy.loss(batch)[0].item() for _ in range(3)})

    policy.train()
    assert losses() == 3
    acted = [policy.act(batch.observation) for _ in range(3)]
    assert all(torch.equal(actions, acted[0]) for actions in acted)
    prepared = []
    for _ in range(2):
        policy.prepare([batch.observation])
        prepared.append({name: value.clone() for name, value in policy.conditioning.patches[0].named_buffers()})
    assert all(torch.equal(value, prepared[1][name]) for name, value in prepared[0].items())
    policy.eval()
    assert losses() == 1, "as validation sees it"
