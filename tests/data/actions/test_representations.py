"""Actions in other words: the same motion, and nothing that is another."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pixio_robot.data.actions.representations import make_action_converter
from pixio_robot.errors import UserError

PLACE = tuple(f"eef_pos.{axis} [m]" for axis in "xyz")
TURN = tuple(f"eef_axis_angle.{axis} [rad]" for axis in "xyz")
ROWS = tuple(f"eef_rot6d_rows.{row}{column} [1]" for row in "xy" for column in "xyz")
STEP = tuple(f"eef_delta_pos.{axis} [0.05 m]" for axis in "xyz")
METRES = tuple(f"eef_delta_pos.{axis} [m]" for axis in "xyz")


def test_six_numbers_become_the_rotation_that_they_are():
    turn = np.array([0.3, -2.0, 0.7])
    matrix = Rotation.from_rotvec(turn).as_matrix()
    way = make_action_converter((*PLACE, *ROWS, "gripper"), (*PLACE, *TURN, "gripper"))
    assert way is not None
    # A network's numbers are not quite those of a rotation.
    found = way(np.array([0.1, 0.2, 0.9, *(1.1 * matrix[0]), *matrix[1], -1.0]))
    np.testing.assert_allclose(found, [0.1, 0.2, 0.9, *turn, -1], atol=1e-12)
    back = make_action_converter((*PLACE, *TURN, "gripper"), (*PLACE, *ROWS, "gripper"))
    assert back is not None
    np.testing.assert_allclose(way(back(found)), found, atol=1e-12)
    with pytest.raises(UserError, match=r"eef_rot6d_rows \[1\] cannot be converted to eef_axis_angle"):
        way(np.zeros(10))


def test_deltas_are_said_in_another_unit():
    way = make_action_converter((*METRES, "gripper"), (*STEP, "gripper"))
    assert way is not None
    np.testing.assert_allclose(way(np.array([0.05, -0.1, 0, 1])), [1, -2, 0, 1])


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (PLACE, STEP),
        (PLACE, (*PLACE, *TURN)),
        ((*PLACE, "gripper"), ("gripper", *PLACE)),
        ((*PLACE, "gripper"), (*PLACE, "vacuum")),
        (tuple(name.split(" ")[0] for name in METRES), STEP),
        (("eef_pos.x",), ("eef_pos.x [m]",)),
        (tuple(f"robot0_{name}" for name in PLACE), PLACE),
    ],
)
def test_what_is_another_thing_is_not_restated(names, wanted):
    assert make_action_converter(names, wanted) is None
