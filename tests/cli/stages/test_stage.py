"""A stage runs once for equal settings, continues what was interrupted, and refuses to mix."""

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from pixio_robot.cli.stages.stage import Stage, run_stage, stamp_path
from pixio_robot.errors import UserError
from pixio_robot.files import read_json, write_json


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
    assert run_stage(Stage("collect", str(out), Settings()), make(out, log)) == 0
    assert run_stage(Stage("collect", str(out), Settings(workers=7)), make(out, log)) == 0
    assert log == ["worked"]


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []
    run_stage(Stage("collect", str(out), Settings()), make(out, log))
    with pytest.raises(UserError, match="steps: 1 then, 2 now"):
        run_stage(Stage("collect", str(out), Settings(steps=2)), make(out, log))
    assert run_stage(Stage("collect", str(out), Settings(steps=2), overwrite=True), make(out, log)) == 0
    assert log == ["worked", "worked"]


def test_a_result_goes_on_where_all_that_differs_may_grow_and_did(tmp_path: Path) -> None:
    out, log = tmp_path / "policy", []

    def run(may_grow: tuple[str, ...] = (), **loop: int) -> int:
        return run_stage(Stage("train", str(out), {"loop": loop}, may_grow=may_grow), make(out, log))

    run(steps=10, warmup=1)
    with pytest.raises(UserError, match=r"loop\.extend=true to continue training"):
        run(steps=20, warmup=1)
    for wrong in ({"steps": 9, "warmup": 1}, {"steps": 20, "warmup": 2}):
        with pytest.raises(UserError, match="other settings"):
            run(("loop.steps",), **wrong)
    assert run(("loop.steps",), steps=20, warmup=1) == 0
    assert run(steps=20, warmup=1) == 0
    assert log == ["worked", "worked"]
    with pytest.raises(UserError, match=r"loop\.steps: 20 then, 'unset' now"):
        run_stage(Stage("evaluate", str(out), {"episodes": 3}), make(out, log))


def test_a_result_is_the_earlier_one_until_it_has_grown(tmp_path: Path) -> None:
    out, log = tmp_path / "policy", []
    run_stage(Stage("train", str(out), {"loop": {"steps": 10}}), make(out, log))
    before = read_json(stamp_path(out))
    longer = {"loop": {"steps": 20}}

    def refused() -> bool:
        raise UserError("no such environment")

    with pytest.raises(UserError, match="no such environment"):
        run_stage(Stage("train", str(out), longer, may_grow=("loop.steps",)), refused)
    assert run_stage(Stage("train", str(out), longer, may_grow=("loop.steps",)), make(out, log, finished=False)) == 130
    assert read_json(stamp_path(out)) == before
    assert run_stage(Stage("train", str(out), longer, may_grow=("loop.steps",)), make(out, log)) == 0
    assert read_json(stamp_path(out))["settings"] == {"loop.steps": 20}


def test_a_store_that_is_growing_is_unfinished(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []

    def stage(episodes: int) -> Stage:
        return Stage("collect", str(out), {"episodes": episodes}, may_grow=("episodes",), grows_in_place=True)

    run_stage(stage(3), make(out, log))
    assert run_stage(stage(5), make(out, log, finished=False)) == 130
    stamp = read_json(stamp_path(out))
    assert stamp["settings"] == {"episodes": 5}
    assert not stamp["finished"]
    with pytest.raises(UserError, match="episodes: 5 then, 3 now"):
        run_stage(stage(3), make(out, log))
    assert run_stage(stage(5), make(out, log)) == 0
    assert read_json(stamp_path(out))["finished"]


def test_a_store_that_could_not_grow_is_as_finished_as_before(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []
    run_stage(Stage("collect", str(out), {"episodes": 3}), make(out, log))
    before = read_json(stamp_path(out))

    def fails(adds: bool) -> Callable[[], bool]:
        def work() -> bool:
            if adds:
                (out / "more").touch()
            raise UserError("no simulator")

        return work

    for adds in (False, True):
        stage = Stage("collect", str(out), {"episodes": 5}, may_grow=("episodes",), grows_in_place=True)
        with pytest.raises(UserError, match="no simulator"):
            run_stage(stage, fails(adds))
        assert (read_json(stamp_path(out)) == before) is not adds
    assert not read_json(stamp_path(out))["finished"]


@pytest.mark.parametrize("mapping", ["make", "cameras"])
def test_words_of_the_user_are_part_of_the_result_whatever_they_are_called(tmp_path: Path, mapping: str) -> None:
    out, log = tmp_path / "results", []
    for device in ("cpu", "cuda"):
        settings = {"device": device, "env": {mapping: {"device": "cpu", "inside": {"workers": 1}}}}
        run_stage(Stage("evaluate", str(out), settings), make(out, log))
    assert log == ["worked"]
    with pytest.raises(UserError, match=rf"env\.{mapping}\.inside\.workers: 1 then, 2 now"):
        run_stage(
            Stage("evaluate", str(out), {"env": {mapping: {"device": "cpu", "inside": {"workers": 2}}}}), make(out, log)
        )


def test_an_interrupted_stage_continues(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []
    assert run_stage(Stage("collect", str(out), Settings()), make(out, log, finished=False)) == 130
    assert not read_json(stamp_path(out))["finished"]
    with pytest.raises(UserError, match="steps: 1 then, 2 now"):
        run_stage(Stage("collect", str(out), Settings(steps=2)), make(out, log))
    assert run_stage(Stage("collect", str(out), Settings()), make(out, log)) == 0
    assert log == ["worked", "worked"]


def test_a_result_that_was_removed_is_made_again(tmp_path: Path) -> None:
    out, log = tmp_path / "demos", []
    run_stage(Stage("collect", str(out), Settings()), make(out, log))
    shutil.rmtree(out)
    assert run_stage(Stage("collect", str(out), Settings()), make(out, log)) == 0
    shutil.rmtree(out)
    assert run_stage(Stage("collect", str(out), Settings(steps=2)), make(out, log)) == 0
    assert log == ["worked"] * 3


def test_the_time_of_interrupted_sessions_counts_but_not_that_of_another_result(tmp_path: Path) -> None:
    out, log = tmp_path / "frames", []
    run_stage(Stage("curate", str(out), Settings(), always=True), make(out, log, finished=False))
    for settings, before, least in ((Settings(), 100, 100), (Settings(steps=2), 100, 0)):
        write_json(stamp_path(out), read_json(stamp_path(out)) | {"seconds": before})
        run_stage(Stage("curate", str(out), settings, always=True), make(out, log))
        assert least <= read_json(stamp_path(out))["seconds"] < least + 50


def write(path: Path, text: str) -> Callable[[], bool]:
    def work() -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return True

    return work


def test_a_stage_is_stale_when_its_input_contains_something_else(tmp_path: Path) -> None:
    source, out, log = tmp_path / "demos", tmp_path / "policy", []

    def train() -> int:
        return run_stage(Stage("train", str(out), {"data": str(source)}, inputs={"data": str(source)}), make(out, log))

    file = source / "config.json"
    run_stage(Stage("collect", str(source), Settings()), write(file, "one"))
    train()
    run_stage(Stage("collect", str(source), Settings(steps=2), overwrite=True), write(file, "one"))
    assert train() == 0, "the same again"
    file.write_text("two")  # by another tool
    with pytest.raises(UserError, match=r"made with other settings \(data: '1 files, 3 bytes, .*' then"):
        train()
    assert log == ["worked"]


def test_a_moved_run_goes_on_however_its_input_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def train(run: str) -> int:
        data = [f"{run}/weights.pth", "hub/name"]
        return run_stage(
            Stage("train", f"{run}/policy", {"data": data}, inputs={"data": data}),
            make(Path(f"{run}/policy"), log, len(log) > 1),
        )

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "weights.pth").write_text("weights")
    monkeypatch.chdir(tmp_path)
    assert train("a") == 130
    assert train("./a") == 130
    shutil.copytree("a", "elsewhere/b", copy_function=shutil.copyfile)
    monkeypatch.chdir("elsewhere")
    assert train("b") == 0
    assert train(str(tmp_path / "elsewhere" / "b")) == 0
    assert len(log) == 3


def test_an_unfinished_input_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, log = tmp_path / "demos", tmp_path / "policy", []
    for finished, said in ((False, True), (True, False)):
        run_stage(Stage("collect", str(source), Settings()), make(source, log, finished))
        capsys.readouterr()
        run_stage(Stage("train", str(out), Settings(), inputs={"data": str(source)}), make(out, log))
        assert (f"train: {source} is unfinished and used as it is now" in capsys.readouterr().out) == said


def test_overwrite_leaves_foreign_directories_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    with pytest.raises(UserError, match="not made by pixio-robot"):
        run_stage(Stage("collect", str(foreign), Settings(), overwrite=True), make(foreign, []))
    assert foreign.is_dir()


def test_overwrite_leaves_files_alone_that_lie_where_a_result_was(tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    run_stage(Stage("evaluate", str(out), Settings()), write(out / "summary.json", "{}"))
    run_stage(Stage("evaluate", str(out), Settings(steps=2), overwrite=True), write(out / "summary.json", "{}"))
    shutil.rmtree(out)
    write(out / "thesis.tex", "mine")()
    with pytest.raises(UserError, match="not made by pixio-robot"):
        run_stage(Stage("evaluate", str(out), Settings(), overwrite=True), write(out / "summary.json", "{}"))
    assert (out / "thesis.tex").read_text() == "mine"


def test_what_no_stage_made_is_not_replaced(tmp_path: Path) -> None:
    out, log = tmp_path / "probe", []
    out.mkdir()
    assert run_stage(Stage("probe", str(out), Settings(), replaces=True), make(out, log)) == 0
    (out / "probe.json").write_text("{}")
    assert run_stage(Stage("probe", str(out), Settings(steps=2), overwrite=True, replaces=True), make(out, log)) == 0
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes holds notes\.txt and was not made .*choose a new or empty out="):
        run_stage(Stage("probe", str(notes), Settings(), replaces=True), make(notes, log))
    with pytest.raises(UserError, match="not made by pixio-robot"):
        run_stage(Stage("probe", str(notes), Settings(), replaces=True, overwrite=True), make(notes, log))
    file = notes / "notes.txt"
    with pytest.raises(UserError, match="choose a new or empty out="):
        run_stage(Stage("probe", str(file), Settings(), replaces=True), make(file, log))
    assert file.read_text() == "mine"
    assert log == ["worked", "worked"]


@pytest.mark.parametrize("made", [False, True])
def test_a_result_does_not_hold_others(tmp_path: Path, made: bool) -> None:
    policies, log = tmp_path / "policies", []
    for name in ("bc", "bc2"):
        policies.mkdir(exist_ok=True)
        run_stage(Stage("train", str(policies / name), Settings()), make(policies / name, log))
    if made:  # by an earlier version
        write_json(stamp_path(policies), {"settings": {}, "finished": True})
    for overwrite in {made, True}:
        with pytest.raises(UserError, match=r"policies holds other results \(bc, bc2\).* give out=.*policies/NAME"):
            run_stage(Stage("train", str(policies), Settings(steps=2), overwrite=overwrite), make(policies, log))
    assert stamp_path(policies / "bc").is_file()


def test_rollouts_during_a_training_are_a_part_of_it(tmp_path: Path) -> None:
    out, log = tmp_path / "bc", []
    run_stage(Stage("train", str(out), Settings()), make(out, log))
    write_json(out / "trials" / "step_00000002" / "evaluation.stage.json", {})
    assert run_stage(Stage("train", str(out), Settings(steps=2), overwrite=True), make(out, log)) == 0


def test_a_first_try_that_failed_early_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bool:
        raise UserError("no such camera")

    with pytest.raises(UserError):
        run_stage(Stage("collect", str(tmp_path / "demos"), Settings()), fail)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_refused_do_not_change_what_a_result_is_known_by(tmp_path: Path) -> None:
    out, log = tmp_path / "frames", []

    def refuse() -> bool:
        raise UserError("no such checkpoint")

    run_stage(Stage("curate", str(out), Settings(), always=True), make(out, log))
    before = stamp_path(out).read_text()
    with pytest.raises(UserError, match="no such checkpoint"):
        run_stage(Stage("curate", str(out), Settings(steps=2), always=True), refuse)
    assert stamp_path(out).read_text() == before

    def crash() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(Stage("curate", str(out), Settings(steps=2), always=True), crash)
    stamp = read_json(stamp_path(out))
    assert (stamp["finished"], stamp["settings"]) == (False, {"steps": 2}), "it may have begun to change"


def test_two_commands_do_not_share_an_output(tmp_path: Path) -> None:
    out = tmp_path / "demos"

    def work() -> bool:
        with pytest.raises(UserError, match="Another process is writing"):
            run_stage(Stage("collect", str(out), Settings()), lambda: True)
        return make(out, [])()

    assert run_stage(Stage("collect", str(out), Settings()), work) == 0
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
        run_stage(Stage("collect", str(out), Settings()), lambda: True)
    third[0].close()


def test_other_folders_are_known_by_the_times_of_their_files(tmp_path: Path) -> None:
    source, out, log = tmp_path / "in" / "footage", tmp_path / "policy", []
    file = source / "episodes" / "0"
    file.parent.mkdir(parents=True)
    file.write_text("one")
    inputs = {"source": str(source), "teacher": "hub/name"}

    def train() -> int:
        return run_stage(Stage("train", str(out), Settings(), inputs=inputs), make(out, log))

    train()
    (file.parent / ".features").mkdir()
    (file.parent / ".features" / "cached").write_text("by the stage itself")
    assert train() == 0
    assert log == ["worked"]
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    with pytest.raises(UserError, match=r"made with other settings \(source: '1 files of 3 bytes, .* then"):
        train()
