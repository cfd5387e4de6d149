"""What is shown of long work where there is no terminal."""

import pytest

from pixio_robot.progress import SECONDS_BETWEEN_LINES, Progress, track_progress


def test_progress_prints_occasional_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with Progress("encode", 1200, done=200, clock=lambda: now[0]) as progress:
        now[0] += SECONDS_BETWEEN_LINES - 1
        progress.advance(100)
        assert capsys.readouterr().err == ""
        now[0] += 1
        progress.advance(150)
        assert capsys.readouterr().err == "encode: 450/1,200, 0:01:30 left\n"
        progress.advance(150)
        assert capsys.readouterr().err == ""
        now[0] += SECONDS_BETWEEN_LINES
        progress.advance(100, "3 failed")
        progress.show(700, "700 already")
        progress.say("half of it")
    shown = capsys.readouterr()
    assert shown.err == "encode: 700/1,200, 3 failed, 0:01:00 left\n"
    assert shown.out == "encode: half of it\n"


def test_work_found_done_after_the_start_counts_as_done_but_not_for_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    with Progress("evaluate", 100, clock=lambda: now[0]) as progress:
        progress.resume(80)
        now[0] = 40.0
        progress.advance(10)
    assert capsys.readouterr().err == "evaluate: 90/100, 0:00:40 left\n"


def test_no_time_left_without_progress_and_no_output_unless_shown(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    for shown in (True, False):
        with Progress("write", 10, done=4, shown=shown, clock=lambda: now[0]) as progress:
            now[0] += SECONDS_BETWEEN_LINES
            progress.advance(0)
    assert capsys.readouterr().err == "write: 4/10\n"


def test_items_are_yielded_in_order() -> None:
    assert list(track_progress([3, 1, 2], "items")) == [3, 1, 2]
    assert list(track_progress(iter("ab"), "letters", total=2)) == ["a", "b"]
    with pytest.raises(TypeError, match="total="):
        next(track_progress(iter("ab"), "letters"))
