"""HDF5 files whose data are in other files of this machine are refused, whatever way they say so; folders of files."""

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pixio_robot.errors import UserError
from pixio_robot.files import write_json
from pixio_robot.interop import aloha, libero, maniskill, robomimic
from pixio_robot.interop.hdf5 import open_hdf5

SHAPE = (4, 16, 24, 3)


def hide(group: h5py.Group, name: str, way: str, secret: Path) -> None:
    """Put images at `name` that are kept in the file `secret`."""
    if way == "raw":
        group.create_dataset(name, SHAPE, "u1", external=[(str(secret), 0, int(np.prod(SHAPE)))])
        return
    with h5py.File(secret, "w") as file:
        file["x"] = np.full(SHAPE, 7, np.uint8)
    if way == "link":
        group[name] = h5py.ExternalLink(str(secret), "/x")
    else:
        layout = h5py.VirtualLayout(SHAPE, "u1")
        layout[:] = h5py.VirtualSource(str(secret), "x", SHAPE)
        group.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("way", ["raw", "link", "virtual"])
def test_data_of_another_file_are_refused_in_every_format(tmp_path: Path, way: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"PRIVATE KEY" * 10_000)
    groups = {robomimic: "data/demo_0/obs", libero: "data/demo_0/obs", aloha: "observations/images"}
    for reader, name in (groups | {maniskill: "traj_0/obs"}).items():
        folder = tmp_path / reader.NAME
        folder.mkdir()
        episode = {"episode_id": 0, "episode_seed": 0, "control_mode": ""}
        description = {"env_info": {"env_id": "", "env_kwargs": {}}, "episodes": [episode]}
        write_json(folder / "episode_0.json", description)  # what ManiSkill has beside it
        with h5py.File(folder / "episode_0.hdf5", "w") as file:
            hide(file.create_group(name), "agentview", way, secret)
        source = folder if reader is aloha else folder / "episode_0.hdf5"
        with pytest.raises(UserError, match=rf"refused: its {name}/agentview is .* in.* .*secret, and would be read"):
            reader.import_demos(source, tmp_path / "out", reader.ImportConfig())
        assert not (tmp_path / "out").exists()


def test_links_and_virtual_data_within_the_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["data/x"] = np.arange(6)
        file["soft"], file["hard"], file["nowhere"] = h5py.SoftLink("/data/x"), file["data/x"], h5py.SoftLink("/none")
        layout = h5py.VirtualLayout((6,), file["hard"].dtype)
        layout[:] = h5py.VirtualSource(file["hard"])
        file.create_virtual_dataset("virtual", layout)
    with open_hdf5(path) as file:
        for name in ("soft", "hard", "virtual"):
            np.testing.assert_array_equal(file[name][()], np.arange(6))
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(UserError, match=r"text\.hdf5 cannot be opened as HDF5"):
        open_hdf5(tmp_path / "text.hdf5")


@pytest.mark.parametrize("reader", [aloha, libero])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Any
) -> None:
    refuse_to_read(tmp_path, monkeypatch)
    with pytest.raises(PermissionError) as raised:
        reader.import_demos(tmp_path, tmp_path / "out", reader.ImportConfig())
    assert raised.value.filename == str(tmp_path)


def test_a_suite_is_not_imported_without_the_tasks_in_a_folder_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("spatial", "object"):
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / "a_demo.hdf5", "w") as file:
            file.create_group("data")
    assert [path.parent.name for path in libero.list_task_files(tmp_path)] == ["object", "spatial"]
    refuse_to_read(tmp_path / "spatial", monkeypatch)
    with pytest.raises(PermissionError) as raised:
        libero.list_task_files(tmp_path)
    assert raised.value.filename == str(tmp_path / "spatial")


def refuse_to_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, who runs the tests in a container, every folder may be read."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
