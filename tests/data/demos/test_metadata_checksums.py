"""No bit of a store flips unnoticed."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.data.demos.metadata_checksums import CHECKSUM, add_checksum, verify_and_strip_checksum
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import verify_store
from pixio_robot.errors import UserError


def problems(path: Path) -> list[str]:
    try:
        return verify_store(DemoStore.open(path))
    except UserError as error:
        return [str(error)]


def contents(path: Path) -> tuple:
    """What a reader gets, the DemoSpec included."""
    store = DemoStore.open(path)
    return store.spec, store.image_codec, [store.episode(number) for number in range(len(store))]


def alike(path: Path, expected: tuple) -> bool:
    found = contents(path)
    return found[:2] == expected[:2] and all(map(same, found[2], expected[2]))


def test_any_flipped_bit_in_any_file_is_found_or_changes_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=2)
    expected, random = contents(tmp_path / "s"), np.random.default_rng(0)
    files = sorted(file for file in (tmp_path / "s").rglob("*") if file.is_file())
    unnoticed = []
    for file in files:
        whole = file.read_bytes()
        for place in random.choice(len(whole), min(len(whole), 12), replace=False).tolist():
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(random.integers(8))
            file.write_bytes(damaged)
            if not problems(tmp_path / "s"):
                unnoticed.append((file, place))
                assert alike(tmp_path / "s", expected), (file, place)
        file.write_bytes(whole)
    assert problems(tmp_path / "s") == []
    # White space, and names that nobody asks for.
    assert all(file.name == "zarr.json" for file, _ in unnoticed)


@pytest.mark.parametrize("key", ["seed", "success", "length", "info"])
def test_a_changed_attribute_of_an_episode_is_damage(tmp_path: Path, key: str) -> None:
    store = make_store(tmp_path / "s", episodes=1)
    path = store.episode_path(0) / "zarr.json"
    value = json.loads(path.read_text())
    value["attributes"][key] = {"seed": 7, "success": True, "length": 3, "info": {}}[key]
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"000000/zarr.json is damaged .*checksum"):
        DemoStore.open(tmp_path / "s")


def test_a_changed_spec_is_damage(tmp_path: Path) -> None:
    make_store(tmp_path / "s", episodes=1)
    path = tmp_path / "s" / "zarr.json"
    value = json.loads(path.read_text())
    value["attributes"]["spec"]["control_hz"] += 1
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match="checksum"):
        DemoStore.open(tmp_path / "s")


def test_a_changed_codec_is_damage_to_other_tools(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    path = store.episode_path(1) / "images" / "hand" / "zarr.json"
    path.write_text(path.read_text().replace('"crc32c"', '"zstd"'))
    assert verify_store(DemoStore.open(tmp_path / "s")) == [
        "episode 1, images/hand: its zarr.json has changed since it was written"
    ]


@pytest.mark.parametrize("node", ["", "episodes", "episodes/000000"])
def test_a_group_that_zarr_would_not_open_is_named(tmp_path: Path, node: str) -> None:
    make_store(tmp_path / "s", episodes=1)
    path = tmp_path / "s" / node / "zarr.json"
    path.write_text(path.read_text().replace('"zarr_format": 3', '"zarr_format": 7'))
    (problem,) = verify_store(DemoStore.open(tmp_path / "s"))
    assert "other tools" in problem


def test_what_earlier_versions_wrote_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    group = zarr.open_group(store.episode_path(1), mode="r+")
    attributes = dict(group.attrs)
    del attributes[CHECKSUM], attributes["nodes"]
    group.attrs.put(attributes)
    again = DemoStore.open(tmp_path / "s")
    assert same(again.episode(1), make_episode(1))
    assert verify_store(again) == []
    assert SPEC.differences(again.spec) == []


def test_sealing_does_not_depend_on_the_order_and_is_undone() -> None:
    one, other = add_checksum({"a": 1, "b": [0.1, None]}), add_checksum({"b": [0.1, None], "a": 1})
    assert one == other == add_checksum(one)
    assert verify_and_strip_checksum(one) == {"a": 1, "b": [0.1, None]}
