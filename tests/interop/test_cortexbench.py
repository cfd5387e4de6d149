"""CortexBench's pickles, written here as mjrl's sampler leaves them: lists that NumPy stacked, path by path."""

import contextlib
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.spec import make_env_spec
from pixio_robot.cli.main import dispatch
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError
from pixio_robot.interop.array_pickle import read_array_pickle
from pixio_robot.interop.cortexbench import ImportConfig, import_demos
from pixio_robot.interop.demo_formats import detect_format, load_export_format

METAWORLD = "assembly-v2-goal-observable.pickle"
LENGTHS = (4, 3)


def make_path(number: int, length: int, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    proprio = rng.normal(size=(length, 4))
    return {
        "observations": np.array([rng.normal(size=39) for _ in range(length)]),
        "actions": np.array([rng.uniform(-1, 1, 4).astype(np.float32) for _ in range(length)]),
        "rewards": np.array([float(step) for step in range(length)]),
        "images": rng.integers(0, 256, (length, 16, 24, 3), np.uint8),
        "agent_infos": {},
        "env_infos": {"success": np.array([0.0] * (length - 1) + [number % 2]), "gripper_proprio": proprio},
        "terminated": False,
    } | changes


PATHS = [make_path(number, length) for number, length in enumerate(LENGTHS)]


def write(path: Path, paths: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(paths, protocol))
    return path


def test_a_task_of_metaworld_fits_our_environment(tmp_path: Path) -> None:
    source = write(tmp_path / METAWORLD, PATHS)
    conversion = import_demos(source, tmp_path / "out", ImportConfig())
    store = DemoStore.open(tmp_path / "out")
    assert verify_store(store) == []
    assert (conversion.episodes, conversion.frames) == (2, 7)
    assert store.spec.differences(make_env_spec(EnvConfig(task="assembly-v3", cameras=["front"]))) == [
        "camera 'front': 16x24 against 96x96 pixels"
    ]
    for number, path in enumerate(PATHS):
        episode = store.episode(number)
        np.testing.assert_array_equal(episode.images["front"], path["images"])
        np.testing.assert_array_equal(episode.actions, path["actions"])
        np.testing.assert_array_equal(episode.state, path["env_infos"]["gripper_proprio"].astype(np.float32))
        np.testing.assert_array_equal(episode.rewards, path["rewards"])
        assert episode.success == bool(number)
    assert conversion.notes == [
        "recorded in assembly-v2-goal-observable, but called assembly-v3: MetaWorld's later version, in which policies "
        "can be evaluated",
        "rounded to float32: gripper_proprio",
    ]


def test_other_suites_say_what_is_not_in_the_file(tmp_path: Path) -> None:
    hand = [make_path(0, 3, env_infos={"proprio": np.ones((3, 30))})]
    source = write(tmp_path / "relocate-v0.pickle", hand)
    with pytest.raises(UserError, match=r"relocate-v0\.pickle does not store its control rate: pass control_hz="):
        import_demos(source, tmp_path / "out", ImportConfig())
    conversion = import_demos(source, tmp_path / "hand", ImportConfig(control_hz=100.0))
    spec = DemoStore.open(tmp_path / "hand").spec
    assert (spec.task, spec.robot, list(spec.cameras), spec.state_dim) == ("relocate-v0", "unknown", ["camera"], 30)
    assert conversion.notes == ["the file does not store success: all have success=true"]
    walker = write(tmp_path / "dmc_walker_walk-v1.pickle", [make_path(0, 3, env_infos={"internal_state": np.ones(3)})])
    config = ImportConfig(control_hz=40.0, success=False, action_names=list("abcd"))
    conversion = import_demos(walker, tmp_path / "walker", config)
    store = DemoStore.open(tmp_path / "walker")
    assert store.spec.state_names[-1] == "observations.38"
    assert store.spec.action_names == tuple("abcd")
    assert not store.successes[0]
    assert "use_state=false" in conversion.notes[0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    read = read_array_pickle(write(tmp_path / "a.pickle", PATHS, protocol))
    np.testing.assert_array_equal(read[1]["images"], PATHS[1]["images"])
    scalars = {"a": np.float32(2.5), "b": b"\xff", "c": None, "d": (1, "x")}
    assert read_array_pickle(write(tmp_path / "b.pickle", scalars, protocol)) == scalars


ARRAYS = {
    "big_endian": np.arange(3, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "sliced": np.arange(12).reshape(3, 4)[:, ::2],
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "empty": np.zeros((0, 3)),
    "point": np.array(2.5),
    "bool": np.array([True, False]),
    "half": np.arange(3, dtype=np.float16),
    "text": np.array(["a", "longer"]),
    "bytes": np.array([b"a", b"bc"]),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_as_they_were(tmp_path: Path, name: str, protocol: int) -> None:
    read = read_array_pickle(write(tmp_path / "a.pickle", ARRAYS[name], protocol))
    np.testing.assert_array_equal(read, ARRAYS[name])
    assert (read.dtype, read.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)


def test_arrays_of_objects_come_as_lists(tmp_path: Path) -> None:
    objects = np.array([None, {"a": np.arange(2)}], dtype=object)
    nothing, entry = read_array_pickle(write(tmp_path / "a.pickle", objects))
    assert nothing is None
    np.testing.assert_array_equal(entry["a"], [0, 1])
    with pytest.raises(UserError, match="an array of records"):
        read_array_pickle(write(tmp_path / "b.pickle", np.zeros(2, dtype=[("a", "f8")])))


def test_a_damaged_file_never_raises_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for protocol in (2, 5):
        whole = np.frombuffer(pickle.dumps([ARRAYS, make_path(0, 2)], protocol), np.uint8)
        head = whole[:1200]
        for _ in range(300):
            changed = head.copy()
            changed[rng.integers(0, len(head), 3)] = rng.integers(0, 256, 3)
            (tmp_path / "a.pickle").write_bytes(changed.tobytes() + whole[1200:].tobytes())
            with contextlib.suppress(UserError, MemoryError):
                read_array_pickle(tmp_path / "a.pickle")


def test_numpy_1_had_other_names(tmp_path: Path) -> None:
    content = pickle.dumps(PATHS[0]["actions"], 2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in content
    (tmp_path / "old.pickle").write_bytes(content)
    np.testing.assert_array_equal(read_array_pickle(tmp_path / "old.pickle"), PATHS[0]["actions"])


class Hostile:
    def __init__(self, callable_: Any, *arguments: Any) -> None:
        self.reduced = (callable_, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    "hostile",
    [
        Hostile(os.mkdir, "ran"),
        Hostile(eval, "__import__('os').mkdir('ran')"),
        Hostile(getattr, "text", "upper"),
        Hostile(np.load, "x"),
        np.array([Hostile(os.mkdir, "ran")], dtype=object),
    ],
)
def test_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: Any) -> None:
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / METAWORLD, [make_path(0, 3), hostile])
    assert any(word in pickletools.optimize(source.read_bytes()) for word in (b"mkdir", b"eval", b"getattr", b"load"))
    with pytest.raises(UserError, match=r"asks for [\w.]+\.(mkdir|eval|getattr|load), which could run code"):
        import_demos(source, tmp_path / "out", ImportConfig())
    assert [entry.name for entry in tmp_path.iterdir()] == [METAWORLD]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(PATHS)[:-500], "is not a pickle, or is damaged"),
        (b"\x80", "is not a pickle, or is damaged"),
        (pickle.dumps({"observations": 3}), "must hold a list of paths"),
        (pickle.dumps([]), "must hold a list of paths"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    source = tmp_path / METAWORLD
    source.write_bytes(content)
    with pytest.raises(UserError, match=rf"{METAWORLD} {message}"):
        import_demos(source, tmp_path / "out", ImportConfig())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((2, 4))}, "has 3 rows of images and 2 of actions"),
        (
            {"images": np.zeros((3, 8, 8, 3))},
            r"'images' must be uint8 \(t, height, width, 3\), not float64 \(3, 8, 8, 3\)",
        ),
        ({"images": None}, "has no 'images', but observations, actions, rewards, .*env_infos/gripper_proprio"),
        ({"actions": [[1.0]] * 3}, "'actions' must be an array of numbers, not list"),
        ({"actions": np.zeros(3)}, r"'actions' must have the shape \(t, columns\), not \(3,\)"),
        ({"env_infos": {}}, "has no 'gripper_proprio', but"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "8"),
    ],
)
def test_a_path_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = write(tmp_path / METAWORLD, [PATHS[0], make_path(1, 3, **changes)])
    with pytest.raises(UserError, match=message):
        import_demos(source, tmp_path / "out", ImportConfig())
    assert not (tmp_path / "out").exists()


def test_the_command_recognises_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / METAWORLD, PATHS)
    assert detect_format(source).NAME == "cortexbench"
    assert dispatch(["data", "import", str(source), f"out={tmp_path}/demos"]) == 0
    assert DemoStore.open(tmp_path / "demos").spec.source == f"CortexBench: {METAWORLD}"
    with pytest.raises(UserError, match=rf"but {source} is: import that"):
        detect_format(tmp_path)
    with pytest.raises(UserError, match="import-only"):
        load_export_format("cortexbench")
