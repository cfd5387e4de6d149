"""Rotations keep their meaning in every form, and deltas are a group."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pixio_robot.data.actions.rotations import (
    MATRIX,
    QUATERNION,
    QUATERNION_WXYZ,
    ROT6D,
    ROT6D_ROWS,
    ROTATION_SIZES,
    apply_deltas,
    deltas_between,
    matrices_from_rotations,
    rotations_from_matrices,
    rotations_from_trajectory,
)
from pixio_robot.errors import UserError

FORMS = st.sampled_from(sorted(ROTATION_SIZES))
SEEDS = st.integers(0, 2**32 - 1)
few = hypothesis.settings(max_examples=50)


def turns(seed: int, count: int = 5) -> np.ndarray:
    """Random rotations, with none, the smallest and half turns among them."""
    rotvecs = Rotation.random(count, random_state=seed % 2**31).as_rotvec()
    rotvecs[0] = 0
    rotvecs[1] *= 1e-9
    rotvecs[2] *= np.pi / np.linalg.norm(rotvecs[2])
    return Rotation.from_rotvec(rotvecs).as_matrix()


@few
@given(SEEDS, FORMS, FORMS)
def test_every_form_leads_to_every_other_and_back(seed: int, one: str, other: str) -> None:
    turn = turns(seed)
    there = rotations_from_matrices(matrices_from_rotations(rotations_from_matrices(turn, one), one), other)
    assert there.shape == (len(turn), ROTATION_SIZES[other])
    np.testing.assert_allclose(matrices_from_rotations(there, other), turn, atol=1e-7)


@few
@given(SEEDS, FORMS)
def test_a_trajectory_keeps_its_rotations_and_takes_the_nearer_of_two_values(seed: int, form: str) -> None:
    path = Rotation.random(random_state=seed % 2**31) * Rotation.from_rotvec(np.outer(np.arange(9), [0.3, -0.2, 0.1]))
    values = rotations_from_trajectory(path.as_matrix(), form)
    np.testing.assert_allclose(matrices_from_rotations(values, form), path.as_matrix(), atol=1e-7)
    if form == QUATERNION:
        assert (values[1:] * values[:-1]).sum(-1).min() > 0
    assert rotations_from_trajectory(path.as_matrix()[:0], form).shape == (0, ROTATION_SIZES[form])


@few
@given(SEEDS, FORMS)
def test_forms_take_any_leading_axes(seed: int, form: str) -> None:
    turn = turns(seed, 6)
    values = rotations_from_matrices(turn, form)
    np.testing.assert_allclose(
        matrices_from_rotations(values.reshape(2, 3, -1), form).reshape(6, 3, 3), matrices_from_rotations(values, form)
    )
    np.testing.assert_allclose(matrices_from_rotations(values[3], form), turn[3], atol=1e-7)
    assert matrices_from_rotations(values[:0], form).shape == (0, 3, 3)


def test_the_forms_are_those_of_the_others() -> None:
    turn = turns(3)
    rotation = Rotation.from_matrix(turn)
    np.testing.assert_allclose(np.abs((rotations_from_matrices(turn, QUATERNION) * rotation.as_quat()).sum(-1)), 1)
    assert (rotations_from_matrices(turn, QUATERNION)[:, 3] >= 0).all()
    np.testing.assert_array_equal(
        rotations_from_matrices(turn, QUATERNION_WXYZ)[:, [1, 2, 3, 0]], rotations_from_matrices(turn, QUATERNION)
    )
    np.testing.assert_allclose(
        np.linalg.norm(rotations_from_matrices(turn, "axis_angle"), axis=-1), rotation.magnitude(), atol=1e-9
    )
    np.testing.assert_array_equal(rotations_from_matrices(turn, ROT6D)[:, :3], turn[:, :, 0])
    np.testing.assert_array_equal(rotations_from_matrices(turn, ROT6D)[:, 3:], turn[:, :, 1])
    np.testing.assert_array_equal(rotations_from_matrices(turn, ROT6D_ROWS), turn[:, :2].reshape(-1, 6))
    np.testing.assert_array_equal(rotations_from_matrices(turn, MATRIX), turn.reshape(-1, 9))


@few
@given(SEEDS, st.sampled_from([ROT6D, ROT6D_ROWS, MATRIX]))
def test_what_a_network_says_becomes_a_rotation(seed: int, form: str) -> None:
    loose = np.random.default_rng(seed).normal(size=(4, ROTATION_SIZES[form]))
    turn = matrices_from_rotations(loose, form)
    np.testing.assert_allclose(turn @ np.swapaxes(turn, -1, -2), np.broadcast_to(np.eye(3), turn.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(turn), 1)
    # Scaling changes nothing, and what is a rotation already stays.
    np.testing.assert_allclose(matrices_from_rotations(3 * loose, form), turn, atol=1e-9)
    np.testing.assert_allclose(matrices_from_rotations(rotations_from_matrices(turn, form), form), turn, atol=1e-9)


def positions(seed: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


@few
@given(SEEDS, SEEDS, SEEDS, st.sampled_from([turns, positions]))
def test_deltas_are_a_group(a: int, b: int, c: int, draw) -> None:
    start, one, other = draw(a), draw(b), draw(c)
    nothing = deltas_between(start, start)
    close = {"atol": 1e-9}
    np.testing.assert_allclose(apply_deltas(start, nothing), start, **close)
    np.testing.assert_allclose(apply_deltas(start, deltas_between(start, one)), one, **close)
    np.testing.assert_allclose(deltas_between(start, apply_deltas(start, one)), one, **close)
    # One delta after the other is their product; the way back undoes the way there.
    np.testing.assert_allclose(
        apply_deltas(apply_deltas(start, one), other), apply_deltas(start, apply_deltas(one, other)), **close
    )
    np.testing.assert_allclose(apply_deltas(deltas_between(start, one), deltas_between(one, start)), nothing, **close)
    np.testing.assert_allclose(
        apply_deltas(apply_deltas(one, other), start), apply_deltas(one, apply_deltas(other, start)), **close
    )


@pytest.mark.parametrize(
    ("values", "form", "message"),
    [
        (np.zeros((2, 4)), QUATERNION, "length 0"),
        (np.zeros((2, 6)), ROT6D, "zero or parallel"),
        (np.ones((2, 6)), ROT6D, "zero or parallel"),
    ],
)
def test_what_is_no_rotation_is_refused(values: np.ndarray, form: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        matrices_from_rotations(values, form)
