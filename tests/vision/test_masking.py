import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixio_robot.errors import UserError
from pixio_robot.vision.config import MaskConfig
from pixio_robot.vision.masking import count_visible_patches, sample_mask


@settings(max_examples=50)
@given(
    block=st.integers(1, 4),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    ratio=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32),
)
def test_exactly_the_promised_number_of_whole_aligned_blocks_stays(block, rows, columns, ratio, seed):
    blocks = rows * columns
    kept = int(blocks * (1 - ratio))
    grid, config = (rows * block, columns * block), MaskConfig(ratio=ratio, block=block)
    if kept == 0:
        with pytest.raises(UserError, match="hides all"):
            count_visible_patches(config, grid)
        return
    mask = sample_mask(5, grid, config, torch.Generator().manual_seed(seed))
    assert mask.keep.shape == (5, kept * block**2)
    tiles = mask.hidden.view(5, rows, block, columns, block)
    assert (tiles.sum(dim=(2, 4)) % block**2 == 0).all(), "a block is hidden whole or not at all"
    assert ((~mask.hidden).sum(1) == kept * block**2).all()
    for keep, hidden in zip(mask.keep, mask.hidden, strict=True):
        assert keep.tolist() == (~hidden).nonzero().flatten().tolist()


def test_images_are_masked_independently_and_every_block_equally_often():
    mask = sample_mask(4000, (16, 16), MaskConfig(), torch.Generator().manual_seed(0))
    visible_blocks = ~mask.hidden.view(4000, 4, 4, 4, 4)[:, :, 0, :, 0].flatten(1)
    assert (visible_blocks.float().mean(0) - 0.25).abs().max() < 0.04
    assert len(visible_blocks.unique(dim=0)) > 1000
    together = (visible_blocks[:-1] & visible_blocks[1:]).float().mean()
    assert abs(together - 0.25**2) < 0.01, "neighbouring images of a batch share no more than chance"


def test_one_generator_state_gives_one_mask_whatever_the_batch():
    first = sample_mask(3, (8, 8), MaskConfig(block=2), torch.Generator().manual_seed(1))
    second = sample_mask(7, (8, 8), MaskConfig(block=2), torch.Generator().manual_seed(1))
    assert torch.equal(first.keep, second.keep[:3])


def test_images_with_generators_of_their_own_get_the_masks_that_they_get_alone():
    config = MaskConfig(mixed_blocks=[2, 4])

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]

    together = sample_mask(6, (16, 16), config, 2 * generators())
    alone = generators()
    for row, generator in enumerate(2 * alone):
        mask = sample_mask(1, (16, 16), config, generator)
        assert torch.equal(together.rows(slice(row, row + 1)).keep, mask.keep)
        assert torch.equal(together.rows(slice(row, row + 1)).hidden, mask.hidden)


def test_a_grid_that_blocks_do_not_cut_evenly_is_refused_with_blocks_that_do():
    with pytest.raises(UserError, match=r"block=4 does not divide the patch grid 6x9; blocks that do: 1, 3"):
        count_visible_patches(MaskConfig(block=4), (6, 9))


def test_mixed_blocks_keep_one_number_of_patches_and_draw_every_size():
    config = MaskConfig(mixed_blocks=[1, 2, 4, 8])
    mask = sample_mask(400, (16, 16), config, torch.Generator().manual_seed(0))
    assert mask.keep.shape == (400, 64)
    assert ((~mask.hidden).sum(1) == 64).all()

    def whole(side):
        tiles = mask.hidden.view(400, 16 // side, side, 16 // side, side).sum(dim=(2, 4))
        return (tiles % side**2 == 0).flatten(1).all(dim=1)

    # Blocks of 8 are whole in blocks of 4 too; by chance alone hardly any image is.
    shares = [whole(side).float().mean().item() for side in (8, 4, 2)]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.07)
    again = sample_mask(7, (16, 16), config, torch.Generator().manual_seed(0))
    assert torch.equal(again.keep, mask.keep[:7])


def test_the_size_of_blocks_does_not_say_where_they_are() -> None:
    """Every patch is visible equally often among images of either size."""
    config = MaskConfig(mixed_blocks=[1, 4], ratio=0.75)
    hidden = sample_mask(6000, (8, 8), config, torch.Generator().manual_seed(0)).hidden.view(6000, 8, 8)
    whole = (hidden.view(6000, 2, 4, 2, 4).sum(dim=(2, 4)) % 16 == 0).flatten(1).all(dim=1)
    for of_size in (hidden[whole], hidden[~whole]):
        assert (of_size.float().mean(0) - 0.75).abs().max() < 0.05


def test_mixed_blocks_that_would_leave_different_numbers_are_refused():
    with pytest.raises(UserError, match="96 with 4, 64 with 8"):
        count_visible_patches(MaskConfig(ratio=0.6, mixed_blocks=[4, 8]), (16, 16))
