"""Inputs are known by what they contain."""

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


def test_what_is_not_there_is_its_name() -> None:
    assert fingerprint_content("facebook/pixio-vitb16") == "facebook/pixio-vitb16"
