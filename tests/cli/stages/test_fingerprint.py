"""Inputs are known by what they contain."""

import os
import shutil
from pathlib import Path

from demo_data import make_store

from pixio_robot.cli.stages.fingerprint import FULL_READ_BYTES, SAMPLED_END_BYTES, fingerprint_content
from pixio_robot.data.demos.store import DemoStore


def test_a_store_is_known_by_its_episodes(tmp_path: Path) -> None:
    make_store(tmp_path / "demos")
    before = fingerprint_content(str(tmp_path / "demos"))
    shutil.copytree(tmp_path / "demos", tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy" / "collect.json").write_text("{}")
    (tmp_path / "copy" / "episodes" / ".tmp-demos-1").mkdir()
    assert fingerprint_content(f"{tmp_path}/copy/") == before
    assert before.startswith(f"{len(DemoStore.open(tmp_path / 'demos'))} episodes, ")
    # Of the same length and with the same header, but other values.
    values = next((tmp_path / "copy" / "episodes" / "000000" / "actions").rglob("0"))
    while values.is_dir():
        values = values / "0"
    values.write_bytes(values.read_bytes()[::-1])
    assert fingerprint_content(str(tmp_path / "copy")) != before


def test_weights_are_read_whole_and_large_arrays_at_their_ends(tmp_path: Path) -> None:
    middle = FULL_READ_BYTES // 2
    for ending, differs in ((".safetensors", True), ("", False)):
        folder = tmp_path / f"of{ending}"
        folder.mkdir()
        (folder / "config.json").touch()
        content = bytearray(FULL_READ_BYTES + 1)
        (folder / f"weights{ending}").write_bytes(content)
        before = fingerprint_content(str(folder))
        content[middle] = 1
        (folder / f"weights{ending}").write_bytes(content)
        assert (fingerprint_content(str(folder)) != before) == differs
        content[-SAMPLED_END_BYTES] = 1
        (folder / f"weights{ending}").write_bytes(content)
        assert fingerprint_content(str(folder)) != before


def test_a_training_run_is_its_model(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    before = fingerprint_content(str(tmp_path / "run"))
    (tmp_path / "run" / "metrics.jsonl").write_text("{}")
    assert fingerprint_content(str(tmp_path / "run")) == fingerprint_content(str(tmp_path / "run" / "model")) == before


def test_a_selection_is_its_acceptance_and_shards_are_what_they_contain_whatever_their_times(tmp_path: Path) -> None:
    for mark in ("acceptance.npy", "manifest.json"):
        folder = tmp_path / mark
        folder.mkdir()
        (folder / mark).write_text("one")
        before = fingerprint_content(str(folder))
        os.utime(folder / mark, ns=(0, 0))
        assert fingerprint_content(str(folder)) == before
        (folder / "more.tar").touch()
        assert (fingerprint_content(str(folder)) == before) == (mark == "acceptance.npy")
        (folder / mark).write_text("two")
        assert fingerprint_content(str(folder)) != before


def test_the_names_of_files_count_but_not_that_of_a_single_one(tmp_path: Path) -> None:
    for name in ("config.json", "a", "b.pth"):
        (tmp_path / name).write_text("content")
    before = fingerprint_content(str(tmp_path))
    (tmp_path / "a").rename(tmp_path / "c.pth")
    assert fingerprint_content(str(tmp_path)) != before
    assert fingerprint_content(str(tmp_path / "b.pth")) == fingerprint_content(str(tmp_path / "c.pth"))


def test_what_is_not_there_is_its_name() -> None:
    assert fingerprint_content("facebook/pixio-vitb16") == "facebook/pixio-vitb16"
