"""Signals end a command wherever they arrive."""

import signal
import time

import pytest

from pixio_robot.cli.signals import SignalInterrupt, signals_raise_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_arrives_in_a_destructor_is_not_lost(number):
    class Dropped:
        def __del__(self):
            signal.raise_signal(number)

    with pytest.raises(SignalInterrupt) as ended, signals_raise_interrupt():
        Dropped()
        time.sleep(60)
    assert ended.value.number == number
