"""overwrite=true costs nobody a result before there is something new in its place."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pixio_robot.cli.collect import _holds_an_episode
from pixio_robot.cli.stages import replacement
from pixio_robot.cli.stages.stage import Stage, run_stage, stamp_path
from pixio_robot.errors import UserError
from pixio_robot.files import read_json


@pytest.fixture
def made(tmp_path: Path) -> Path:
    out = tmp_path / "demos"
    assert run(out, 1, lambda: write(out, "old")) == 0
    return out


def run(out: Path, setting: int, work: Callable[[], bool], overwrite: bool = False) -> int:
    return run_stage(Stage("collect", str(out), {"setting": setting}, overwrite=overwrite), work)


def write(out: Path, text: str) -> bool:
    out.mkdir(exist_ok=True)
    (out / "text").write_text(text)
    return True


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("end", [UserError("no such camera"), KeyboardInterrupt(), None])
def test_a_result_stays_when_what_was_to_replace_it_never_began(made: Path, end: BaseException | None) -> None:
    before = stamp_path(made).read_text()

    def stop() -> bool:
        assert not made.exists(), "the new result would be mixed with the old"
        if end is not None:
            raise end
        return False

    if end is None:
        assert run(made, 2, stop, overwrite=True) == 130
    else:
        with pytest.raises(type(end)):
            run(made, 2, stop, overwrite=True)
    assert (made / "text").read_text() == "old"
    assert stamp_path(made).read_text() == before
    assert names(made.parent) == ["demos", "demos.stage.json"]


def test_a_result_goes_when_a_new_one_has_begun(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacement, "POLL_SECONDS", 0.01)

    def work() -> bool:
        write(made, "new")
        while (made.parent / ".demos.replaced").exists():
            time.sleep(0.01)
        raise UserError("the loss was not finite")

    with pytest.raises(UserError, match="not finite"):
        run(made, 2, work, overwrite=True)
    assert (made / "text").read_text() == "new"
    assert not read_json(stamp_path(made))["finished"]
    assert run(made, 2, lambda: write(made, "newer")) == 0
    assert names(made.parent) == ["demos", "demos.stage.json"]


def test_a_result_is_kept_for_as_long_as_nothing_new_has_begun(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacement, "POLL_SECONDS", 0.001)
    looks = threading.Semaphore(0)

    def begun(out: Path) -> bool:
        looks.release()
        return False

    def work() -> bool:
        assert all(looks.acquire(timeout=30) for _ in range(3))
        raise UserError("the simulator failed")

    with pytest.raises(UserError, match="simulator failed"):
        run_stage(Stage("collect", str(made), {"setting": 2}, overwrite=True, has_begun=begun), work)
    assert (made / "text").read_text() == "old"


@pytest.mark.parametrize("began", [False, True])
def test_after_a_kill_the_next_command_finds_the_old_result_or_the_new_one(
    made: Path, began: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacement, "finish_replacement", lambda *_: None)  # what a kill leaves out

    def work() -> bool:
        if began:
            write(made, "new")
        raise SystemExit

    with pytest.raises(SystemExit):
        run(made, 2, work, overwrite=True)
    monkeypatch.undo()
    assert run(made, 2 if began else 1, lambda: write(made, "new, finished")) == 0
    assert (made / "text").read_text() == ("new, finished" if began else "old")
    assert names(made.parent) == ["demos", "demos.stage.json"]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("stored", [False, True])
def test_a_result_comes_back_when_nothing_of_the_new_one_is_worth_keeping(
    made: Path, stored: bool, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamp_path(made).read_text()

    def begun(out: Path) -> bool:
        return (out / "episode").exists()

    def work() -> bool:
        write(made, "new")
        if stored:
            (made / "episode").touch()
        raise RuntimeError("the simulator failed")

    if killed:
        monkeypatch.setattr(replacement, "finish_replacement", lambda *_: None)
    with pytest.raises(RuntimeError):
        run_stage(Stage("collect", str(made), {"setting": 2}, overwrite=True, has_begun=begun), work)
    monkeypatch.undo()
    if killed:
        replacement.finish_replacement(made, stamp_path(made), begun)
    assert (made / "text").read_text() == ("new" if stored else "old")
    assert (stamp_path(made).read_text() == before) == (not stored)
    assert names(made.parent) == ["demos", "demos.stage.json"]


def test_a_store_without_an_episode_gives_way_to_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "demos" / "episodes" / ".tmp-demos-1").mkdir(parents=True)
    assert not _holds_an_episode(tmp_path / "demos")
    (tmp_path / "demos" / "episodes" / "000000").mkdir()
    assert _holds_an_episode(tmp_path / "demos")


def test_a_link_is_left_alone(made: Path) -> None:
    made.rename(made.with_name("elsewhere"))
    made.symlink_to(made.with_name("elsewhere"))
    with pytest.raises(UserError, match="is a symbolic link, which overwrite=true does not replace"):
        run(made, 2, lambda: write(made, "new"), overwrite=True)
    assert (made / "text").read_text() == "old"
