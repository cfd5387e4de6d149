"""A stage runs once for equal settings, continues what was interrupted, and refuses to mix."""

import dataclasses
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from pixio_robot.cli.stages import run_stage, stamp_path
from pixio_robot.errors import UserError
from pixio_robot.files import read_json


@dataclasses.dataclass
class Settings:
    steps: int = 1
    workers: int = 0


def make(out: Path, log: list[str], finished: bool = True) -> Callable[[], bool]:
    def work() -> bool:
        out.mkdir(exist_ok=True)
        log.append("worked")
        return finished

    return work


def test_a_finished_stage_is_skipped_whatever_the_workers(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []
    assert run_stage("collect", str(out), Settings(), make(out, log)) == 0
    assert run_stage("collect", str(out), Settings(workers=7), make(out, log)) == 0
    assert log == ["worked"]


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []
    run_stage("collect", str(out), Settings(), make(out, log))
    with pytest.raises(UserError, match="steps: 1 then, 2 now"):
        run_stage("collect", str(out), Settings(steps=2), make(out, log))
    assert run_stage("collect", str(out), Settings(steps=2), make(out, log), overwrite=True) == 0
    assert log == ["worked", "worked"]


def test_a_setting_that_has_come_since_and_is_not_said_is_no_other_setting(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Inner:
        views: int = 4
        names: list[str] = dataclasses.field(default_factory=lambda: ["a"])

    @dataclasses.dataclass
    class Later(Settings):
        mode: str = "old"
        inner: Inner = dataclasses.field(default_factory=Inner)

    out, log = tmp_path / "demos", []
    run_stage("collect", str(out), Settings(), make(out, log, finished=False))
    digest = read_json(stamp_path(out))["digest"]
    assert run_stage("collect", str(out), Later(), make(out, log)) == 0
    assert run_stage("collect", str(out), Later(inner=Inner(views=4)), make(out, log)) == 0
    assert log == ["worked", "worked"]
    # What was made from it goes by this.
    assert read_json(stamp_path(out))["digest"] == digest
    for other, words in ((Later(mode="new"), "mode: 'old' then, 'new' now"), (Later(inner=Inner(views=5)), "views: 4")):
        with pytest.raises(UserError, match=words):
            run_stage("collect", str(out), other, make(out, log))
    with pytest.raises(UserError, match=r"inner\.views: 4 then, 'unset' now"):
        run_stage("collect", str(out), Settings(), make(out, log))


def test_a_result_goes_on_where_all_that_differs_may_grow_and_did(tmp_path: Path) -> None:
    out, log = tmp_path / "policy", []

    def run(may_grow: tuple[str, ...] = (), **loop: int) -> int:
        return run_stage("train", str(out), {"loop": loop}, make(out, log), may_grow=may_grow)

    run(steps=10, warmup=1)
    digest = read_json(stamp_path(out))["digest"]
    with pytest.raises(UserError, match=r"loop\.extend=true to continue training"):
        run(steps=20, warmup=1)
    for wrong in ({"steps": 9, "warmup": 1}, {"steps": 20, "warmup": 2}):
        with pytest.raises(UserError, match="other settings"):
            run(("loop.steps",), **wrong)
    assert run(("loop.steps",), steps=20, warmup=1) == 0
    assert run(steps=20, warmup=1) == 0
    assert log == ["worked", "worked"]
    assert read_json(stamp_path(out))["digest"] != digest
    with pytest.raises(UserError, match=r"loop\.steps: 20 then, 'unset' now"):
        run_stage("evaluate", str(out), {"episodes": 3}, make(out, log))


def test_a_result_is_the_earlier_one_until_it_has_grown(tmp_path: Path) -> None:
    out, log = tmp_path / "policy", []
    run_stage("train", str(out), {"loop": {"steps": 10}}, make(out, log))
    before = read_json(stamp_path(out))
    longer = {"loop": {"steps": 20}}

    def refused() -> bool:
        raise UserError("no such environment")

    with pytest.raises(UserError, match="no such environment"):
        run_stage("train", str(out), longer, refused, may_grow=("loop.steps",))
    assert run_stage("train", str(out), longer, make(out, log, finished=False), may_grow=("loop.steps",)) == 130
    assert read_json(stamp_path(out)) == before
    assert run_stage("train", str(out), longer, make(out, log), may_grow=("loop.steps",)) == 0
    assert read_json(stamp_path(out))["settings"] == {"loop.steps": 20}


def test_words_of_the_user_are_part_of_the_result_whatever_they_are_called(tmp_path: Path) -> None:
    out, log = tmp_path / "results", []
    for device in ("cpu", "cuda"):
        settings = {"device": device, "env": {"make": {"device": "cpu", "inside": {"workers": 1}}}}
        run_stage("evaluate", str(out), settings, make(out, log))
    assert log == ["worked"]
    with pytest.raises(UserError, match=r"env\.make\.inside\.workers: 1 then, 2 now"):
        run_stage("evaluate", str(out), {"env": {"make": {"device": "cpu", "inside": {"workers": 2}}}}, make(out, log))


def test_an_interrupted_stage_continues(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []
    assert run_stage("collect", str(out), Settings(), make(out, log, finished=False)) == 130
    assert not read_json(stamp_path(out))["finished"]
    assert run_stage("collect", str(out), Settings(), make(out, log)) == 0
    assert log == ["worked", "worked"]


def test_a_stage_is_stale_when_its_input_was_made_anew(tmp_path: Path) -> None:
    source, out, log = tmp_path / "demos", tmp_path / "policy", []
    run_stage("collect", str(source), Settings(), make(source, log))
    run_stage("train", str(out), Settings(), make(out, log), inputs=[str(source)])
    run_stage("collect", str(source), Settings(steps=2), make(source, log), overwrite=True)
    with pytest.raises(UserError, match="made with other settings"):
        run_stage("train", str(out), Settings(), make(out, log), inputs=[str(source)])


def test_overwrite_leaves_foreign_directories_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    with pytest.raises(UserError, match="not made by pixio-robot"):
        run_stage("collect", str(foreign), Settings(), make(foreign, []), overwrite=True)
    assert foreign.is_dir()


def test_a_first_try_that_failed_early_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bool:
        raise UserError("no such camera")

    with pytest.raises(UserError):
        run_stage("collect", str(tmp_path / "demos"), Settings(), fail)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_refused_do_not_change_what_a_result_is_known_by(tmp_path: Path) -> None:
    out, log = tmp_path / "frames", []

    def refuse() -> bool:
        raise UserError("no such checkpoint")

    run_stage("curate", str(out), Settings(), make(out, log), always=True)
    before = stamp_path(out).read_text()
    with pytest.raises(UserError, match="no such checkpoint"):
        run_stage("curate", str(out), Settings(steps=2), refuse, always=True)
    assert stamp_path(out).read_text() == before


def test_two_commands_do_not_share_an_output(tmp_path: Path) -> None:
    out = tmp_path / "demos"

    def work() -> bool:
        with pytest.raises(UserError, match="Another process is writing"):
            run_stage("collect", str(out), Settings(), lambda: True)
        return make(out, [])()

    assert run_stage("collect", str(out), Settings(), work) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demos", "demos.stage.json"]


def test_the_lock_of_one_who_has_finished_keeps_nobody_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the lock and taking it: one command finishes, and the next begins."""
    out, third, lock = tmp_path / "demos", [], fcntl.flock

    def flock(file: TextIO, how: int) -> None:
        if not third:
            path = tmp_path / ".demos.lock"
            path.unlink()
            third.append(path.open("w"))
            lock(third[0], how)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match="Another process is writing"):
        run_stage("collect", str(out), Settings(), lambda: True)
    third[0].close()


@pytest.mark.parametrize("name", ["weights.pth", "store"])
def test_an_input_that_no_stage_made_is_known_by_its_files(tmp_path: Path, name: str) -> None:
    source, out, log = tmp_path / "in" / name, tmp_path / "policy", []
    file = source / "episodes" / "0" if name == "store" else source
    file.parent.mkdir(parents=True)
    file.write_text("one")

    def train() -> int:
        return run_stage("train", str(out), Settings(), make(out, log), inputs=[str(source), "hub/name"])

    train()
    (file.parent / ".features").mkdir()
    (file.parent / ".features" / "cached").write_text("by the stage itself")
    assert train() == 0
    assert log == ["worked"]
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    with pytest.raises(UserError, match=rf"made with other settings \(input .*{name}: '1 files of 3 bytes, .* then"):
        train()
