import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pixio_robot.data.stats import QUANTILE_LEVELS, Range, compute_range
from pixio_robot.errors import UserError
from policies.normalisation import NORMALISATIONS, Normaliser


def fitted(how: str, data: np.ndarray, names: tuple[str, ...] = ()) -> Normaliser:
    quantiles = np.quantile(data.astype(np.float64), list(QUANTILE_LEVELS.values()), axis=0)
    return Normaliser(how, Range(data.min(0), data.max(0), data.mean(0), data.std(0), *quantiles), names)


@pytest.mark.parametrize("how", NORMALISATIONS)
@given(data=arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32)))
def test_back_and_forth_is_the_identity(how, data):
    normaliser = fitted(how, data)
    x = torch.from_numpy(data)
    torch.testing.assert_close(normaliser.inverse(normaliser(x)), x, rtol=1e-5, atol=1e-4)
    assert torch.isfinite(normaliser(x)).all()


@given(data=arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32)))
def test_min_max_covers_minus_one_to_one(data):
    normaliser = fitted("min_max", data)
    scaled = normaliser(torch.from_numpy(data))
    assert scaled.abs().max() <= 1 + 1e-3
    varying = data.max(0) - data.min(0) > 1e-3
    assert np.allclose(scaled.amax(0)[varying], 1, atol=1e-2)
    assert np.allclose(scaled.amin(0)[varying], -1, atol=1e-2)
    wild = torch.tensor([[-7.0, 9.0, 0.0], [3.0, -4.0, 1.5]])
    bounded = normaliser.bounded_inverse(wild).numpy()
    assert (bounded >= data.min(0)).all()
    assert (bounded <= data.max(0)).all()


def test_mean_std():
    data = np.random.default_rng(0).normal([1.0, -50.0], [0.1, 20.0], (500, 2))
    scaled = fitted("mean_std", data)(torch.from_numpy(data).float())
    torch.testing.assert_close(scaled.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0), torch.ones(2), atol=1e-2, rtol=0)


@pytest.mark.parametrize("how", ["min_max", "mean_std", "quantile"])
def test_constant_dimensions_are_shifted_only(how):
    normaliser = fitted(how, np.array([[5.0, 0.0], [5.0, 2.0]]))
    assert normaliser(torch.tensor([5.0, 1.0])).tolist() == [0.0, 0.0]
    assert normaliser(torch.tensor([5.5, 1.0]))[0] == 0.5
    assert normaliser.inverse(torch.tensor([0.5, 0.0]))[0] == 5.5


def test_a_constant_action_stays_constant_under_min_max():
    normaliser = fitted("min_max", np.array([[5.0, 0.0], [5.0, 2.0]]))
    assert normaliser.bounded_inverse(torch.tensor([0.5, 0.0])).tolist() == [5.0, 1.0]


QUATERNION = tuple(f"eef_quat.{axis} [1]" for axis in "xyzw")


@pytest.mark.parametrize("how", ["min_max", "mean_std", "quantile"])
@pytest.mark.parametrize("names", [QUATERNION, tuple(f"robot0_eef_quat_{axis}" for axis in "xyzw")])
def test_rotations_keep_their_form(how, names):
    quaternions = np.random.default_rng(0).normal([0.99, 0.1, 0.0, 0.02], 0.01, (50, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    normaliser = fitted(how, quaternions, names)
    x = torch.from_numpy(quaternions).float()
    assert torch.equal(normaliser(x), x)
    assert fitted(how, quaternions)(x).std() > 0.4


@pytest.mark.parametrize("how", ["min_max", "mean_std", "quantile"])
def test_a_gripper_of_two_values_is_learned_as_two_and_gives_those_back(how):
    mostly_at_an_end = np.concatenate([np.zeros(40), np.linspace(0.0, 0.08, 20), np.full(40, 0.08)])
    data = np.stack([np.where(np.arange(100) < 90, 0.0, 0.08), mostly_at_an_end], 1)
    normaliser = fitted(how, data, ("gripper [m]", "other_gripper [m]"))
    torch.testing.assert_close(normaliser(torch.tensor([[0.0, 0.0], [0.08, 0.0]]))[:, 0], torch.tensor([-1.0, 1.0]))
    physical = torch.tensor([[0.03, 0.03], [0.05, 0.05]])
    expected = torch.tensor([[0.0, 0.03], [0.08, 0.05]])  # values between occur in the second one's demonstrations
    torch.testing.assert_close(normaliser.bounded_inverse(normaliser(physical)), expected)
    unnamed = fitted(how, data, ("joint [rad]", "other_joint [rad]"))
    torch.testing.assert_close(unnamed.bounded_inverse(unnamed(physical)), physical)


def test_a_dimension_that_hardly_ever_moves_is_scaled_by_its_range():
    data = np.zeros((1000, 1))
    data[:5] = 0.5
    torch.testing.assert_close(fitted("quantile", data)(torch.tensor([[0.0], [0.5]])), torch.tensor([[-1.0], [1.0]]))


def test_only_min_max_keeps_actions_in_the_range_of_the_demonstrations():
    data = np.random.default_rng(0).uniform(-1, 1, (200, 1))
    beyond = torch.tensor([[4.0]])
    assert fitted("min_max", data).bounded_inverse(beyond) == pytest.approx(data.max())
    assert fitted("mean_std", data).bounded_inverse(beyond).item() > 2


def test_a_small_range_is_a_range():
    data = np.array([[0.0, 0.0], [0.001, 0.00005]])
    scaled = fitted("min_max", data)(torch.tensor([0.001, 0.00005]))
    torch.testing.assert_close(scaled, torch.tensor([1.0, 0.000025]))


def test_a_saved_normaliser_keeps_its_numbers():
    """Quaternions were scaled earlier; policies trained then go on to see them so."""
    data = np.array([[0.98, 0.0], [1.0, 0.2]])
    earlier, later = fitted("min_max", data), fitted("min_max", data, QUATERNION[:2])
    later.load_state_dict(earlier.state_dict())
    assert torch.equal(later(torch.tensor([1.0, 0.1])), earlier(torch.tensor([1.0, 0.1])))


def test_a_smallest_standard_deviation():
    data = np.random.default_rng(0).normal(0.0, [0.001, 0.1], (500, 2))
    statistics = dataclasses.replace(compute_range([data], len(data)), mean=np.zeros(2), std=np.array([0.001, 0.1]))
    normaliser = Normaliser("mean_std", statistics, min_std=0.01)
    assert normaliser(torch.tensor([0.001, 0.1])).tolist() == pytest.approx([0.1, 1.0])
    assert Normaliser("mean_std", statistics)(torch.tensor([0.001, 0.1])).tolist() == pytest.approx([1.0, 1.0])


def test_bad_statistics_and_names():
    ones = np.ones(2)
    with pytest.raises(UserError, match="min_max"):
        Normaliser("minmax", Range(*[ones] * 9))
    with pytest.raises(UserError, match="NaN"):
        Normaliser("min_max", Range(ones * np.nan, *[ones] * 8))
