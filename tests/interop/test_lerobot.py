"""LeRobotDataset v3 both ways, held against what lerobot itself wrote and reads, element by element."""

import dataclasses
import io
import json
import shutil
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.cli.main import main
from pixio_robot.data.demos.editing.rewrite import TASK
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.interop import lerobot
from pixio_robot.interop.demo_formats import detect_format
from pixio_robot.interop.lerobot.extra_metadata import FILE
from pixio_robot.interop.lerobot.features import choose_columns, features_from_spec, find_mismatch, spec_from_features
from pixio_robot.interop.lerobot.settings import ExportConfig, Images, ImportConfig

SIZES = {"observation.images.top": (16, 24), "observation.image": (10, 12)}
STATE = ["shoulder", "elbow", "wrist"]
LENGTHS = (5, 3, 4)


def features(films: tuple[str, ...]) -> dict[str, Any]:
    pictures = {
        key: {
            "dtype": "video" if key in films else "image",
            "shape": (3, *size),
            "names": ["channels", "height", "width"],
        }
        for key, size in SIZES.items()
    }
    return pictures | {
        "observation.state": {"dtype": "float64", "shape": (3,), "names": {"motors": STATE}},
        "observation.effort": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    }


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by lerobot alone: one camera a video, one as images, two tasks, no reward and no success."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root, rng = tmp_path_factory.mktemp("lerobot") / "theirs", np.random.default_rng(0)
    dataset = LeRobotDataset.create(
        "local/theirs",
        10,
        features(("observation.images.top",)),
        root=root,
        robot_type="so100",
        rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=10),
    )
    for number, length in enumerate(LENGTHS):
        for _ in range(length):
            dataset.add_frame(
                {key: rng.integers(0, 256, (*size, 3), np.uint8) for key, size in SIZES.items()}
                | {
                    "observation.state": rng.normal(size=3),
                    "observation.effort": rng.normal(size=2).astype(np.float32),
                    "action": rng.normal(size=2).astype(np.float32),
                    "task": "pick" if number < 2 else "place it",
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return root


def read_by_lerobot(root: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/any", root=root, video_backend="pyav", return_uint8=True)


def pixels(image: Any) -> np.ndarray:
    """A frame as lerobot gives it -> uint8 (h, w, 3)."""
    image = np.asarray(image)
    return np.moveaxis(image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8), 0, -1)


def test_what_lerobot_wrote_is_imported_as_lerobot_reads_it(foreign: Path, tmp_path: Path) -> None:
    outcome = lerobot.import_demos(foreign, tmp_path / "s", ImportConfig())
    store, theirs = DemoStore.open(tmp_path / "s"), read_by_lerobot(foreign)
    assert verify_store(store) == []
    assert (outcome.episodes, outcome.frames) == (3, 12)
    assert store.lengths.tolist() == list(LENGTHS)
    rows = [(episode, step) for episode, length in enumerate(LENGTHS) for step in range(length)]
    for number, (episode, step) in enumerate(rows):
        row = theirs[number]
        for camera, key in (("top", "observation.images.top"), ("image", "observation.image")):
            np.testing.assert_array_equal(store.images(episode, camera)[step], pixels(row[key]))
        np.testing.assert_array_equal(store.state(episode)[step], np.float32(row["observation.state"]))
        np.testing.assert_array_equal(store.actions(episode)[step], np.asarray(row["action"]))
        assert store.info(episode)[TASK] == row["task"]
    spec = store.spec
    assert (spec.task, spec.robot, spec.control_hz) == ("pick + place it", "so100", 10.0)
    assert (list(spec.state_names), list(spec.action_names)) == (STATE, ["action.0", "action.1"])
    assert (spec.cameras["top"].height, spec.cameras["top"].width) == (16, 24)
    text = "; ".join(outcome.notes)
    for words in ("observation.effort", "rounded to float32", "rewards are 0", "success=True", "2 tasks", "unknown"):
        assert words in text


def test_the_import_can_be_chosen(foreign: Path, tmp_path: Path) -> None:
    config = ImportConfig(
        cameras=["image"],
        state=["observation.effort", "observation.state"],
        task="Tidy",
        robot="arm",
        control_hz=20.0,
        without_success=False,
    )
    lerobot.import_demos(foreign, tmp_path / "s", config)
    store = DemoStore.open(tmp_path / "s")
    assert list(store.spec.cameras) == ["image"]
    assert list(store.spec.state_names) == ["effort.effort.0", "effort.effort.1", *(f"state.{name}" for name in STATE)]
    assert (store.spec.task, store.spec.robot, store.successes) == ("Tidy", "arm", [False] * 3)
    assert store.spec.control_hz == 20.0  # of openpi's LIBERO, which says 10


def test_images_go_there_and_back_exactly(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    store.append(dataclasses.replace(make_episode(9), info={TASK: "Other", "timestamps_s": [0.0, 0.1]}))
    outcome = lerobot.export_demos(store.path, tmp_path / "le", ExportConfig())
    assert (outcome.episodes, outcome.frames) == (5, store.lengths.sum())
    theirs = read_by_lerobot(tmp_path / "le")
    first = store.episode(0)
    assert (theirs.meta.fps, theirs.meta.robot_type) == (10, "none")
    assert theirs.meta.features["observation.state"]["names"] == list(SPEC.state_names)
    assert theirs[0]["task"] == "Test"
    assert theirs[len(theirs) - 1]["task"] == "Other"
    np.testing.assert_array_equal(pixels(theirs[1]["observation.images.front"]), first.images["front"][1])
    np.testing.assert_array_equal(np.asarray(theirs[1]["next.reward"]), first.rewards[1])
    for number in range(5):
        rows = [theirs[i] for i in range(len(theirs)) if theirs.hf_dataset[i]["episode_index"] == number]
        assert [bool(row["next.success"]) for row in rows][-1] == store.successes[number]
        assert [bool(row["next.done"]) for row in rows] == [False] * (len(rows) - 1) + [True]
    back = lerobot.import_demos(tmp_path / "le", tmp_path / "back", ImportConfig())
    assert back.notes == []
    again = DemoStore.open(tmp_path / "back")
    assert again.spec == store.spec
    assert all(same(again.episode(number), store.episode(number)) for number in range(5))


def test_videos_keep_every_frame_within_the_codecs_error(tmp_path: Path) -> None:
    spec, rng = (
        dataclasses.replace(SPEC, cameras={"front": dataclasses.replace(SPEC.cameras["front"], height=64, width=64)}),
        np.random.default_rng(0),
    )
    store = DemoStore.create(tmp_path / "s", spec)
    for seed in range(2):
        # Grey levels that tell each frame from its neighbours.
        levels = rng.permutation(6)[:, None, None, None] * 40 + np.arange(64)[:, None, None] // 4
        frames = np.broadcast_to(levels, (6, 64, 64, 3)).astype(np.uint8)
        store.append(dataclasses.replace(make_episode(seed, length=6), images={"front": frames}))
    for codec in ("libsvtav1", "h264"):
        config = ExportConfig(images=Images.VIDEO, codec=codec)
        outcome = lerobot.export_demos(store.path, tmp_path / codec, config)
        assert f"{codec}, crf 30, yuv420p changes pixels by" in outcome.notes[1]
        lerobot.import_demos(tmp_path / codec, tmp_path / f"{codec}-back", ImportConfig())
        back, theirs = DemoStore.open(tmp_path / f"{codec}-back"), read_by_lerobot(tmp_path / codec)
        for number in range(2):
            error = np.abs(back.images(number, "front").astype(int) - store.images(number, "front"))
            assert error.max() <= 12
            np.testing.assert_array_equal(
                back.images(number, "front")[3], pixels(theirs[6 * number + 3]["observation.images.front"])
            )
            np.testing.assert_array_equal(back.state(number), store.state(number))


def test_notes_beside_the_data_set_are_dropped_when_others_changed_it(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=3)
    lerobot.export_demos(store.path, tmp_path / "le", ExportConfig())
    lines = (tmp_path / "le" / FILE).read_text().splitlines()
    # As if episode 0 had been taken out and the others had moved up.
    (tmp_path / "le" / FILE).write_text("\n".join([lines[0], *lines[2:]]))
    outcome = lerobot.import_demos(tmp_path / "le", tmp_path / "back", ImportConfig())
    assert outcome.notes == [f"3 episodes have changed since {FILE} was written, so it is ignored for them"]
    assert DemoStore.open(tmp_path / "back").successes == store.successes
    info = json.loads((tmp_path / "le/meta/info.json").read_text())
    (tmp_path / "le/meta/info.json").write_text(json.dumps(info | {"fps": 20}))
    outcome = lerobot.import_demos(tmp_path / "le", tmp_path / "again", ImportConfig())
    assert "control_hz is 20.0 now, and was 10.0" in outcome.notes[0]
    assert DemoStore.open(tmp_path / "again").spec.simulator == "unknown"


def test_a_spec_is_its_features() -> None:
    found = features_from_spec(SPEC, "image")
    columns = choose_columns(found, ImportConfig())
    assert columns.left_out == []
    spec = spec_from_features(found, columns, fps=10, task="Test", robot="none", source="")
    for name in ("task", "robot", "control_hz", "cameras", "state_names", "action_names"):
        assert getattr(spec, name) == getattr(SPEC, name)
    assert find_mismatch(SPEC, found, columns, 10) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImportConfig(cameras=["tob"]), "Did you mean 'top'"),
        (ImportConfig(state=["observation.efort"]), "Did you mean 'observation.effort'"),
        (ImportConfig(action="actoin"), "Did you mean 'action'"),
        (ImportConfig(success="next.succes"), "Unknown feature of the dataset"),
    ],
)
def test_wrong_names_are_told(foreign: Path, tmp_path: Path, config: ImportConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lerobot.import_demos(foreign, tmp_path / "s", config)
    assert not (tmp_path / "s").exists()


def test_damage_names_the_file_and_leaves_nothing(foreign: Path, tmp_path: Path) -> None:
    video = Path("videos/observation.images.top/chunk-000/file-000.mp4")
    damages = {
        "an old version": lambda root: _edit_info(root, codebase_version="v2.1"),
        "no tasks": lambda root: (root / "meta/tasks.parquet").unlink(),
        "no video": lambda root: (root / video).unlink(),
        "half a video": lambda root: (root / video).write_bytes((root / video).read_bytes()[:2000]),
        "half the rows": lambda root: _halve(root / "data/chunk-000/file-000.parquet"),
        "no rows": lambda root: (root / "data/chunk-000/file-000.parquet").unlink(),
        "another image": lambda root: _replace_image(root / "data/chunk-000/file-000.parquet", 1),
        "an image elsewhere": lambda root: _replace_image(root / "data/chunk-000/file-000.parquet", 1, "/etc/hostname"),
        "an image above": lambda root: _replace_image(root / "data/chunk-000/file-000.parquet", 1, "a/../../x.png"),
        "a video above": lambda root: _edit_info(root, video_path="../no tasks/" + str(video)),
        "rows above": lambda root: _edit_info(root, data_path="../no tasks/data/chunk-000/file-000.parquet"),
        "a bomb": lambda root: _replace_image(root / "data/chunk-000/file-000.parquet", 1, size=(40_000, 40_000)),
    }
    messages = (
        "v2.1",
        "tasks.parquet is missing",
        "file-000.mp4",
        "file-000.mp4",
        "file-000.parquet",
        "file-000.parquet",
        "of episode 0 has 5 x 4 px at step 1, but",
        "refers to /etc/hostname, which is not below it",
        r"refers to a/\.\./\.\./x\.png, which is not below it",
        r"refers to \.\./no tasks/videos.*, which is not below it",
        r"refers to \.\./no tasks/data.*, which is not below it",
        "of episode 0, step 1, is not an image .*decompression bomb",
    )
    for (name, damage), message in zip(damages.items(), messages, strict=True):
        root = tmp_path / name
        shutil.copytree(foreign, root)
        damage(root)
        with pytest.raises(UserError, match=message):
            lerobot.import_demos(root, tmp_path / "out", ImportConfig())
        assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


def test_timestamps_that_jitter_are_refused_with_the_tolerance_that_takes_them(foreign: Path, tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    shutil.copytree(foreign, tmp_path / "le")
    path = tmp_path / "le/data/chunk-000/file-000.parquet"
    rows = parquet.read_table(path).to_pylist()
    rows[2]["timestamp"] += 0.004
    parquet.write_table(Table.from_pylist(rows, parquet.read_schema(path)), path)
    with pytest.raises(UserError, match=r"of the timestamps of episode 0\. If .* tolerance_s=0\.05 is half a frame"):
        lerobot.import_demos(tmp_path / "le", tmp_path / "s", ImportConfig())
    lerobot.import_demos(tmp_path / "le", tmp_path / "s", ImportConfig(tolerance_s=0.05))
    lerobot.import_demos(foreign, tmp_path / "t", ImportConfig())
    jittering, exact = (DemoStore.open(tmp_path / name).images(0, "top") for name in "st")
    np.testing.assert_array_equal(jittering, exact)


def test_rows_are_put_in_the_order_of_their_frames(foreign: Path, tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    def imported(name: str) -> tuple[DemoStore, str]:
        notes = lerobot.import_demos(tmp_path / "le", tmp_path / name, ImportConfig()).notes
        return DemoStore.open(tmp_path / name), "; ".join(notes)

    shutil.copytree(foreign, tmp_path / "le")
    expected, notes = imported("before")
    assert "frame_index" not in notes
    path = tmp_path / "le/data/chunk-000/file-000.parquet"
    rows = parquet.read_table(path).to_pylist()
    rows[1], rows[2] = rows[2], rows[1]
    parquet.write_table(Table.from_pylist(rows, parquet.read_schema(path)), path)
    mended, notes = imported("after")
    assert "the rows of 1 episodes were not in the order of frame_index, and are now" in notes
    assert mended.spec == expected.spec
    for one, other in zip(mended, expected, strict=True):
        np.testing.assert_array_equal(one.state, other.state)
        np.testing.assert_array_equal(one.actions, other.actions)
        for camera in expected.spec.cameras:
            np.testing.assert_array_equal(one.images[camera], other.images[camera])


def _edit_info(root: Path, **values: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _replace_image(path: Path, row: int, elsewhere: str = "", size: tuple[int, int] = (4, 5)) -> None:
    """By one of another size, which is only claimed if it is very large, or by a reference to a file."""
    from PIL import Image
    from pyarrow import Table, parquet

    (key,) = (key for key in SIZES if key != "observation.images.top")
    rows, content = parquet.read_table(path).to_pylist(), io.BytesIO()
    Image.new("RGB", (4, 5)).save(content, format="png")
    header = b"IHDR" + struct.pack(">II", *size) + content.getvalue()[24:29]
    png = content.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content.getvalue()[33:]
    rows[row][key] = {"bytes": None if elsewhere else png, "path": elsewhere or "other.png"}
    parquet.write_table(Table.from_pylist(rows, parquet.read_schema(path)), path)


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_command_guesses_the_format_and_refuses_what_exists(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect_format(foreign).NAME == "lerobot"

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pixio-robot", "data", *words])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    code, text = run("import", str(foreign), f"out={tmp_path / 's'}", "cameras=image")
    assert code == 0, text
    assert "3 episodes, 12 steps" in text
    assert "already exists" in run("import", str(foreign), f"out={tmp_path / 's'}")[1]
    code, text = run("export", str(tmp_path / "s"), f"out={tmp_path / 'le'}", "format=lerobot", "images=image")
    assert code == 0, text
    assert "already exists" in run("export", str(tmp_path / "s"), f"out={tmp_path / 'le'}", "format=lerobot")[1]
    for words, message in (
        (("export", str(tmp_path / "s"), "out=x"), "needs format=lerobot|"),
        (("export", str(tmp_path / "s"), "out=x", "format=lerobt"), "Did you mean 'lerobot'"),
        (("export", str(tmp_path / "s"), "out=x", "format=lerobot", "image=png"), "Did you mean 'images'"),
        (("import", str(tmp_path), f"out={tmp_path / 'x'}"), "not in a known format"),
        (("import", str(tmp_path / "s"), f"out={tmp_path / 'x'}"), "is a demonstration store already"),
        (("import", str(foreign)), "needs out="),
    ):
        code, text = run(*words)
        assert (code, message in text) == (2, True), text
    # A rate that is not a whole number, and an unknown encoder.
    spec = dataclasses.replace(SPEC, control_hz=12.5)
    DemoStore.create(tmp_path / "odd", spec).append(make_episode(0))
    assert "12.5 steps per second" in run("export", str(tmp_path / "odd"), f"out={tmp_path / 'x'}", "format=lerobot")[1]
    words = ("export", str(tmp_path / "s"), f"out={tmp_path / 'x'}", "format=lerobot", "images=video", "codec=h265")
    assert "h265" in run(*words)[1]
    assert not (tmp_path / "x").exists()


def test_data_sets_in_many_files(tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    picture = {"dtype": "image", "shape": (120, 120, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/large",
        10,
        {"observation.images.top": picture, "action": {"dtype": "float32", "shape": (1,), "names": None}}
        | {"observation.state": {"dtype": "float32", "shape": (1,), "names": None}},
        root=tmp_path / "le",
        use_videos=False,
        data_files_size_in_mb=1,
    )
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 30, 120, 120, 3), np.uint8)
    for episode in range(3):
        for step in range(30):
            number = np.array([100 * episode + step], np.float32)
            values = {"observation.state": number, "action": -number, "task": "count"}
            dataset.add_frame({"observation.images.top": frames[episode, step]} | values)
        dataset.save_episode()
    dataset.finalize()
    assert len(list((tmp_path / "le/data").rglob("*.parquet"))) == 3
    lerobot.import_demos(tmp_path / "le", tmp_path / "s", ImportConfig())
    store = DemoStore.open(tmp_path / "s")
    for episode in range(3):
        np.testing.assert_array_equal(store.images(episode, "top"), frames[episode])
        np.testing.assert_array_equal(store.actions(episode)[:, 0], -100 * episode - np.arange(30))
    assert store.spec.task == "count"
    assert store.info(0) == {}


def test_writing_says_nothing_of_a_decoder_that_it_does_not_need(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path / "demos", 1)
    lerobot.export_demos(store.path, tmp_path / "out", ExportConfig(images=Images.IMAGE))
    assert "torchcodec" not in caplog.text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"delta_z": 2, "gripper": 3, "delta_x": 0, "delta_y": 1}, ["delta_x", "delta_y", "delta_z", "gripper"]),
        ({"motors": ["a", "b", "c", "d"]}, ["a", "b", "c", "d"]),
        ({"delta_x": 0}, [f"action.{number}" for number in range(4)]),
    ],
    ids=["gamepad", "motors", "too few"],
)
def test_names_of_dimensions(names: dict[str, Any], expected: list[str]) -> None:
    action = {"dtype": "float32", "shape": (4,), "names": names}
    described = {"observation.state": {"dtype": "float32", "shape": (1,), "names": None}, "action": action}
    columns = choose_columns(described, ImportConfig())
    assert list(spec_from_features(described, columns, fps=10, task="", robot="", source="").action_names) == expected
