"""Every kind of source: tars of images, LeRobot data sets, Zarr demonstrations; and the privacy hook."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import shutil
import tarfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from demo_data import SPEC
from ingest_failures import read_failures
from PIL import Image

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.footage.search import find_footage
from pixio_robot.data.images.codec import CorruptImage, decode_photo, encode_jpeg
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.ingest.extract import ExtractJob, extract_frames
from pixio_robot.data.ingest.pipeline import IngestConfig, IngestReport, ingest
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError
from pixio_robot.types import CameraSpec, Episode


def take_in(source: Path, out: Path, **settings) -> tuple[IngestReport, dict]:
    config = IngestConfig(source=str(source), out=str(out), **{"workers": 1, "short_side": 0} | settings)
    report = ingest(config)
    return report, json.loads((out / "manifest.json").read_text())


def frames_of(out: Path, **settings) -> dict[str, np.ndarray]:
    """Every frame of both splits by its id."""
    found = {}
    for split, frames in json.loads((out / "manifest.json").read_text())["splits"].items():
        if frames["frames"]:
            shards = FrameShards.open(out, split)
            found |= {shards.id(i): shards.image(i) for i in range(len(shards))}
            shards.close()
    return found


def colours(count: int) -> list[np.ndarray]:
    return [np.full((40, 60, 3), (20 * number, 255 - 20 * number, 90), np.uint8) for number in range(count)]


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_pipes_and_devices_are_skipped(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, image in enumerate(colours(3)):
        (source / f"{number}.jpg").write_bytes(encode_jpeg(image, 95))
    os.mkfifo(source / "m.jpg")
    os.mkfifo(source / "m.mp4")
    (source / "n.jpg").symlink_to("/dev/zero")
    report, _ = take_in(source, tmp_path / "out")
    assert sum(report.frames.values()) == 3
    assert report.others == {".jpg (no regular file)": 2, ".mp4 (no regular file)": 1}


def test_tars_of_images(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    members = {f"{number:04d}.jpg": encode_jpeg(image, 95) for number, image in enumerate(colours(4))}
    write_tar(source / "a.tar", members | {"0000.json": b"{}", "bad.png": b"not a picture", "._0.jpg": b"macOS"})
    write_tar(source / "b.tar.gz", members)
    whole = (source / "a.tar").read_bytes()
    (source / "cut.tar").write_bytes(whole[: whole.rindex(b"bad.png")])  # between two members
    (source / "torn.tgz").write_bytes(gzip.compress(whole)[:300])
    (source / "empty.tar").touch()
    report, manifest = take_in(source, tmp_path / "out")
    assert report.dropped["unreadable_images"] == 1
    assert {video["id"]: video["frames"] for video in manifest["videos"]} == {
        "a.tar": 4,
        "b.tar.gz": 4,
        "cut.tar": 0,
        "empty.tar": 0,
        "torn.tgz": 0,
    }
    assert manifest["counts"]["failed_by_reason"] == {"truncated": 2, "zero bytes": 1}
    frames = frames_of(tmp_path / "out")
    assert all(np.abs(frames[f"a.tar@{i}.000"].astype(int) - image).max() < 6 for i, image in enumerate(colours(4)))
    # Our own shards are such tars too.
    again, _ = take_in(tmp_path / "out", tmp_path / "again", validation_share=0.0)
    assert again.frames["train"] == 8


def test_webdataset_reads_our_shards(tmp_path: Path) -> None:
    import webdataset

    source = tmp_path / "in"
    source.mkdir()
    for number, image in enumerate(colours(5)):
        cv2.imwrite(str(source / f"{number}.png"), image)
    take_in(source, tmp_path / "out", validation_share=0.0)
    samples = list(webdataset.WebDataset(str(tmp_path / "out" / "train-000000.tar"), shardshuffle=False).decode("rgb8"))
    ours = frames_of(tmp_path / "out")
    assert len(samples) == 5
    for sample, image in zip(samples, ours.values(), strict=True):
        assert np.abs(sample["jpg"].astype(int) - image).max() <= 3  # PIL's decoder and ours


def make_demonstrations(path: Path, episodes: int = 3) -> dict[str, np.ndarray]:
    """Two cameras at 20 Hz; returns the frames by the id that ingest gives them."""
    spec = dataclasses.replace(
        SPEC,
        control_hz=20.0,
        cameras={"front": CameraSpec(height=32, width=48), "hand": CameraSpec(height=32, width=32)},
        state_names=("x [m]",),
        action_names=("x [m]",),
    )
    store, random, frames = DemoStore.create(path, spec), np.random.default_rng(0), {}
    for number in range(episodes):
        n = 20 + 10 * number
        images = {
            name: np.stack(
                [
                    cv2.resize(random.integers(0, 255, (3, 4, 3), np.uint8), (camera.width, camera.height))
                    for _ in range(n)
                ]
            )
            for name, camera in spec.cameras.items()
        }
        values = np.zeros((n, 1), np.float32)
        store.append(
            Episode(images=images, state=values, actions=values, rewards=values[:, 0], success=True, seed=number)
        )
        for name, seen in images.items():
            frames |= {f"demos/episode_{number:06d}/{name}@{i / 20:.3f}": seen[i] for i in range(0, n, 5)}
    return frames


def test_demonstrations(tmp_path: Path) -> None:
    expected = make_demonstrations(tmp_path / "in" / "demos")
    (tmp_path / "in" / "other.zarr").mkdir()
    (tmp_path / "in" / "other.zarr" / ".zgroup").write_text("{}")
    report, manifest = take_in(tmp_path / "in", tmp_path / "out", jpeg_quality=98, validation_share=0.4)
    frames = frames_of(tmp_path / "out")
    assert frames.keys() == expected.keys()
    assert all(np.abs(frames[name].astype(int) - expected[name]).mean() < 8 for name in frames)
    assert report.hours == pytest.approx(2 * (0.75 + 1.25 + 1.75) / 3600)
    assert [line["id"] for line in read_failures(str(tmp_path / "out"))] == ["other.zarr/"]
    # The two cameras of an episode never part.
    splits: dict[str, set[str]] = {}
    for video in manifest["videos"]:
        if video["frames"]:
            splits.setdefault(video["group"], set()).add(video["split"])
    assert len(splits) == 3
    assert all(len(found) == 1 for found in splits.values())
    # An episode more: the others are taken over.
    before = {video["id"]: video["key"] for video in manifest["videos"]}
    store = DemoStore.open(tmp_path / "in" / "demos")
    store.append(store.episode(0))
    report, manifest = take_in(tmp_path / "in", tmp_path / "out", jpeg_quality=98, validation_share=0.4)
    assert report.changed
    assert before.items() <= {video["id"]: video["key"] for video in manifest["videos"]}.items()


@pytest.fixture(scope="module")
def lerobot_root(tmp_path_factory) -> Path:
    """Three episodes of a quarter, half and a whole second with two cameras, written by lerobot itself."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = tmp_path_factory.mktemp("lerobot") / "in" / "set"
    image = {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.images.front": image,
        "observation.images.hand": image,
        "action": {"dtype": "float32", "shape": (1,), "names": ["x"]},
    }
    dataset = LeRobotDataset.create("any/set", 20, features, root=root, robot_type="arm", use_videos=True)
    for episode, length in enumerate((5, 10, 20)):
        for step in range(length):
            level = 40 * episode + 4 * step
            dataset.add_frame(
                {
                    "observation.images.front": np.full((64, 96, 3), level, np.uint8),
                    "observation.images.hand": np.full((64, 96, 3), 255 - level, np.uint8),
                    "action": np.zeros(1, np.float32),
                    "task": "lift",
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return root.parent


@pytest.mark.slow
def test_lerobot_data_sets_by_episode(lerobot_root: Path, tmp_path: Path) -> None:
    report, manifest = take_in(lerobot_root, tmp_path / "out", frames_per_second=20.0, validation_share=0.4)
    videos = {video["id"]: video for video in manifest["videos"]}
    assert {name: video["frames"] for name, video in videos.items()} == {
        f"set/episode_{episode:06d}/observation.images.{camera}": frames
        for episode, frames in enumerate((5, 10, 20))
        for camera in ("front", "hand")
    }
    assert len({video["sha256"] for video in videos.values()}) == 2  # a file a camera
    assert sum(report.frames.values()) == 70
    for name, image in frames_of(tmp_path / "out").items():
        place, _, time_s = name.partition("@")
        level = 40 * videos[place]["id"].count("000001") + 80 * place.count("000002") + 4 * round(float(time_s) * 20)
        assert abs(image.mean() - (level if place.endswith("front") else 255 - level)) < 5
    splits = {(video["group"], video["split"]) for video in videos.values()}
    assert len(splits) == 3


def test_lerobot_v2_and_damaged_ones(tmp_path: Path, make_video) -> None:
    root = tmp_path / "in" / "old"
    for episode in range(2):
        make_video(root / f"videos/chunk-000/cam/episode_{episode:06d}.mp4", seconds=1, seed=episode)
    info = {
        "codebase_version": "v2.1",
        "chunks_size": 1000,
        "total_episodes": 2,
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "cam": {"dtype": "video"},
            "depth": {"dtype": "video", "info": {"video.is_depth_map": True}},
            "action": {"dtype": "float32"},
        },
    }
    for name, text in [
        ("old", json.dumps(info)),
        ("bare", json.dumps(info | {"features": {"action": {"dtype": "float32"}}})),
        ("broken", "{"),
        ("above", json.dumps(info | {"video_path": "../{video_key}/{episode_index}.mp4"})),
        ("empty", json.dumps(info | {"video_path": "{video_key}/{chunk_index}/{file_index}.mp4"})),
    ]:
        (tmp_path / "in" / name / "meta").mkdir(parents=True)
        (tmp_path / "in" / name / "meta" / "info.json").write_text(text)
    report, _ = take_in(tmp_path / "in", tmp_path / "out")
    assert sum(report.frames.values()) == 8
    reasons = {line["id"]: line["reason"] for line in read_failures(str(tmp_path / "out"))}
    assert reasons["bare/"].startswith("a LeRobot data set without videos (use `data import`")
    assert reasons["empty/"] == "a LeRobot data set without episodes"
    assert "refers to ../cam/0.mp4" in reasons["above/"]
    assert reasons["broken/"].startswith("a LeRobot data set that cannot be read")


def test_image_bombs_are_refused_before_they_are_decoded() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    size = (10_000).to_bytes(4, "big")
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + size + b"\x08\x02\0\0\0") + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(CorruptImage, match="absurd dimensions"):
        decode_photo(data, "bomb.png")


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_depth_maps_are_not_pictures(tmp_path: Path) -> None:
    millimetres = np.full((40, 60), 1500, np.uint16)
    for folder in ("color", "depth"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    for number, image in enumerate(colours(3)):
        cv2.imwrite(str(tmp_path / "in/color" / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / "in/depth" / f"{number}.png"), millimetres + number)
    report, _ = take_in(tmp_path / "in", tmp_path / "out")
    assert sum(report.frames.values()) == 3
    assert report.failed == 1
    failures = {line["id"]: line["reason"] for line in read_failures(tmp_path / "out")}
    assert failures["depth/0.png"] == "0.png: a depth map or other measurement, not a picture (16 bits, one channel)"
    assert len(failures) == 4  # and the folder, which has no image
    with pytest.raises(CorruptImage, match=r"depth map .*32-bit floating point"):
        decode_photo(encoded(np.ones((8, 8), np.float32), ".tif"), "metres.tif")
    # Sixteen bits a colour are a picture, and so is one channel of eight.
    assert (decode_photo(encoded(np.full((8, 8, 3), 200 << 8, np.uint16)), "deep.png") == 200).all()
    assert (decode_photo(encoded(np.full((8, 8), 200, np.uint8)), "grey.png") == 200).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_what_transparent_pixels_hide_is_not_shown(suffix: str) -> None:
    image = np.full((16, 16, 4), (10, 20, 250, 255), np.uint8)  # BGRA
    image[:8, :, 3] = 0
    shown = decode_photo(encoded(image, suffix), f"a{suffix}").astype(int)
    assert shown.shape == (16, 16, 3)
    assert np.abs(shown[:7] - 128).max() <= 2
    assert np.abs(shown[9:] - (250, 20, 10)).max() <= 2
    image[..., 3] = 255
    assert (decode_photo(encoded(image), "opaque.png") == (250, 20, 10)).all()


def test_transparency_of_palettes_keys_and_parts() -> None:
    def png(image: Image.Image, **options) -> bytes:
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        return file.getvalue()

    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert (decode_photo(png(palette, transparency=1), "palette.png") == 128).all()
    assert (decode_photo(png(palette), "palette.png") == (200, 0, 0)).all()
    assert (decode_photo(png(Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9)), "key.png") == 128).all()
    half = decode_photo(png(Image.new("LA", (4, 4), (228, 128))), "half.png")
    assert np.abs(half.astype(int) - 178).max() <= 1
    # Turned as EXIF says.
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_photo(png(Image.new("RGBA", (6, 4)), exif=exif), "turned.png").shape == (6, 4, 3)
    whole = png(Image.effect_noise((64, 64), 50).convert("RGBA"))
    with pytest.raises(CorruptImage, match=r"cut\.png"):
        decode_photo(whole[: len(whole) // 2], "cut.png")


HOOK = """
import numpy as np

def hide_left(image):
    hidden = image.copy()
    hidden[:, : image.shape[1] // 2] = 0
    return hidden, 2

def fail_on_second(image):
    if image[0, 0, 0] > 200:
        raise ValueError("no model")
    return image, 0

def wrong(image):
    return image[:10], 1

def blank(image):
    return np.zeros_like(image), 1
"""


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hooks_of_this_test.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    import hooks_of_this_test  # type: ignore[import-not-found]

    yield hooks_of_this_test
    monkeypatch.delitem(__import__("sys").modules, "hooks_of_this_test")


def test_privacy_hooks_see_every_frame_and_are_counted(hooks, tmp_path: Path, make_video) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=2)
    make_video(tmp_path / "in" / "b.mp4", seconds=1, seed=4)
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"), workers=1, short_side=0)
    report = ingest(config, privacy=hooks.hide_left)
    assert report.hidden_regions == 2 * 12
    frames = frames_of(tmp_path / "out")
    assert len(frames) == 12
    for image in frames.values():
        assert image[:, :72].max() < 12
        assert image[:, 90:].max() > 100
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["privacy"] == {"hidden_regions": 24, "frames_hidden_in": 12}
    assert manifest["settings"]["privacy"] == "hooks_of_this_test:hide_left"
    # The command line's spelling is the same setting; a hook whose code changed is noticed.
    config.privacy = "hooks_of_this_test:hide_left"
    assert not ingest(config).changed
    (tmp_path / "hooks_of_this_test.py").write_text(HOOK + "\n")
    assert ingest(config).changed


def test_what_is_recorded_of_a_frame_tells_nothing_of_what_is_hidden(hooks, tmp_path: Path, make_video) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=1)
    (footage,) = find_footage(str(tmp_path / "in"))
    config = IngestConfig(source="in", out="out", privacy="hooks_of_this_test:blank")
    extract_frames(ExtractJob(footage, config.extraction(), tmp_path / "target"), lambda amount: None)
    hashes = np.load(tmp_path / "target" / "frames.npy")["phash"]
    assert len(hashes) == 4
    assert len(set(hashes.tolist())) == 1


def test_a_failing_privacy_hook_lets_nothing_through(hooks, tmp_path: Path, make_video) -> None:
    make_video(tmp_path / "in" / "a.mp4", seconds=1)
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"), workers=1)
    for name in ("fail_on_second", "wrong"):
        config.privacy = f"hooks_of_this_test:{name}"
        with pytest.raises(UserError, match=r"No usable frame in any of 1 files .*privacy hook failed"):
            ingest(config)
    assert not (tmp_path / "out").exists()
    for name, message in [
        ("hooks_of_this_test", "should read module:function"),
        ("hooks_of_this_test:none", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
    ]:
        config.privacy = name
        with pytest.raises(UserError, match=message):
            ingest(config)
    with pytest.raises(UserError, match="top-level function of an importable module"):
        ingest(config, privacy=lambda image: (image, 0))


@pytest.mark.slow
def test_a_cluster_makes_the_same_bytes(ray_cluster, tmp_path: Path, make_video) -> None:
    assert len(ray_cluster) == 2
    for number in range(5):
        make_video(tmp_path / "in" / f"{number}.mp4", seconds=1, seed=number)
    (tmp_path / "in" / "bad.mp4").write_text("no film")
    take_in(tmp_path / "in", tmp_path / "here")
    take_in(tmp_path / "in", tmp_path / "there", executor=Executor.RAY, workers=3)
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "there").iterdir())
    assert all((tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes() for name in names)


def test_sources_are_found_at_any_depth_with_ids_below_the_source(tmp_path: Path, make_video) -> None:
    make_demonstrations(tmp_path / "in" / "deep" / "demos", episodes=1)
    make_video(tmp_path / "in" / "deep" / "a.mkv", seconds=0.2)
    found = {footage.id: footage.kind.value for footage in find_footage(str(tmp_path / "in"))}
    assert found == {
        "deep/a.mkv": "video",
        "deep/demos/episode_000000/front": "demonstration",
        "deep/demos/episode_000000/hand": "demonstration",
    }
    found = find_footage(str(tmp_path / "in" / "deep" / "demos"))
    assert [footage.id for footage in found] == ["episode_000000/front", "episode_000000/hand"]
    shutil.rmtree(tmp_path / "in" / "deep")
    with pytest.raises(UserError, match="contains nothing to ingest"):
        find_footage(str(tmp_path / "in"))
