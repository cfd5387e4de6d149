"""`pixio-robot curate` as a user runs it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixio_robot.cli.main import main
from pixio_robot.data.curation.selection import Selection
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six textured photos and one black one."""
    root = tmp_path_factory.mktemp("curate")
    (root / "in").mkdir()
    random = np.random.default_rng(0)
    for number in range(7):
        coarse = random.integers(0, 255, (8, 8, 3), np.uint8)
        image = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC) * (number < 6)
        cv2.imwrite(str(root / "in" / f"{number}.png"), image)
    ingest(IngestConfig(source=str(root / "in"), out=str(root / "frames"), workers=1))
    return root / "frames"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """pixio-robot curate WORDS: (exit code, what went to stdout and stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pixio-robot", "curate", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_counts_by_reason_then_up_to_date(run, shards: Path) -> None:
    code, output = run(f"data={shards}", "min_side=64", "min_sharpness=null", "workers=1")
    assert code == 0
    assert "kept 6 of 7 frames" in output
    assert "1 too dark" in output
    assert Selection.open(shards.with_name("frames.curation")).epoch(0, 0).numbers().tolist() == [0, 1, 2, 3, 4, 5]
    code, output = run(f"data={shards}", "min_side=64", "min_sharpness=null", "workers=1")
    assert code == 0
    assert "is up to date" in output


def test_no_frame_left_says_so(run, shards: Path, tmp_path: Path) -> None:
    code, output = run(f"data={shards}", f"out={tmp_path / 'none'}", "workers=1")
    assert code == 0
    assert "7 too small" in output
    assert "nothing is left to train on" in output
    assert (tmp_path / "none" / "curation.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=nowhere"], "nowhere is not a folder of frame shards"),
        (["min_entropi=3"], "Did you mean 'min_entropy'"),
        (["min_entropy=11"], "min_entropy=11.0 must be from 0 to 9"),
        (["pixio=nowhere"], "nowhere"),
        (["encoder=dino"], "Unknown encoder 'dino'"),
    ],
)
def test_mistakes_are_one_sentence(run, shards: Path, words: list[str], message: str) -> None:
    code, output = run(f"data={shards}", "workers=1", *words)
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def test_pretraining_shows_what_was_selected(run, shards: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(f"data={shards}", "out=six", "min_side=64", "min_sharpness=null", "workers=1")[0] == 0
    assert run(f"data={shards}", "out=none", "workers=1")[0] == 0
    tiny = ["encoder.size=micro", "encoder.patch=8", "encoder.image_size=32", "encoder.class_tokens=1", "mask.block=1"]
    tiny += ["decoder.width=16", "decoder.depth=1", "decoder.heads=2", "batch_size=4", "workers=1", "device=cpu"]

    def pretrain(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pixio-robot", "pretrain", f"data=[{shards}]", *tiny, "loop.steps=3", *words])
        code, captured = main(), capsys.readouterr()
        return code, captured.out + captured.err

    # Pretraining on all of curated shards names the curation that lies beside them.
    shutil.copytree("six", f"{shards}.curation", dirs_exist_ok=True)
    for words, place in ((["selection=[six]", "out=some"], (2, 0)), (["out=all"], (1, 5))):
        code, said = pretrain(*words)
        assert code == 0
        assert (f"selection=[{shards}.curation]" in said) == (words == ["out=all"])
        (state,) = Path(words[-1].removeprefix("out=")).glob("checkpoints/step_*/trainer.json")
        data = json.loads(state.read_text())["data"]
        assert (data["epoch"], data["position"]) == place  # twelve images shown, of epochs of six and of seven
    small = [f"data={shards}", "min_side=64", "min_sharpness=null", "workers=1", "device=cpu", "out=soft"]
    code, words = run(*small, "pixio=some/model")
    assert code == 2
    assert "use pixio=some/mae." in words
    code, words = run(*small, "pixio=some", "mae_masks=1")
    assert code == 0, words
    assert "an epoch sees" in words
    code, words = pretrain("selection=[none]", "out=nothing")
    assert code == 2
    assert "keeps no frame" in words
