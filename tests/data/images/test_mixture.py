"""Sources drawn by weight: in proportion, each through all of its images, the same whatever came before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixio_robot.data.images import mixture
from pixio_robot.data.images.batches import PixelBatches
from pixio_robot.data.images.epoch_order import OrderPosition
from pixio_robot.data.images.mixture import MixedOrder
from pixio_robot.data.images.sources import ConcatenatedImages
from pixio_robot.data.images.subsets import BitSubset
from pixio_robot.errors import UserError

COUNTS = [90, 70, 500]
ROUND = 1200


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "ROUND_LENGTH", ROUND)


START = OrderPosition(0, 0)


class Thinned:
    """Other ones of `count` images in every epoch, about half of them, and never the first."""

    def __init__(self, count: int) -> None:
        self.count = count

    def epoch(self, seed: int, epoch: int) -> BitSubset:
        taken = np.random.default_rng((seed, epoch)).random(self.count) > 0.5
        taken[:2] = False, True
        return BitSubset([taken])


class Plain:
    """Images that say their source and their number."""

    def __init__(self, source: int, count: int) -> None:
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def image(self, i: int) -> np.ndarray:
        image = np.zeros((8, 8, 3), np.uint8)
        image[..., 0], image[..., 1:] = self.source, i % 256
        return image

    def id(self, i: int) -> str:
        return str(i)


def order(weights=(3, 1, 2), selections=(None, None, None), seed=5, counts=COUNTS) -> MixedOrder:
    return MixedOrder(counts, selections, weights, seed)


def shown(order: MixedOrder, count: int, place: OrderPosition = START) -> np.ndarray:
    return np.concatenate([epoch.at(positions) for epoch, positions in order.runs(place, count)])


def source_of(images: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(COUNTS), images, side="right")


def test_sources_come_in_proportion_in_every_stretch() -> None:
    images = shown(order(), 3 * ROUND)
    for start in range(0, 3 * ROUND, 300):
        found = np.bincount(source_of(images[start : start + 300]), minlength=3) / 300
        np.testing.assert_allclose(found, [1 / 2, 1 / 6, 1 / 3], atol=0.12)
    np.testing.assert_allclose(np.bincount(source_of(images)) / len(images), [1 / 2, 1 / 6, 1 / 3], atol=1e-4)


def test_sources_of_equal_length_come_in_different_orders() -> None:
    mixed = order((1, 1), (None, None), counts=[300, 300])
    first, second = (source.epoch(0).at(np.arange(300)) for source in mixed._sources)
    assert sorted(first.tolist()) == sorted(second.tolist())
    assert not np.array_equal(first, second)


def test_the_scale_of_weights_is_no_matter_and_none_is_drawn_at_weight_0() -> None:
    np.testing.assert_array_equal(shown(order((3, 1, 2)), 100), shown(order((0.3, 0.1, 0.2)), 100))
    assert set(source_of(shown(order((1, 0, 1)), 2000)).tolist()) == {0, 2}
    assert set(source_of(shown(order((1e6, 1, 1e6)), 2 * ROUND + 9)).tolist()) == {0, 1, 2}


def test_every_image_of_a_source_comes_as_often_as_any_other_of_it() -> None:
    images = shown(order(), 3 * ROUND)
    for first, count in zip(np.cumsum([0, *COUNTS[:-1]]), COUNTS, strict=True):
        times = np.bincount(images)[first : first + count]
        # Within a round places are shuffled, so an epoch may be under way at the end; no image is ahead by two.
        assert times.min() >= times.max() - 1 > 0


def test_selections_thin_their_source_anew_in_each_of_its_epochs() -> None:
    images = shown(order(selections=(None, Thinned(70), Thinned(500))), 8 * ROUND)
    times = np.bincount(images, minlength=sum(COUNTS))
    assert times[90] == times[160] == 0
    assert (np.delete(times, [90, 160]) > 0).all()
    np.testing.assert_allclose(np.bincount(source_of(images)) / len(images), [1 / 2, 1 / 6, 1 / 3], atol=1e-4)


def test_what_stands_at_a_place_does_not_depend_on_what_was_asked_before() -> None:
    selections = (None, Thinned(70), Thinned(500))
    whole = order(selections=selections)
    straight = shown(whole, 4 * ROUND)
    assert len(whole.epoch(0)) == pytest.approx(ROUND, abs=2)
    for start in (3 * ROUND + 17, 5, ROUND - 3, 2 * ROUND):
        fresh = order(selections=selections)
        np.testing.assert_array_equal(
            shown(fresh, 100, fresh.advance(OrderPosition(0, 0), start)), straight[start : start + 100]
        )
        np.testing.assert_array_equal(
            shown(whole, 100, whole.advance(OrderPosition(0, 0), start)), straight[start : start + 100]
        )
    assert not np.array_equal(shown(order(seed=6), 100), straight[:100])


def test_reading_ahead_by_several_rounds_counts_nothing_from_the_start() -> None:
    mixed = order(selections=(None, Thinned(70), Thinned(500)))
    for number in (40, 41, 42, 43):
        mixed.epoch(number)
    ahead = order(selections=(None, Thinned(70), Thinned(500)))
    ahead.epoch(43)
    counted = []
    for source in mixed._sources:
        advance = source.advance
        source.advance = lambda place, count, advance=advance: counted.append(count) or advance(place, count)
    begun = mixed._begin
    mixed._begin = lambda number: pytest.fail(f"round {number} is made again")
    place = mixed.advance(OrderPosition(41, 7), 2 * ROUND)
    mixed._begin = begun
    assert mixed._places(41) == order(selections=(None, Thinned(70), Thinned(500)))._places(41)
    assert max(counted, default=0) <= ROUND
    assert place.epoch == 43
    np.testing.assert_array_equal(mixed.epoch(43).at(np.arange(9)), ahead.epoch(43).at(np.arange(9)))


def stream(weights=(3, 1, 2), seed=5, rank=0, world_size=1, batch=12, workers=1) -> PixelBatches:
    source = ConcatenatedImages([Plain(number, count) for number, count in enumerate(COUNTS)], ["a", "b", "c"])
    mixed = None if weights is None else order(weights, seed=seed)
    return PixelBatches(source, batch // world_size, 8, seed, workers, rank=rank, world_size=world_size, order=mixed)


def take(batches: PixelBatches, count: int) -> list[tuple[list[str], torch.Tensor]]:
    return [(batch.ids, batch.images) for _, batch in zip(range(count), batches, strict=False)]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True)
    )


def test_a_stream_goes_on_exactly_with_any_number_of_threads_and_processes() -> None:
    steps = ROUND // 12 + 6  # past the end of a round
    with stream() as batches:
        whole = take(batches, steps)
    with stream() as batches:
        take(batches, steps - 10)
        state = batches.state_dict()
    with stream(workers=3) as batches:
        batches.load_state_dict(state)
        assert same(take(batches, 10), whole[-10:])
    parts = []
    for rank in range(2):
        with stream(rank=rank, world_size=2) as batches:
            batches.load_state_dict(state)
            parts.append(take(batches, 10))
    for left, right, (ids, images) in zip(*parts, whole[-10:], strict=True):
        assert left[0] + right[0] == ids
        assert torch.equal(torch.cat([left[1], right[1]]), images)


@pytest.mark.parametrize(("before", "now"), [((3, 1, 2), (3, 1, 1)), (None, (3, 1, 2)), ((3, 1, 2), None)])
def test_a_stream_of_other_weights_is_refused(before, now) -> None:
    with stream(before) as batches:
        take(batches, 1)
        state = batches.state_dict()
    with stream(now) as batches, pytest.raises(UserError, match="weights was"):
        batches.load_state_dict(state)


def test_a_state_of_before_there_were_weights_goes_on() -> None:
    with stream(None) as batches:
        whole = take(batches, 3)
    with stream(None) as batches:
        take(batches, 1)
        state = {name: value for name, value in batches.state_dict().items() if name != "weights"}
        batches.load_state_dict(state)
        assert same(take(batches, 2), whole[1:])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, float("nan"), 1.0]])
def test_weights_must_fit(weights) -> None:
    with pytest.raises(UserError, match="one non-negative number for each of the 3 sources"):
        order(weights)
