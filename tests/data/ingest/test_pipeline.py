"""Ingest: the same bytes whatever happens on the way, accidents cost one file, mistakes are explained."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from av import VideoFrame
from ingest_failures import read_failures

from pixio_robot.data.footage.frames import _images_in
from pixio_robot.data.footage.search import find_footage
from pixio_robot.data.images.shards import FrameShards, ingest_work_directory
from pixio_robot.data.ingest import extract
from pixio_robot.data.ingest.extract import ExtractJob, extract_frames
from pixio_robot.data.ingest.packing import assign_splits, group_identical_content
from pixio_robot.data.ingest.pipeline import IngestConfig, _check_no_footage_missing, ingest
from pixio_robot.data.jobs import worker_processes
from pixio_robot.errors import UserError


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def config(source: Path, out: Path, **settings) -> IngestConfig:
    return IngestConfig(
        source=str(source),
        out=str(out),
        **{"workers": 1, "short_side": 48, "shard_bytes": 60_000, "min_change": 0.7} | settings,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_video) -> Path:
    """Four good videos (one in a sub-folder), one standing still, photographs, and what cannot be used."""
    folder = tmp_path_factory.mktemp("footage")
    for number in range(3):
        make_video(folder / f"clip {number}.mp4", seconds=2, seed=number)
    make_video(folder / "p01" / "küche.webm", codec="libvpx-vp9", seconds=2, seed=9)
    make_video(folder / "still.mkv", seconds=2, still=True)
    (folder / "empty.mp4").touch()
    (folder / "text.MOV").write_text("not a film")
    (folder / "._clip 0.mp4").write_text("left by macOS")
    (folder / "photos").mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (40, 60, 3), np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), image)
    (folder / "photos" / "bad.jpg").write_bytes(b"\xff\xd8 not a photograph")
    (folder / "cut.mp4").write_bytes(make_video(folder / "long.mp4", seconds=8).read_bytes()[:9000])
    (folder / "long.mp4").unlink()
    return folder


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "frames"
    ingest(config(source, out))
    return out


def test_what_is_in_the_finished_folder(source: Path, finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    frames = {video["id"]: video["frames"] for video in manifest["videos"]}
    assert frames == {
        "clip 0.mp4": 8,
        "clip 1.mp4": 8,
        "clip 2.mp4": 8,
        "cut.mp4": 0,
        "empty.mp4": 0,
        "p01/küche.webm": 8,
        "photos/": 3,
        "still.mkv": 1,
        "text.MOV": 0,
    }
    assert manifest["counts"]["dropped"] == {"static": 7, "over_limit": 0, "damaged": 0, "unreadable_images": 1}
    assert manifest["counts"]["failed_by_reason"] == {"not a readable video": 1, "truncated": 1, "zero bytes": 1}
    assert {line["id"] for line in read_failures(str(finished))} == {
        "cut.mp4",
        "empty.mp4",
        "text.MOV",
        "photos/bad.jpg",
    }
    digest = hashlib.sha256((source / "clip 0.mp4").read_bytes()).hexdigest()
    assert manifest["videos"][0]["sha256"] == digest
    assert not ingest_work_directory(finished).exists()
    assert [path for path in finished.parent.iterdir() if path != finished] == []


def test_shards_are_bounded_plain_tars_that_agree_with_the_index(finished: Path) -> None:
    seen: dict[str, set[int]] = {}
    for split in ("train", "validation"):
        shards = FrameShards.open(finished, split)
        for i, record in enumerate(shards.reader.records):
            seen.setdefault(split, set()).add(int(record["video"]))
            assert shards.image(i).shape == (record["height"], record["width"], 3)
        tars = sorted(finished.glob(f"{split}-*.tar"))
        members = []
        for tar in tars:
            assert tar.stat().st_size <= 60_000
            with tarfile.open(tar) as opened:
                members += [(opened.extractfile(member).read(), member.mtime) for member in opened]
        assert [data for data, _ in members] == [shards.reader.jpeg(i) for i in range(len(shards))]
        assert {mtime for _, mtime in members} == {0}
        shards.close()
    assert not seen["train"] & seen["validation"]
    assert len(list(finished.glob("train-*.tar"))) > 1


def test_frames_are_the_pictures(source: Path, finished: Path, picture) -> None:
    shards = {split: FrameShards.open(finished, split) for split in ("train", "validation")}
    found = {shard.id(i): shard.image(i) for shard in shards.values() for i in range(len(shard))}
    image = found["clip 1.mp4@0.500"]
    expected = cv2.resize(picture(10, seed=1), (80, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_workers_do_not_change_a_byte(source: Path, finished: Path, tmp_path: Path) -> None:
    ingest(config(source, tmp_path / "frames", workers=2))
    assert contents(tmp_path / "frames") == contents(finished)


def test_finished_and_unchanged_starts_no_worker(source: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    monkeypatch.setattr(worker_processes, "_start_worker", None)
    report = ingest(config(source, finished, workers=2))
    assert not report.changed
    assert report.failed == 3
    assert before == {path: path.stat().st_mtime_ns for path in finished.iterdir()}


def test_shards_that_lost_something_since_are_not_called_up_to_date(
    source: Path, finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "frames")
    (out / "train-000000.tar").unlink()
    with pytest.raises(UserError, match=r"train-000000\.tar: it is missing"):
        ingest(config(source, out))


def test_a_frame_stands_still_if_it_shows_what_the_last_kept_one_did(
    tmp_path: Path, make_video, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=0.5)
    (footage,) = find_footage(str(tmp_path / "in"))
    images = [np.full((64, 64, 3), level, np.uint8) for level in (10, 10, 200, 200, 10, 10, 11, 11)]
    monkeypatch.setattr(extract, "read_frames", lambda *_: enumerate(images))
    job = ExtractJob(footage, config(tmp_path / "in", tmp_path / "out").extraction(), tmp_path / "target")
    extract_frames(job, lambda amount: None)
    result = json.loads((tmp_path / "target" / "result.json").read_text())
    assert (result["frames"], result["static"]) == (4, 4)


def test_changes_are_noticed_and_only_they_are_decoded(tmp_path: Path, make_video) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        make_video(source / name, seconds=1)
    ingest(config(source, out))
    make_video(source / "b.mp4", seconds=1.5, seed=3)
    (source / "c.mp4").unlink()
    make_video(source / "d.mp4", seconds=1, seed=4)
    before = contents(out)
    with pytest.raises(UserError, match=r"1 of the 3 pieces of footage in .* are gone .*: c.mp4. .*drop_missing=true"):
        ingest(config(source, out))
    assert contents(out) == before
    report = ingest(config(source, out, drop_missing=True))
    assert report.changed
    assert sum(report.frames.values()) == 4 + 6 + 4
    fresh = tmp_path / "fresh"
    ingest(config(source, fresh))
    assert contents(out) == contents(fresh)
    # Repacking takes over every frame: it works without the decoder being able to read the source.
    ingest(config(source, out, validation_share=0.5, shard_bytes=90_000))
    ingest(config(source, fresh := tmp_path / "fresh2", validation_share=0.5, shard_bytes=90_000))
    assert contents(out) == contents(fresh)
    assert ingest(config(source, out, jpeg_quality=60)).changed


RUN = """
import sys
from pixio_robot.data.ingest.pipeline import IngestConfig, _check_no_footage_missing, ingest
places = {"source": sys.argv[1], "out": sys.argv[2]}
ingest(IngestConfig(**places, workers=2, short_side=48, shard_bytes=60_000, min_change=0.7))
"""
"""A plain script, without `if __name__ == "__main__":`."""


def kill_runs(source: Path, out: Path, kills: int, seed: int) -> None:
    """Start ingests and kill -9 them at random moments."""
    chance = random.Random(seed)
    script = out.parent / "run.py"
    script.write_text(RUN)
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, str(script), str(source), str(out)], start_new_session=True)
        try:
            process.wait(timeout=chance.uniform(0.5, 3.0))
        except subprocess.TimeoutExpired:
            # Half of the kills leave the workers behind as orphans.
            if chance.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()


def test_killed_and_restarted_equals_uninterrupted(source: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    script = tmp_path / "run.py"
    script.write_text(RUN)
    process = subprocess.Popen([sys.executable, str(script), str(source), str(out)], start_new_session=True)
    while len(list(ingest_work_directory(out).glob("*/result.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    with pytest.raises(UserError, match="has not finished"):
        FrameShards.open(out)
    ingest(config(source, out))
    assert contents(out) == contents(finished)


@pytest.mark.slow
def test_killed_many_times_equals_uninterrupted(source: Path, finished: Path, tmp_path: Path) -> None:
    for seed in range(6):
        out = tmp_path / str(seed) / "frames"
        out.parent.mkdir()
        kill_runs(source, out, kills=4, seed=seed)
        ingest(config(source, out))
        assert contents(out) == contents(finished)
        assert not ingest_work_directory(out).exists()


def test_killed_before_clearing_up(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    ingest(config(source, out))
    before = contents(out)
    (ingest_work_directory(out) / "some-key").mkdir(parents=True)
    assert not ingest(config(source, out)).changed
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]

    # Between the two renames that replace a folder.
    replaced = tmp_path / ".tmp-frames-0" / ".replaced"
    replaced.mkdir(parents=True)
    out.rename(replaced / "frames")
    (tmp_path / ".tmp-others-0").mkdir()
    ingest_work_directory(out).mkdir()
    assert not ingest(config(source, out)).changed
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-others-0", "frames"]
    assert contents(out) == before


def test_unfinished_says_how_to_finish(tmp_path: Path) -> None:
    ingest_work_directory(tmp_path / "frames").mkdir()
    with pytest.raises(UserError, match="has not finished; run the same"):
        FrameShards.open(tmp_path / "frames")


def test_a_second_ingest_into_the_same_place_is_refused(source: Path, tmp_path: Path) -> None:
    import fcntl

    work = ingest_work_directory(tmp_path / "frames")
    work.mkdir()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another ingest"):
            ingest(config(source, tmp_path / "frames"))


def test_mistakes_in_source_and_out(source: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").touch()
    for settings, message in [
        ({"source": tmp_path / "no"}, "does not exist; it should be a folder with .mp4"),
        ({"source": tmp_path / "bare"}, "contains nothing to ingest"),
        ({"source": source / "empty.mp4"}, "is a file"),
        ({"out": tmp_path / "mine"}, "is not a folder of frame shards"),
        ({"source": tmp_path / "bad"}, "No usable frame in any of 1 files .*zero bytes"),
    ]:
        with pytest.raises(UserError, match=message):
            ingest(config(**{"source": source, "out": tmp_path / "o"} | settings))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    for setting in ({"jpeg_quality": 0}, {"frames_per_second": 0.0}, {"short_side": 3}, {"validation_share": 1.0}):
        with pytest.raises(UserError, match=next(iter(setting))):
            IngestConfig(**setting)


def test_long_videos_are_sampled_over_their_whole_length(tmp_path: Path, make_video) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=5)
    ingest(config(tmp_path / "in", tmp_path / "out", max_frames_per_video=5))
    shards = FrameShards.open(tmp_path / "out")
    assert [shards.id(i) for i in range(len(shards))] == [f"a.mp4@{i}.000" for i in range(5)]


def test_more_images_than_are_wanted_are_taken_from_all_over_their_folder_or_tar(tmp_path: Path) -> None:
    photos = tmp_path / "in" / "photos"
    photos.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(10):
        image = noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(photos / f"{number}.png"), image)
    with tarfile.open(tmp_path / "in" / "films.tar", "w") as tar:
        for path in sorted(photos.iterdir()):
            tar.add(path, path.name)
    settings = {"max_frames_per_video": 4, "validation_share": 0.0}
    report = ingest(config(tmp_path / "in", tmp_path / "out", **settings))
    shards = FrameShards.open(tmp_path / "out")
    found = [shards.id(i) for i in range(len(shards))]
    assert found == [f"{of}@{number}.000" for of in ("films.tar", "photos/") for number in (0, 3, 5, 8)]
    assert report.dropped["over_limit"] == 12


def test_a_tar_of_millions_of_frames_takes_no_memory_a_frame(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "films.tar", "w") as tar:
        for number in range(50):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    with tarfile.open(tmp_path / "films.tar", "r|*") as tar:
        names = [(member.name, len(vars(tar)["members"])) for member in _images_in(tar)]
    assert [name for name, _ in names] == [f"{number}.jpg" for number in range(50)]
    assert max(known for _, known in names) <= 1


def test_a_worker_keeps_nothing_of_the_files_it_did(tmp_path: Path, make_video) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=1)
    (footage,) = find_footage(str(tmp_path / "in"))
    extraction = config(tmp_path / "in", tmp_path / "out").extraction()
    gc.disable()  # as good as: decoding allocates too little for Python to look for cycles
    try:
        assert extract_frames(ExtractJob(footage, extraction, tmp_path / "target"), lambda amount: None) == 0.75
        assert not [thing for thing in gc.get_objects() if isinstance(thing, VideoFrame)]
    finally:
        gc.enable()


def test_links_that_lead_back_up_end(tmp_path: Path, make_video) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=0.5)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    assert [footage.id for footage in find_footage(str(tmp_path / "in"))] == ["a.mp4", "gone.mp4"]


def test_a_folder_keeps_its_name_whatever_links_to_it(tmp_path: Path, make_video) -> None:
    source = tmp_path / "in"
    for name in ("p03/clip.mp4", "../elsewhere/far.mp4"):
        make_video(source / name, seconds=0.5)
    (source / "a_favourites").symlink_to(source / "p03")
    (source / "b").mkdir()
    (source / "b" / "disk").symlink_to(tmp_path / "elsewhere")
    assert [footage.id for footage in find_footage(str(source))] == ["b/disk/far.mp4", "p03/clip.mp4"]


def test_frames_of_a_disk_that_is_not_mounted_are_not_given_up(tmp_path: Path, make_video) -> None:
    source, disk = tmp_path / "in", tmp_path / "disk"
    for path in (source / "a.mp4", disk / "far.mp4"):
        make_video(path, seconds=1)
    (source / "p03").symlink_to(disk)
    ingest(config(source, tmp_path / "out"))
    disk.rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"1 of the 2 pieces of footage .* are gone .*: p03/far.mp4"):
        ingest(config(source, tmp_path / "out"))
    fresh = ingest(config(source, tmp_path / "fresh"))
    assert fresh.failed == 1
    assert read_failures(str(tmp_path / "fresh")) == [{"id": "p03", "reason": "dangling link"}]


def test_a_link_to_nothing_is_no_footage_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"are gone from in: a\.mp4"):
        _check_no_footage_missing(
            {"videos": [{"id": "a.mp4", "frames": 3}]}, find_footage(str(tmp_path)), "in", tmp_path / "out"
        )


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, make_video, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "in" / "p01" / "a.mp4", seconds=0.5)
    scandir = os.scandir

    def flaky(path: str) -> Any:
        if str(path).endswith("p01"):
            raise OSError(errno.EIO, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", flaky)
    with pytest.raises(UserError, match=r"The folder .*p01 in the source cannot be read \(Input/output error\)"):
        find_footage(str(tmp_path / "in"))


def test_a_file_with_links_to_it_is_taken_once(tmp_path: Path, make_video) -> None:
    source = tmp_path / "in"
    for name in ("b/clip.mp4", ".annex/hidden.mp4", "../elsewhere/far.mp4"):
        make_video(source / name, seconds=0.5)
    cv2.imwrite(str(source / "b" / "photo.png"), np.zeros((20, 20, 3), np.uint8))
    (source / "a").mkdir()
    links = {
        "a/again.mp4": source / "b" / "clip.mp4",  # met before the file itself
        "a/photo.png": source / "b" / "photo.png",
        "hidden1.mp4": source / ".annex" / "hidden.mp4",  # as git-annex lays files down
        "hidden2.mp4": source / ".annex" / "hidden.mp4",
        "near.mp4": tmp_path / "elsewhere" / "far.mp4",
        "z.mp4": source / "a" / "again.mp4",
        "hub.mp4": source / "blobs" / "abc123",  # as a hub's cache does
        "a.latest": source / "z.mp4",
    }
    make_video(source / "blobs" / "abc123.mp4", seconds=0.5).rename(source / "blobs" / "abc123")
    for name, target in links.items():
        (source / name).symlink_to(target)
    assert [footage.id for footage in find_footage(str(source))] == [
        "b/",
        "b/clip.mp4",
        "hidden1.mp4",
        "hub.mp4",
        "near.mp4",
    ]


def test_copies_are_counted_and_dangling_links_said_to_be_such(tmp_path: Path, make_video) -> None:
    source = tmp_path / "in"
    first = make_video(source / "a.mp4", seconds=0.5)
    make_video(source / "other.mp4", seconds=0.5, seed=1)
    for name in ("b.mp4", "c.mp4"):
        shutil.copyfile(first, source / name)
    (source / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (source / "photos").mkdir()
    cv2.imwrite(str(source / "photos" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    (source / "photos" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    settings = config(source, tmp_path / "out")
    report = ingest(settings)
    assert (report.copies, report.failed, report.dropped["unreadable_images"]) == (2, 1, 1)
    assert ingest(settings).copies == 2
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["failed_by_reason"] == {"dangling link": 1}
    assert read_failures(str(tmp_path / "out")) == [
        {"id": "gone.mp4", "reason": "dangling link"},
        {"id": "photos/gone.png", "reason": "gone.png: dangling link"},
    ]


def test_shards_inside_of_their_source_are_not_taken_for_footage(tmp_path: Path, make_video) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=1)
    for name in ("IMG_1.HEIC", "IMG_2.heic", "notes", ".hidden.heic"):
        (tmp_path / "in" / name).write_text("no footage")
    inside = config(tmp_path / "in", tmp_path / "in" / "frames")
    first = ingest(inside)
    again = ingest(inside)
    assert (again.changed, again.footage, again.frames) == (False, 1, first.frames)
    assert first.others == again.others == {".heic": 2, "notes": 1}
    # Under another name they are a source like any other.
    other = ingest(config(tmp_path / "in", tmp_path / "out"))
    assert other.footage > 1


def test_equal_files_go_to_the_same_split(tmp_path: Path, make_video) -> None:
    """Also when the copy comes later, to shards of a time when that was not seen to."""
    names = [f"{number}.mp4" for number in range(8)]
    by_name = assign_splits(names, 0.5)
    first = next(name for name in names if by_name[name] == "train")
    copies = [name for name in names if by_name[name] == "validation"]
    shown = make_video(tmp_path / "in" / first, seconds=1)
    make_video(tmp_path / "in" / "other.mp4", seconds=1, seed=1)
    settings = config(tmp_path / "in", tmp_path / "out", validation_share=0.5)
    ingest(settings)
    for name in copies:
        shutil.copyfile(shown, shown.with_name(name))
    ingest(settings)
    videos = json.loads((tmp_path / "out" / "manifest.json").read_text())["videos"]
    assert len({video["split"] for video in videos if video["id"] in (first, *copies)}) == 1
    assert {video["split"] for video in videos} == {"train", "validation"}


def test_what_shows_the_same_goes_by_its_first_name() -> None:
    pairs = [("c", "x"), ("b", "y"), ("b", "x"), ("a", "z"), ("d", "z"), ("e", "y"), ("f", "w")]
    assert group_identical_content(pairs) == {"a": "a", "b": "b", "c": "b", "d": "a", "e": "b", "f": "f"}


def test_split_law() -> None:
    ids = [f"video {i}" for i in range(2000)]
    splits = assign_splits(ids, 0.1)
    assert 150 < sum(split == "validation" for split in splits.values()) < 250
    assert all(splits[identity] == split for identity, split in assign_splits(ids[:700], 0.1).items())
    for first in range(50):
        assert set(assign_splits(ids[first : first + 2], 0.1).values()) == {"train", "validation"}
    assert set(assign_splits(ids[:1], 0.9).values()) == {"train"}
    assert set(assign_splits(ids, 0.0).values()) == {"train"}
