"""The whole curation of frames whose right answer is known; stopped, continued, repeated."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixio_robot.data.curation import score_columns
from pixio_robot.data.curation.curate import CurateConfig, curate
from pixio_robot.data.curation.selection import Selection
from pixio_robot.data.curation.sidecars import read_losses, read_sidecar
from pixio_robot.data.curation.thresholds import Reason
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.ingest.pipeline import IngestConfig, ingest
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError

SMALL = {"min_side": 64, "max_similarity": None}


def page_of_text(seed: int) -> np.ndarray:
    image = np.full((96, 96, 3), 255, np.uint8)
    for line in range(8):
        text = f"{hashlib.sha256(bytes([seed, line])).hexdigest()[:14]}"
        cv2.putText(image, text, (3, 12 + 11 * line), cv2.FONT_HERSHEY_PLAIN, 0.7, (0, 0, 0), 1)
    return image


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, make_shards, draw) -> Path:
    """Frames by video: 12 scenes, of which 3 twice; 4 pages; 2 black and 2 white; 3 blurred; 2 small."""
    random = np.random.default_rng(0)
    scenes = [draw(seed) for seed in range(12)]
    night = [random.integers(0, 8, (96, 96, 3), np.uint8) for _ in range(2)]
    glare = [random.integers(248, 256, (96, 96, 3), np.uint8) for _ in range(2)]
    return make_shards(
        tmp_path_factory.mktemp("curate"),
        {
            "a_scenes": [image for seed, image in enumerate(scenes) for _ in range(2 if seed < 3 else 1)],
            "b_pages": [page_of_text(seed) for seed in range(4)],
            "c_light": night + glare,
            "d_blurred": [cv2.GaussianBlur(draw(seed), (0, 0), 12) for seed in range(20, 23)],
            "e_small": [draw(seed, 48) for seed in (30, 31)],
        },
    )


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def config(shards: Path, out: Path, **more) -> CurateConfig:
    return CurateConfig(data=str(shards), out=str(out), **(SMALL | {"workers": 1} | more))


def test_every_frame_gets_the_right_reason(shards: Path, tmp_path: Path) -> None:
    before = tree(shards)
    report = curate(config(shards, tmp_path / "out"))
    assert report.dropped == {
        "unreadable": 0,
        "small": 2,
        "dark": 2,
        "bright": 2,
        "few_colours": 4,
        "blurred": 3,
        "still": 3,
        "near_duplicate": 0,
    }
    assert report.kept == 12
    selection = Selection.open(tmp_path / "out")
    assert selection.info["data"] == score_columns.data_digest(FrameShards.open(shards))
    reasons = np.load(tmp_path / "out" / "reasons.npy")
    assert selection.epoch(0, 0).numbers().tolist() == np.flatnonzero(reasons == Reason.KEPT).tolist()
    assert tree(shards) == before  # the shards are never written to


def test_a_second_call_does_nothing_and_a_moved_threshold_scores_nothing(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert curate(config(shards, out)).changed
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert not curate(config(shards, out)).changed
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert curate(config(shards, out, min_sharpness=None)).changed
    assert (out / "scores" / "pixels.npy").stat().st_mtime_ns == times[out / "scores" / "pixels.npy"]
    (out / "curation.html").unlink()
    assert curate(config(shards, out, min_sharpness=None)).changed


def test_only_frames_of_new_footage_are_scored(make_shards, draw, tmp_path: Path, monkeypatch) -> None:
    frames = {name: [draw(10 * place + number) for number in range(4)] for place, name in enumerate("bdf")}
    shards = make_shards(tmp_path, frames)
    curate(config(shards, tmp_path / "out"))
    for name, seed in (("a", 50), ("e", 60), ("g", 70)):  # before, between and after the others
        (tmp_path / "in" / name).mkdir()
        cv2.imwrite(str(tmp_path / "in" / name / "0000.png"), draw(seed))
    cv2.imwrite(str(tmp_path / "in" / "d" / "0004.png"), draw(80))
    (tmp_path / "in" / "f" / "0000.png").unlink()
    again = IngestConfig(source=str(tmp_path / "in"), out=str(shards), workers=1, shard_bytes=60_000)
    ingest(dataclasses.replace(again, validation_share=0.0))
    scored: list[score_columns.Chunk] = []
    real = score_columns.run_tasks

    def spy(job, arguments, **more):
        scored.extend(arguments)
        return real(job, arguments, **more)

    monkeypatch.setattr(score_columns, "run_tasks", spy)
    curate(config(shards, tmp_path / "out"))
    assert [(chunk.start, chunk.stop) for chunk in scored] == [(0, 1), (5, 15)]  # a; d, e, f and g; not b
    monkeypatch.undo()
    curate(config(shards, tmp_path / "fresh"))
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_another_threshold_does_not_write_the_sidecars_again(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curate(config(shards, out))
    (sidecar,) = sorted((out / "sidecars").iterdir())[:1]
    before = sidecar.stat().st_mtime_ns
    sidecar.write_text("{}")
    curate(config(shards, out, min_sharpness=None))
    assert sidecar.read_text() == "{}"
    sidecar.unlink()
    curate(config(shards, out, min_sharpness=3.0))
    assert read_sidecar(sidecar)
    assert sidecar.stat().st_mtime_ns > before


def test_the_result_does_not_depend_on_the_workers(shards: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(score_columns, "SMALLEST_CHUNK", 5)
    monkeypatch.setattr(score_columns, "LARGEST_CHUNK", 5)
    for workers in (1, 3):
        curate(config(shards, tmp_path / str(workers), workers=workers))
    assert tree(tmp_path / "1") == tree(tmp_path / "3")


def test_stopped_between_any_two_chunks_equals_uninterrupted(shards: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(score_columns, "SMALLEST_CHUNK", 10)
    monkeypatch.setattr(score_columns, "LARGEST_CHUNK", 10)
    curate(config(shards, tmp_path / "whole"))
    real = score_columns.run_tasks

    def stops_after_one(job, arguments, **more):
        for outcome in real(job, arguments, **more):
            yield outcome
            raise KeyboardInterrupt

    monkeypatch.setattr(score_columns, "run_tasks", stops_after_one)
    stops = 0
    while True:
        try:
            curate(config(shards, tmp_path / "cut"))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 3  # each time one chunk more was kept
    assert tree(tmp_path / "whole") == tree(tmp_path / "cut")


PROGRAM = """
import sys, time
from pixio_robot.data.curation import curate as module, score_columns
score_columns.SMALLEST_CHUNK = score_columns.LARGEST_CHUNK = 2
config = module.CurateConfig(data=sys.argv[1], out=sys.argv[2], min_side=64, max_similarity=None, workers=1)
module.curate(config)
"""


@pytest.mark.slow
def test_killed_at_any_moment_equals_uninterrupted(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    def start(out: Path) -> subprocess.Popen:
        command = [sys.executable, str(tmp_path / "program.py"), str(shards), str(out)]
        return subprocess.Popen(command, start_new_session=True)

    began = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    took = time.monotonic() - began
    for share in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        process = start(tmp_path / "cut")
        time.sleep(share * took)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "cut").wait() == 0
    cut = {name: digest for name, digest in tree(tmp_path / "cut").items() if ".tmp-" not in name}
    assert cut == tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_bytes(shards: Path, tmp_path: Path, monkeypatch, ray_cluster) -> None:
    monkeypatch.setattr(score_columns, "SMALLEST_CHUNK", 5)
    monkeypatch.setattr(score_columns, "LARGEST_CHUNK", 5)
    curate(config(shards, tmp_path / "processes"))
    curate(config(shards, tmp_path / "ray", executor=Executor.RAY, workers=2))
    assert tree(tmp_path / "processes") == tree(tmp_path / "ray")


def test_sidecars_name_the_members_of_their_tar(shards: Path, tmp_path: Path) -> None:
    curate(config(shards, tmp_path / "out"))
    sidecars = sorted((tmp_path / "out" / "sidecars").iterdir())
    assert [path.stem for path in sidecars] == [path.stem for path in sorted(shards.glob("train-*.tar"))]
    assert len(sidecars) > 1
    source, row = FrameShards.open(shards), 0
    for path in sidecars:
        with tarfile.open(shards / f"{path.stem}.tar") as archive:
            scores = read_sidecar(path)
            assert list(scores) == archive.getnames()
        for values in scores.values():
            assert set(values) == {"histogram_score", "height", "width"}
            assert (values["height"], values["width"]) == source.image(row).shape[:2]
            row += 1
    assert row == len(source)


def test_losses_of_sidecars_decide_the_sampling(shards: Path, tmp_path: Path) -> None:
    curate(config(shards, tmp_path / "out"))
    given, number = tmp_path / "given", 0
    given.mkdir()
    for path in sorted((tmp_path / "out" / "sidecars").iterdir()):
        scores = read_sidecar(path)
        for values in scores.values():
            values["mae_loss"] = number / 100
            number += 1
        (given / path.name).write_text(json.dumps(scores))
    with pytest.raises(UserError, match="have no mae_loss"):
        read_losses(tmp_path / "out" / "sidecars", FrameShards.open(shards))
    losses = read_losses(given, FrameShards.open(shards))
    np.testing.assert_allclose(losses, np.arange(number) / 100, rtol=1e-6)
    report = curate(config(shards, tmp_path / "soft", sidecars=str(given)))
    selection = Selection.open(tmp_path / "soft")
    kept = np.load(tmp_path / "soft" / "reasons.npy") == Reason.KEPT
    np.testing.assert_allclose(selection.acceptance[kept], losses[kept])
    assert report.expected_epoch_frames == pytest.approx(losses[kept].sum(), abs=1e-3)
    page = (tmp_path / "soft" / "curation.html").read_text()
    assert "Least sampled" in page
    assert f"included in {100 * losses[kept].mean():.0f} % of the epochs" in page
    for path in given.iterdir():
        untrained = {member: values | {"mae_loss": 1.1} for member, values in read_sidecar(path).items()}
        path.write_text(json.dumps(untrained))
    curate(config(shards, tmp_path / "soft", sidecars=str(given)))
    assert "is not trained enough yet" in (tmp_path / "soft" / "curation.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "should map member names"),
        ('{"a.jpg": 3}', "should be an object"),
        ('{"a.jpg": {"histogram_score": 1, "height": 2}}', "has no 'width'"),
        ('{"a.jpg": {"histogram_score": "x", "height": 2, "width": 3}}', "should be a number, not 'x'"),
        ("{", "not valid JSON"),
    ],
)
def test_a_bad_sidecar_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train-000000.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_sidecar(tmp_path / "train-000000.json")
    assert "train-000000.json" in str(error.value)


def test_a_damaged_frame_is_a_reason_and_not_the_end(tmp_path: Path, make_shards, draw) -> None:
    shards = make_shards(tmp_path, {"a": [draw(seed) for seed in range(5)]})
    record = FrameShards.open(shards).reader.records[2]
    with (shards / "train-000000.tar").open("r+b") as file:
        file.seek(int(record["offset"]))
        file.write(bytes(int(record["size"])))
    report = curate(config(shards, tmp_path / "out"))
    assert report.dropped["unreadable"] == 1
    assert 2 not in Selection.open(tmp_path / "out").epoch(0, 0).numbers()
    assert sum(len(read_sidecar(path)) for path in (tmp_path / "out" / "sidecars").iterdir()) == 4


def test_other_frames_are_scored_anew(tmp_path: Path, make_shards, draw) -> None:
    first = make_shards(tmp_path / "1", {"a": [draw(seed) for seed in range(5)]})
    second = make_shards(tmp_path / "2", {"a": [draw(seed) for seed in range(10, 15)]})
    curate(config(first, tmp_path / "out"))
    curate(config(second, tmp_path / "out"))
    curate(config(second, tmp_path / "fresh"))
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_names_of_files_that_are_no_text_are_shown_as_far_as_they_are(tmp_path: Path, make_shards, draw) -> None:
    folder = os.fsdecode(b"old\xff")
    shards = make_shards(tmp_path, {folder: [draw(0), draw(0), draw(1)]})
    report = curate(config(shards, tmp_path / "out"))
    assert report.dropped["still"] == 1
    assert "old?" in (tmp_path / "out" / "curation.html").read_text(encoding="utf-8")


def test_the_page_is_one_file_with_every_rule(shards: Path, tmp_path: Path) -> None:
    curate(config(shards, tmp_path / "out"))
    page = (tmp_path / "out" / "curation.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    for name, value in CurateConfig(**SMALL).values().items():
        if value is not None:
            assert f"{name}={value:g}" in page
    assert page.count("<svg") == 6
    assert page.count("data:image/jpeg;base64,") > 30
    everything_off = config(shards, tmp_path / "off", **dict.fromkeys(CurateConfig().values()))
    assert curate(everything_off).kept == 28
    assert "rule is disabled" in (tmp_path / "off" / "curation.html").read_text()


def test_mistakes_are_one_sentence(shards: Path, tmp_path: Path) -> None:
    for settings, message in [
        ({"data": ""}, "data is empty"),
        ({"data": str(tmp_path)}, "not a folder of frame shards"),
        ({"data": str(shards), "out": str(shards / "x")}, "lies within the shards"),
        ({"data": str(shards), "out": str(tmp_path / "o"), "sidecars": str(tmp_path)}, "There is no file"),
    ]:
        with pytest.raises(UserError, match=message):
            curate(CurateConfig(**SMALL, workers=1, **settings))
    for settings in ({"min_entropy": 10.0}, {"max_dark": -0.1}, {"max_hash_distance": 64}, {"workers": -1}):
        with pytest.raises(UserError, match=next(iter(settings))):
            CurateConfig(**settings)
    assert CurateConfig(data="a/frames/").output_directory().name == "frames.curation"
