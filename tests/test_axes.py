"""Steps between ticks are round, and the smallest that are large enough."""

import numpy as np
import pytest

from pixio_robot.axes import round_step


@pytest.mark.parametrize(
    ("smallest", "step"),
    [(1, 1), (1.01, 2), (2.2, 2.5), (2.6, 5), (5.1, 10), (0.003, 0.005), (10, 10), (1234, 2000)],
)
def test_a_step_is_the_next_round_number(smallest, step):
    assert round_step(smallest) == pytest.approx(step)


def test_a_round_step_stays_despite_rounding_and_is_never_far_off():
    for smallest in np.geomspace(1e-9, 1e12, 500):
        step = round_step(smallest)
        assert smallest * (1 - 1e-8) <= step <= 2 * smallest * (1 + 1e-8)
        assert round_step(step) == pytest.approx(step)
