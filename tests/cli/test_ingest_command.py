"""`pixio-robot ingest`: settings arrive, the user's own privacy code is run and counted, mistakes are explained."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixio_robot.cli.ingest import main
from pixio_robot.errors import UserError

HOOK = """
def hide_all(image):
    return image * 0, 3
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs; and a module of the user's own that can be imported."""
    (tmp_path / "hook_of_the_ingest_command.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), np.full((40, 50, 3), 60 * number, np.uint8))
    return tmp_path / "in"


def test_settings_arrive_and_the_privacy_hook_is_audited(source: Path, tmp_path: Path, capsys) -> None:
    words = [f"source={source}", f"out={tmp_path / 'out'}", "workers=1", "sampling=EVERY", "executor=processes"]
    assert main([*words, "privacy=hook_of_the_ingest_command:hide_all"]) == 0
    printed = capsys.readouterr().out
    assert "4 train" in printed
    assert "ingest: hook_of_the_ingest_command:hide_all hid 12 regions" in printed
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["sampling"] == "every"
    assert manifest["counts"]["privacy"] == {"hidden_regions": 12, "frames_hidden_in": 4}


def test_the_words_count_the_lines_of_the_list_of_failures(source: Path, tmp_path: Path, capsys) -> None:
    (source / "bad.png").write_text("no picture")
    (source / "empty.mp4").touch()
    (source / "copy").mkdir()
    for number in range(4):
        (source / "copy" / f"{number}.png").write_bytes((source / f"{number}.png").read_bytes())
    (source / "copy" / "bad.png").write_text("no picture")
    assert main([f"source={source}", f"out={tmp_path / 'out'}", "workers=1"]) == 0
    printed = capsys.readouterr().out
    assert "1 files could not be used, 2 single images could not be read: 3 lines in" in printed
    assert len((tmp_path / "out" / "failures.jsonl").read_text().splitlines()) == 3
    assert "ingest: 1 files are copies of others" in printed


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("executor=ry", "executor"),
        ("privacy=no_such:thing", "cannot be imported"),
        ("jpeg_quality=0", "jpeg_quality=0 must be from 1 to 100"),
        ("frame_per_second=2", "Did you mean 'frames_per_second'"),
    ],
)
def test_mistakes_are_explained(source: Path, tmp_path: Path, word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([f"source={source}", f"out={tmp_path / 'out'}", word])
    assert not (tmp_path / "out").exists()
