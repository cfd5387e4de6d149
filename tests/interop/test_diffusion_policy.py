"""Replay buffers of diffusion_policy: both ways, element by element, read from and by zarr itself."""

import dataclasses
import functools
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import zarr
from demo_data import SPEC, import_store, make_episode, make_store, same
from numcodecs import Blosc, Zlib

from pixio_robot.data.actions.named_columns import COMPONENTS
from pixio_robot.data.demos.editing.convert_actions import convert_actions
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.interop import diffusion_policy
from pixio_robot.interop.demo_formats import detect_format
from pixio_robot.interop.diffusion_policy import (
    ExportConfig,
    ImportConfig,
    container,
    export_demos,
    import_demos,
    recognises,
)
from pixio_robot.interop.diffusion_policy.container import create_container
from pixio_robot.interop.diffusion_policy.replay_buffer import ReplayBuffer

ENDS = [4, 6, 11]
STEPS = ENDS[-1]
LZ4 = Blosc(cname="lz4", clevel=5, shuffle=Blosc.NOSHUFFLE)


def arrays() -> dict[str, np.ndarray]:
    """As Push-T has them, on a smaller scale."""
    rng = np.random.default_rng(0)
    return {
        "img": rng.integers(0, 256, (STEPS, 6, 5, 3)).astype(np.float32),
        "action": rng.normal(size=(STEPS, 2)).astype(np.float32),
        "state": rng.normal(size=(STEPS, 5)).astype(np.float32),
        "keypoint": rng.normal(size=(STEPS, 3, 2)).astype(np.float32),
        "n_contacts": rng.normal(size=(STEPS, 1)).astype(np.float32),
    }


def write_buffer(store: Any, data: dict[str, np.ndarray], ends: Any = ENDS, chunk: int = 4, **options: Any) -> Any:
    """By zarr itself, with chunks that do not end where episodes do."""
    root: Any = zarr.open_group(store, mode="w", zarr_format=2)
    options = {"compressors": LZ4} | options
    for key, values in data.items():
        chunks = (1, *values.shape[1:]) if values.ndim == 4 else (chunk, *values.shape[1:])
        array = root.require_group("data").create_array(
            key, shape=values.shape, dtype=values.dtype, chunks=chunks, config={"write_empty_chunks": True}, **options
        )
        array[...] = values
    ends = np.array(ends, np.int64)
    root.require_group("meta").create_array("episode_ends", shape=ends.shape, dtype=ends.dtype, chunks=(2,))[...] = ends
    return store


imported = functools.partial(import_store, diffusion_policy, control_hz=10.0)


def pushed(tmp_path: Path, **options: Any) -> Path:
    return Path(write_buffer(tmp_path / "pusht.zarr", arrays(), **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compressors": None},
        {"compressors": Zlib(level=1)},
        {"compressors": Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE), "order": "F"},
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    ],
)
def test_every_number_arrives(tmp_path: Path, options: dict[str, Any]) -> None:
    source, data = pushed(tmp_path, **options), arrays()
    assert detect_format(source).NAME == "diffusion_policy"
    outcome = import_demos(source, tmp_path / "s", ImportConfig(control_hz=10.0))
    store = DemoStore.open(tmp_path / "s")
    assert (outcome.episodes, outcome.frames) == (3, STEPS)
    assert store.lengths.tolist() == [4, 2, 5]
    for number, (start, stop) in enumerate([(0, 4), (4, 6), (6, 11)]):
        episode = store.episode(number)
        np.testing.assert_array_equal(episode.images["img"], data["img"][start:stop].astype(np.uint8))
        np.testing.assert_array_equal(episode.state, data["state"][start:stop])
        np.testing.assert_array_equal(episode.actions, data["action"][start:stop])
        assert (episode.success, episode.seed) == (True, number)
    assert (store.spec.task, store.spec.control_hz) == ("pusht", 10.0)
    assert outcome.notes[0] == "left out of data: keypoint, n_contacts"
    assert not any("rounded" in note for note in outcome.notes)
    assert any("assuming success=true for all" in note for note in outcome.notes)


def test_keys_and_names_can_be_chosen(tmp_path: Path) -> None:
    source, data = pushed(tmp_path), arrays()
    names = ["a", "b", "c", "d", "e", "f", "contacts"]
    chosen = {"state": ["keypoint", "n_contacts"], "actions": ["action", "state"], "rewards": "n_contacts"}
    store = imported(source, tmp_path / "s", **chosen, state_names=names, success=False, task="Push-T")
    state = np.concatenate([data["keypoint"].reshape(STEPS, 6), data["n_contacts"]], 1)
    np.testing.assert_array_equal(np.concatenate([store.state(i) for i in range(3)]), state)
    np.testing.assert_array_equal(store.actions(2)[:, 2:], data["state"][6:])
    np.testing.assert_array_equal(store.rewards(0), data["n_contacts"][:4, 0])
    assert store.spec.state_names == tuple(names)
    assert store.spec.action_names == ("action.0", "action.1", *(f"state.{i}" for i in range(5)))
    assert (store.spec.task, store.successes) == ("Push-T", [False] * 3)


def test_single_columns_can_be_chosen(tmp_path: Path) -> None:
    """As of Push-T, whose state also says where the block is."""
    source, data = pushed(tmp_path), arrays()
    store = imported(source, tmp_path / "s", state=["state.0", "state.1", "n_contacts"])
    assert store.spec.state_names == ("state.0", "state.1", "n_contacts.0")
    np.testing.assert_array_equal(store.state(0), np.concatenate([data["state"], data["n_contacts"]], 1)[:4, [0, 1, 5]])
    with pytest.raises(UserError, match=r"Unknown column of data/state .*'state\.5'.*state\.4"):
        imported(source, tmp_path / "t", state=["state.5"])
    with pytest.raises(UserError, match="Unknown key of data"):
        imported(source, tmp_path / "t", state=["stat.5"])


def test_umis_parts_of_the_robot_are_its_state(tmp_path: Path) -> None:
    pos, turn = np.ones((STEPS, 3), np.float32), np.zeros((STEPS, 3), np.float32)
    data = {"robot0_eef_pos": pos, "robot0_eef_rot_axis_angle": turn, "robot0_gripper_width": pos[:, :1] / 10}
    data["camera0_rgb"] = arrays()["img"].astype(np.uint8)
    keys = [key for key in data if key.startswith("robot0")]
    # Where the episode ends is known to nobody who acts in it.
    poses = {f"robot0_demo_{when}_pose": np.ones((STEPS, 6)) for when in ("start", "end")}
    source = Path(write_buffer(tmp_path / "umi.zarr", data | poses))
    with pytest.raises(UserError, match="has no data/action: set actions="):
        imported(source, tmp_path / "s")
    store = imported(source, tmp_path / "s", actions=keys)
    assert store.spec.state_names[:4] == (*(f"robot0_eef_pos.{axis} [m]" for axis in "xyz"), store.spec.state_names[3])
    assert store.spec.state_names[-1] == "robot0_gripper_width.0 [m]"
    # And out again, under the same keys.
    export_demos(tmp_path / "s", tmp_path / "back.zarr", ExportConfig(state_keys=True))
    back: Any = zarr.open_group(tmp_path / "back.zarr", mode="r")
    for key, values in data.items():
        np.testing.assert_array_equal(back["data"][key][:], values)


@pytest.mark.parametrize("key", sorted(COMPONENTS))
def test_actions_know_every_name_that_an_import_makes(tmp_path: Path, key: str) -> None:
    """A pose becomes a delta; what is none is said to be kept, and neither is passed over in silence."""
    width = len(COMPONENTS[key][0]) or 2
    values = np.random.default_rng(0).normal(size=(STEPS, width)).astype(np.float32)
    data = {"robot0_eef_pos": np.ones((STEPS, 3), np.float32), f"robot0_{key}": values}
    source = Path(write_buffer(tmp_path / "umi.zarr", data))
    store = imported(source, tmp_path / "s", actions=list(data), state=list(data))
    edit = convert_actions(store.spec, "delta")
    is_pose = key in ("eef_pos", "eef_quat", "eef_quat_site", "eef_quat_wxyz", "eef_rot_axis_angle")
    assert (f"robot0_{key.replace('eef_', 'eef_delta_')}" in edit.notes[0]) == is_pose
    assert any(f"robot0_{key}" in note for note in edit.notes[1:]) != is_pose


@pytest.mark.parametrize("out", ["b.zarr", "b.zarr.zip"])
@pytest.mark.parametrize("state_keys", [False, True])
def test_a_store_survives_the_round_trip_and_zarr_reads_it(tmp_path: Path, out: str, state_keys: bool) -> None:
    make_store(tmp_path / "s")
    outcome = export_demos(tmp_path / "s", tmp_path / out, ExportConfig(state_keys=state_keys))
    assert recognises(tmp_path / out)
    assert outcome.episodes == 4
    kept = imported(tmp_path / out, tmp_path / "t", control_hz=0.0)
    assert kept.spec == SPEC
    assert all(same(kept.episode(seed), make_episode(seed)) for seed in range(4))

    store: Any = zarr.storage.ZipStore(tmp_path / out, mode="r") if out.endswith(".zip") else tmp_path / out
    root: Any = zarr.open_group(store, mode="r", zarr_format=2)
    episodes = [make_episode(seed) for seed in range(4)]
    np.testing.assert_array_equal(root["meta"]["episode_ends"][:], np.cumsum([len(one) for one in episodes]))
    for camera in SPEC.cameras:
        array = root["data"][camera]
        assert array.chunks == (1, *array.shape[1:])
        assert array.compressors[0].get_config()["cname"] == "lz4"
        np.testing.assert_array_equal(array[:], np.concatenate([one.images[camera] for one in episodes]))
    np.testing.assert_array_equal(root["data"]["action"][:], np.concatenate([one.actions for one in episodes]))
    state = np.concatenate([one.state for one in episodes])
    if state_keys:
        np.testing.assert_array_equal(root["data"]["y"][:, 0], state[:, 1])
    else:
        np.testing.assert_array_equal(root["data"]["state"][:], state)
    for key, array in root["data"].arrays():
        assert array.shape[0] == root["meta"]["episode_ends"][-1], key


def test_what_is_said_of_a_buffer_stands_above_what_it_says(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=1)
    export_demos(tmp_path / "s", tmp_path / "b.zarr", ExportConfig())
    said: dict[str, Any] = {"task": "unknown", "robot": "", "controller": "c", "control_hz": 3.0, "source": "unknown"}
    import_demos(tmp_path / "b.zarr", tmp_path / "t", ImportConfig(**said))
    assert DemoStore.open(tmp_path / "t").spec == dataclasses.replace(SPEC, **said)


def test_parts_that_a_state_mixes_come_back_in_its_order(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, state_names=("arm.x [m]", "gripper [m]", "arm.y [m]"))
    store = DemoStore.create(tmp_path / "s", spec)
    store.append(make_episode(0))
    export_demos(tmp_path / "s", tmp_path / "b.zarr", ExportConfig(state_keys=True))
    kept = imported(tmp_path / "b.zarr", tmp_path / "t", control_hz=0.0)
    assert kept.spec == spec
    assert same(kept.episode(0), make_episode(0))


@pytest.mark.parametrize("codec", ["jpeg2k", "jpegxl"])
def test_image_codecs_go_both_ways(tmp_path: Path, codec: str) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(1, 32, 32, 3).astype(np.uint8)
    spec = dataclasses.replace(SPEC, cameras={"front": dataclasses.replace(SPEC.cameras["front"], height=32, width=32)})
    store = DemoStore.create(tmp_path / "s", spec)
    store.append(dataclasses.replace(make_episode(0, 2), images={"front": np.repeat(smooth, 2, 0)}))
    outcome = export_demos(tmp_path / "s", tmp_path / "b.zarr.zip", ExportConfig(codec=codec))
    assert any(f"data/front: {codec} changes pixels by" in note for note in outcome.notes)
    kept = imported(tmp_path / "b.zarr.zip", tmp_path / "t")
    assert np.abs(kept.images(0, "front").astype(int) - smooth).max() <= 8
    with ReplayBuffer(tmp_path / "b.zarr.zip") as buffer:
        content = buffer._container.read("data/front/0.0.0.0")
    np.testing.assert_array_equal(getattr(imagecodecs, f"{codec}_decode")(content), kept.images(0, "front")[0])


def test_without_the_extra_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "s", episodes=1)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UserError, match=r"need an extra: pip install 'pixio-robot\[formats\]'"):
        export_demos(tmp_path / "s", tmp_path / "b.zarr", ExportConfig(codec="jpeg2k"))
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize(
    ("scale", "settings", "message"),
    [
        (1.0, {"white": 1.0}, "outside the range 0 to 1; set white=255"),
        (1 / 255, {}, "set white=1"),
        (1.01, {}, "outside the range 0 to 255"),
        (-1.0, {}, "outside the range 0 to 255"),
        (np.nan, {}, "pixel values from nan to nan"),
    ],
)
def test_float_images_must_be_what_they_are_said_to_be(
    tmp_path: Path, scale: float, settings: dict[str, Any], message: str
) -> None:
    data = arrays()
    data["img"] *= scale
    source = Path(write_buffer(tmp_path / "b.zarr", data))
    with pytest.raises(UserError, match=message):
        imported(source, tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()


def test_float_images_up_to_one_are_scaled(tmp_path: Path) -> None:
    data = arrays()
    source = Path(write_buffer(tmp_path / "b.zarr", data | {"img": data["img"] / 255}))
    store = imported(source, tmp_path / "s", white=1.0)
    np.testing.assert_array_equal(store.images(2, "img"), data["img"][6:].astype(np.uint8))
    half = data["img"].copy()
    half[0], half[1] = 7.4, 7.6
    outcome = import_demos(
        Path(write_buffer(tmp_path / "c.zarr", data | {"img": half})), tmp_path / "t", ImportConfig(control_hz=10.0)
    )
    assert "rounded to uint8: img" in outcome.notes
    assert np.unique(DemoStore.open(tmp_path / "t").images(0, "img")[:2]).tolist() == [7, 8]


def test_images_with_channels_first_are_turned(tmp_path: Path) -> None:
    """As RoboTwin's converters write them. Floats of that shape are taken for images only if they are chosen."""
    rng = np.random.default_rng(0)
    head, white = rng.integers(0, 256, (STEPS, 3, 6, 5), np.uint8), rng.integers(0, 2, (STEPS, 3, 4, 7))
    data = arrays() | {"img": head, "mat": white.astype(np.float32)}
    source = Path(write_buffer(tmp_path / "f.zarr", data))
    outcome = import_demos(source, tmp_path / "s", ImportConfig(control_hz=10.0))
    store = DemoStore.open(tmp_path / "s")
    assert {name: (camera.height, camera.width) for name, camera in store.spec.cameras.items()} == {"img": (6, 5)}
    np.testing.assert_array_equal(store.images(1, "img"), head[4:6].transpose(0, 2, 3, 1))
    assert "images stored as (n, 3, height, width), transposed: img" in outcome.notes
    chosen = imported(source, tmp_path / "t", cameras=["mat"], white=1)
    assert (chosen.spec.cameras["mat"].height, chosen.spec.cameras["mat"].width) == (4, 7)
    np.testing.assert_array_equal(chosen.images(0, "mat"), 255 * white[:4].transpose(0, 2, 3, 1))


def test_a_buffer_without_images_makes_a_store_without_cameras_and_says_so(tmp_path: Path) -> None:
    data = {key: values for key, values in arrays().items() if key != "img"}
    source = Path(write_buffer(tmp_path / "b.zarr", data))
    outcome = import_demos(source, tmp_path / "s", ImportConfig(control_hz=10.0))
    assert any("the store has no camera" in note for note in outcome.notes)
    assert not DemoStore.open(tmp_path / "s").spec.cameras
    export_demos(tmp_path / "s", tmp_path / "back.zarr", ExportConfig())
    assert import_demos(tmp_path / "back.zarr", tmp_path / "t", ImportConfig()).notes == []


def test_archives_with_a_folder_inside_are_opened(tmp_path: Path) -> None:
    pushed(tmp_path / "inner")
    packed = Path(shutil.make_archive(str(tmp_path / "b.zarr"), "zip", tmp_path / "inner"))
    assert detect_format(packed).NAME == "diffusion_policy"
    assert imported(packed, tmp_path / "s").lengths.tolist() == [4, 2, 5]


def test_a_file_that_unpacks_to_far_more_than_it_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_MAX_UNPACKED", 1000)
    pushed(tmp_path / "inner", compressors=None)
    honest = Path(shutil.make_archive(str(tmp_path / "honest.zarr"), "zip", tmp_path / "inner"))
    with zipfile.ZipFile(honest) as archive:
        assert max(entry.file_size for entry in archive.infolist()) < 1000
    bomb = tmp_path / "bomb.zarr.zip"
    with zipfile.ZipFile(honest) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(10**6) if name.endswith("episode_ends/0") else old.read(name))
    with pytest.raises(UserError, match=r"episode_ends/0 in .* unpacks from \d+ bytes to 1000000"):
        imported(bomb, tmp_path / "t")
    monkeypatch.setattr(container, "_MAX_UNPACKED", 10)
    assert imported(honest, tmp_path / "s").lengths.tolist() == [4, 2, 5]


def _remove(name: str) -> Callable[[Path], None]:
    return lambda source: (source / name).unlink()


def _garble(name: str) -> Callable[[Path], None]:
    return lambda source: (source / name).write_bytes(b"\x02garbage")


def _edit(name: str, **changed: Any) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        node = json.loads((source / name).read_text())
        (source / name).write_text(json.dumps(node | changed))

    return change


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (_remove("data/img/5.0.0.0"), {}, "data/img in .*: chunk 5.0.0.0 is missing"),
        (_garble("data/action/1.0"), {}, "data/action in .*: chunk 1.0 is damaged"),
        (_garble("data/action/.zarray"), {}, "data/action in .*: its .zarray is damaged"),
        (
            _edit("data/state/.zarray", shape=[10, 5]),
            {},
            "data/state in .* has 10 rows, but meta/episode_ends ends at 11",
        ),
        (
            _edit("meta/episode_ends/.zarray", shape=[10**13], chunks=[10**13]),
            {},
            "meta/episode_ends in .* do not fit into memory",
        ),
        (_edit("data/state/.zarray", chunks=[10**30, 5]), {}, "data/state in .* do not fit into memory"),
        (_edit("data/state/.zarray", dtype="|O"), {}, "not a numeric array"),
        (_edit("data/img/.zarray", compressor={"id": "imagecodecs_jpek2k"}), {}, "Did you mean 'imagecodecs_jpeg2k'"),
        (_edit("data/img/.zarray", compressor={"id": "lz9"}), {}, "numcodecs does not support"),
        (_edit("data/img/.zarray", compressor={"id": "pickle"}), {}, "can execute arbitrary code"),
        (_edit("data/img/.zarray", filters=[{"id": "pickle"}]), {}, "can execute arbitrary code"),
        (_edit("data/img/.zarray", dimension_separator="/../"), {}, "its .zarray is damaged"),
        (lambda source: shutil.rmtree(source / "data" / "state"), {}, "set state= to keys from"),
        (lambda source: shutil.rmtree(source / "meta"), {}, "There is no array meta/episode_ends"),
        (None, {"control_hz": 0.0}, "set control_hz="),
        (None, {"cameras": ["image"]}, "Unknown key of data in .* Valid choices: action, img"),
        (None, {"cameras": ["state"]}, r"data/state in .* has shape \(11, 5\), but images must be"),
        (None, {"rewards": "action"}, r"data/action in .* has shape \(11, 2\), but rewards must be one number"),
        (None, {"state_names": ["x"]}, "state_names= has 1 names, but state has 5 columns"),
        (None, {"white": 3.0}, "must be 1 or 255"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    tmp_path: Path, change: Callable[[Path], None] | None, settings: dict[str, Any], message: str
) -> None:
    source = pushed(tmp_path)
    if change is not None:
        change(source)
    with pytest.raises(UserError, match=message):
        imported(source, tmp_path / "s", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["pusht.zarr"]


def test_missing_chunks_can_be_taken_for_black(tmp_path: Path) -> None:
    source = pushed(tmp_path)
    _remove("data/img/5.0.0.0")(source)
    assert not imported(source, tmp_path / "s", fill_missing=True).images(1, "img")[1].any()


@pytest.mark.parametrize("ends", [[4, 4, 11], [4, 3, 11], []])
def test_episodes_must_have_steps(tmp_path: Path, ends: list[int]) -> None:
    source = pushed(tmp_path, ends=ends)
    with pytest.raises(UserError, match=r"must increase, but episode 1 has|has no episodes"):
        ReplayBuffer(source)


def test_stores_that_are_no_buffers(tmp_path: Path) -> None:
    write_buffer(tmp_path / "b.zarr", arrays())
    three: Any = zarr.open_group(tmp_path / "three.zarr", mode="w", zarr_format=3)
    three.require_group("meta").create_array("episode_ends", shape=(1,), dtype="int64")
    with pytest.raises(UserError, match="Zarr format 3"):
        ReplayBuffer(tmp_path / "three.zarr")
    (tmp_path / "text.zip").write_text("no")
    make_store(tmp_path / "s", episodes=1)
    assert not any(recognises(tmp_path / name) for name in ("text.zip", "s", "none.zarr"))
    with pytest.raises(UserError, match="cannot be opened as a zip archive"):
        ReplayBuffer(tmp_path / "text.zip")
    with pytest.raises(UserError, match="already exists"):
        export_demos(tmp_path / "s", tmp_path / "b.zarr", ExportConfig())
    with pytest.raises(UserError, match="Did you mean 'jpeg2k'"):
        export_demos(tmp_path / "s", tmp_path / "c.zarr", ExportConfig(codec="jpeg2"))


@pytest.mark.parametrize("key", ["data/../../victim/0", "/tmp/victim/0"])
def test_no_key_leads_out_of_the_folder_that_is_written(tmp_path: Path, key: str) -> None:
    with create_container(tmp_path / "out", zipped=False) as write:
        with pytest.raises(UserError, match="would be written outside"):
            write(key, b"")
        write("data/..img/0", b"fine")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "data", "..img", "0"]


RATE, FILM_RATE = 10, 30


def write_recording(
    folder: Path, ends: Any = ENDS, film_rate: int = FILM_RATE, cameras: tuple[int, ...] = (0, 2)
) -> Path:
    """As diffusion_policy's RealEnv leaves it: the films go on for a while after the last step. Their right half is
    white, their left half has a grey for each step and camera."""
    rng, steps = np.random.default_rng(0), ends[-1]
    starts = [0, *ends[:-1]]
    times = np.concatenate(
        [
            1.67e9 + 60 * n + np.arange(end - start) / RATE
            for n, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
    )
    poses = rng.normal(size=(2, steps, 6))
    data = {"timestamp": times, "action": poses[0], "robot_eef_pose": poses[1], "stage": np.zeros(steps, np.int64)}
    write_buffer(folder / "replay_buffer.zarr", data, ends)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        (folder / f"videos/{number}").mkdir(parents=True)
        for camera in cameras:
            with av.open(folder / f"videos/{number}/{camera}.mp4", "w") as film:
                stream: Any = film.add_stream("h264", rate=film_rate)
                stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
                stream.options = {"crf": "18", "profile": "high"}
                for frame in range((end - start + 1) * film_rate // RATE):
                    picture = np.full((32, 64, 3), 255, np.uint8)
                    picture[:, :32] = grey(start + frame * RATE // film_rate, camera)
                    film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                film.mux(stream.encode())
    return folder


def grey(step: int, camera: int) -> int:
    return (20 + 15 * step + 10 * camera) % 256


@pytest.mark.parametrize("film_rate", [FILM_RATE, RATE])
@pytest.mark.parametrize("inside", ["", "replay_buffer.zarr"])
def test_the_films_of_a_real_robot_show_their_steps(tmp_path: Path, film_rate: int, inside: str) -> None:
    source = write_recording(tmp_path / "push", film_rate=film_rate) / inside
    assert detect_format(source).NAME == "diffusion_policy"
    config = ImportConfig(height=16, width=16)
    outcome = import_demos(source, tmp_path / "s", config)
    store = DemoStore.open(tmp_path / "s")
    assert verify_store(store) == []
    assert (store.spec.task, store.spec.control_hz) == ("push", RATE)
    assert list(store.spec.cameras) == ["camera_0", "camera_2"]
    assert store.spec.state_names == tuple(f"robot_eef_pose.{n}" for n in range(6))
    assert outcome.notes[0] == "left out of data: stage, timestamp"
    for number, start in enumerate([0, *ENDS[:-1]]):
        for camera in (0, 2):
            images = store.images(number, f"camera_{camera}").astype(float)
            expected = [grey(start + step, camera) for step in range(len(images))]
            np.testing.assert_allclose(images[:, :, :7].mean((1, 2, 3)), expected, atol=4)
            # The middle of the film, and not all of it.
            assert images[:, :, 9:].min() > 235
    only = imported(source, tmp_path / "one", height=8, width=8, cameras=["camera_2"])
    assert list(only.spec.cameras) == ["camera_2"]


def test_a_film_that_ends_early_shows_its_last_frame_for_a_second(tmp_path: Path) -> None:
    source, size = write_recording(tmp_path / "push", [30]), {"height": 8, "width": 16}
    shutil.move(source / "videos", tmp_path / "films")
    short = write_recording(tmp_path / "short", [22])
    shutil.move(short / "videos", source / "videos")
    images = imported(source, tmp_path / "s", **size).images(0, "camera_0").astype(int)
    assert len(images) == 30
    assert (images[23:] == images[22]).all()
    shutil.rmtree(source / "videos")
    shutil.move(write_recording(tmp_path / "shorter", [15]) / "videos", source / "videos")
    with pytest.raises(UserError, match="shows 16 of the 30 steps of episode 0, at 10 Hz: is it the film of another"):
        imported(source, tmp_path / "t", **size)


def test_films_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    source, size = write_recording(tmp_path / "push"), {"height": 8, "width": 16}
    with pytest.raises(UserError, match="set height= and width= of its images"):
        imported(source, tmp_path / "s")
    with pytest.raises(UserError, match=r"Unknown camera with a film in .*'camera_1'"):
        imported(source, tmp_path / "s", **size, cameras=["camera_1"])
    film = source / "videos/1/2.mp4"
    film.write_bytes(film.read_bytes()[:500])
    with pytest.raises(UserError, match=r"1/2\.mp4, the film of camera_2 in episode 1, cannot be used: "):
        imported(source, tmp_path / "s", **size)
    film.unlink()
    with pytest.raises(UserError, match=r"1/2\.mp4, the film of camera_2 in episode 1, cannot be used: .*cameras="):
        imported(source, tmp_path / "s", **size)
    (source / "videos/0/2.mp4").unlink()
    with pytest.raises(UserError, match=r"0/2\.mp4, the film of camera_2 in episode 0, cannot be used: .*cameras="):
        imported(source, tmp_path / "s", **size)
    assert not (tmp_path / "s").exists()
    outcome = import_demos(source, tmp_path / "without", ImportConfig(films=False))
    assert any(f"the films in {source / 'videos'} are not read" in note for note in outcome.notes)


def test_a_size_without_films_is_refused(tmp_path: Path) -> None:
    source = Path(write_buffer(tmp_path / "images.zarr", arrays()))
    with pytest.raises(UserError, match=r"height= and width= are for films.* `pixio-robot data resize`"):
        imported(source, tmp_path / "s", height=8, width=8)


def test_other_folders_called_videos_are_no_films(tmp_path: Path) -> None:
    data = {key: values for key, values in arrays().items() if key != "img"}
    write_buffer(tmp_path / "replay_buffer.zarr", data)
    assert detect_format(tmp_path).NAME == "diffusion_policy"
    config = ImportConfig(control_hz=10.0)
    outcome = import_demos(tmp_path / "replay_buffer.zarr", tmp_path / "without", config)
    assert not any("films" in note for note in outcome.notes)
    (tmp_path / "videos").mkdir()
    outcome = import_demos(tmp_path, tmp_path / "with", config)
    assert any(f"the films in {tmp_path / 'videos'} are not read" in note for note in outcome.notes)
