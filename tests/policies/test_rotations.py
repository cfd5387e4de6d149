"""Rotations in float32 tensors agree with those in float64, of scipy, in every form; also near half a turn."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch._subclasses.fake_tensor import FakeTensorMode

from pixio_robot.data.actions import rotations as numpy_rotations
from pixio_robot.data.actions.rotations import ROTATION_SIZES
from policies.rotations import from_matrices, multiply_matrices, nearest_representation, rotate_vectors, to_matrices

FORMS = sorted(ROTATION_SIZES)


def some() -> np.ndarray:
    """(n, 3, 3): random ones, none, tiny ones, and those of half a turn and nearly so about many axes."""
    axes = np.concatenate([np.eye(3), Rotation.random(20, random_state=1).apply([1, 0, 0])])
    angles = [0.0, 1e-7, 1e-3, 3.0, np.pi - 1e-3, np.pi - 1e-6, np.pi]
    turns = np.concatenate([axes * angle for angle in angles])
    return np.concatenate([Rotation.random(100, random_state=0).as_matrix(), Rotation.from_rotvec(turns).as_matrix()])


@pytest.mark.parametrize("form", FORMS)
def test_they_agree_with_float64(form):
    there = some()
    values = numpy_rotations.rotations_from_matrices(there, form)
    found = to_matrices(torch.from_numpy(values).float(), form)
    np.testing.assert_allclose(found, there, atol=2e-6)
    back = from_matrices(torch.from_numpy(there).float(), form)
    np.testing.assert_allclose(numpy_rotations.matrices_from_rotations(back.numpy(), form), there, atol=2e-6)
    if form == "axis_angle":
        assert back.norm(dim=-1).max() <= np.pi + 1e-5
    if form == "quat":
        assert (back[:, 3] >= 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_what_a_network_says_becomes_a_rotation(form):
    random = torch.Generator().manual_seed(0)
    wild = torch.randn(50, ROTATION_SIZES[form], generator=random)
    found = to_matrices(wild, form)
    np.testing.assert_allclose(found, numpy_rotations.matrices_from_rotations(wild.numpy(), form), atol=1e-5)
    assert torch.isfinite(from_matrices(to_matrices(torch.zeros(2, ROTATION_SIZES[form]), form), form)).all()


def test_products():
    first, second = (torch.from_numpy(some()).float()[:100] for _ in range(2))
    torch.testing.assert_close(multiply_matrices(first, second), first @ second)
    torch.testing.assert_close(rotate_vectors(first, second[..., 0]), (first @ second[..., :1])[..., 0])


@pytest.mark.parametrize("typical", [(3.0, 0.1, 0.0), (-3.2, 0.1, 0.0)])
def test_of_two_ways_to_write_a_rotation_the_nearer_one_is_taken(typical):
    turn = torch.tensor([[3.1, 0.0, 0.1], [-3.1, 0.0, 0.1], [0.0, 0.0, 0.0]])
    found = nearest_representation(turn, "axis_angle", typical)
    torch.testing.assert_close(to_matrices(found, "axis_angle"), to_matrices(turn, "axis_angle"), atol=1e-5, rtol=0)
    assert ((found[:2] - torch.tensor(typical)).norm(dim=-1) < 0.5).all()
    assert torch.equal(found[2], turn[2])


def test_a_quaternion_has_the_sign_of_the_nearer_one():
    quaternion = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert torch.equal(nearest_representation(quaternion, "quat", (0.9, 0.1, 0.0, 0.0)), quaternion)
    assert torch.equal(nearest_representation(quaternion, "quat", (-0.9, 0.1, 0.0, 0.0)), -quaternion)


@pytest.mark.parametrize("form", FORMS)
def test_precision_does_not_depend_on_autocast_and_no_value_is_waited_for(form):
    there = torch.from_numpy(numpy_rotations.rotations_from_matrices(some(), form)).float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = from_matrices(multiply_matrices(to_matrices(there, form), to_matrices(there, form)), form)
    assert torch.equal(
        rounded, from_matrices(multiply_matrices(to_matrices(there, form), to_matrices(there, form)), form)
    )
    with FakeTensorMode():
        fake = torch.empty(4, ROTATION_SIZES[form], device="cuda:0")
        assert (
            nearest_representation(
                from_matrices(to_matrices(fake, form), form), form, (0.0,) * ROTATION_SIZES[form]
            ).device.type
            == "cuda"
        )
