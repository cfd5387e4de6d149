"""Metric loggers as a group."""

import errno
from pathlib import Path

import pytest

from pixio_robot.training.monitoring.loggers import JsonlLogger, MetricLoggers, TensorBoardLogger


def test_a_logger_that_fails_to_close_does_not_keep_the_others_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def fail(logger: JsonlLogger) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JsonlLogger, "close", fail)
    monkeypatch.setattr(TensorBoardLogger, "close", lambda logger: closed.append(logger))
    with pytest.raises(OSError, match="No space left"), MetricLoggers(tmp_path, 0) as loggers:
        loggers.write(1, {"loss": 0.5})
    assert len(closed) == 1
