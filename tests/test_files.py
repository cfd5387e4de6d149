"""Nothing half-written stays where a whole file is expected."""

import errno
import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from pixio_robot.errors import UserError
from pixio_robot.files import (
    atomic_directory,
    atomic_file,
    find_files,
    fsync_tree,
    read_json,
    remove_temporaries,
    write_json,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_failed_directory_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with atomic_directory(target) as temporary:
        (temporary / "value").write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(target) as temporary:
        (temporary / "value").write_text("new")
        raise RuntimeError
    assert (target / "value").read_text() == "old"
    assert names(tmp_path) == ["result"]


def test_an_existing_directory_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "result"
    for name in ("first", "second"):
        with atomic_directory(target) as temporary:
            (temporary / name).touch()
    assert names(target) == ["second"]
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize("by_the_next_writer", [False, True])
def test_killed_between_the_two_renames_the_old_directory_comes_back(tmp_path: Path, by_the_next_writer: bool) -> None:
    """The swept directory of a process that died after it had moved the old one away."""
    target = tmp_path / "a-result"
    killed = """
        import os, sys
        from pathlib import Path
        from pixio_robot.files import atomic_directory
        target = Path(sys.argv[1])
        with atomic_directory(target) as temporary:
            (temporary / "value").write_text("old")
        rename = Path.rename
        def rename_once(self, to):
            rename(self, to)
            os._exit(9)
        Path.rename = rename_once
        with atomic_directory(target) as temporary:
            (temporary / "value").write_text("new")
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(killed), str(target)]).returncode == 9
    assert not target.exists()
    if by_the_next_writer:
        with pytest.raises(KeyError), atomic_directory(target):
            raise KeyError
    else:
        remove_temporaries(tmp_path)
    assert (target / "value").read_text() == "old"
    assert names(tmp_path) == ["a-result"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_the_next_writer_removes_what_a_killed_one_left_but_not_of_a_living_one(tmp_path: Path, kind: str) -> None:
    script = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from pixio_robot.files import atomic_{kind}
        with atomic_{kind}(Path(sys.argv[1])) as temporary:
            print(temporary, flush=True)
            input()
            os._exit(9)
    """)
    target, write = tmp_path / f"{'long' * 60}.json", {"file": atomic_file, "directory": atomic_directory}[kind]
    target = target if kind == "file" else tmp_path / "result"
    words = [sys.executable, "-c", script, str(target)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout is not None
        left = Path(living.stdout.readline().strip()).parent
        with write(target) as temporary:
            temporary.touch()
            assert left.exists()
        assert left.exists()
        living.communicate("\n")
    assert left.exists()
    with write(target) as temporary:
        temporary.touch()
    assert names(tmp_path) == [target.name]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("disk/result")
    for name in ("first", "second"):
        with atomic_directory(tmp_path / "link") as temporary:
            (temporary / name).touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk" / "result") == ["second"]


def test_a_failed_file_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("{")
        raise RuntimeError
    assert read_json(target) == {"a": 1}
    assert names(tmp_path) == ["value.json"]


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*missing\.json"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_leftover_temporaries_are_removed(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from pixio_robot.files import atomic_directory
        with atomic_directory(Path({str(tmp_path)!r}) / "result") as temporary:
            (temporary / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert not (tmp_path / "result").exists()
    remove_temporaries(tmp_path)
    assert names(tmp_path) == []


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.fail("this test needs /dev/full, which every Linux has")
    with (
        pytest.raises(UserError, match="No space left on the disk"),
        atomic_directory(tmp_path / "result"),
        full.open("wb", buffering=0) as stream,
    ):
        stream.write(b"x")
    assert names(tmp_path) == []


@pytest.mark.parametrize("atomic", [atomic_file, atomic_directory])
def test_a_disk_too_full_for_a_staging_directory_is_explained(tmp_path: Path, monkeypatch, atomic) -> None:
    def mkdir(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "mkdir", mkdir)
    with (
        pytest.raises(UserError, match=f"No space left on the disk while writing {tmp_path / 'm'}"),
        atomic(tmp_path / "m"),
    ):
        pass


def test_a_full_disk_is_explained_when_torch_meets_it(tmp_path: Path) -> None:
    class FullDisk(io.RawIOBase):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left on the disk"), atomic_file(tmp_path / "m.pth"):
        torch.save({"a": torch.zeros(1000)}, FullDisk())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="another"), atomic_file(tmp_path / "m.pth"):
        raise RuntimeError("another")
    assert names(tmp_path) == []


@pytest.mark.parametrize("library", [SafetensorError, type("CheckpointException", (BaseException,), {})])
@pytest.mark.parametrize("words", ["No space left on device (os error 28)", "rank 0: [Errno 122] Disk quota exceeded"])
def test_a_full_disk_is_explained_when_another_library_meets_it(tmp_path: Path, library, words: str) -> None:
    with (
        pytest.raises(UserError, match=f"No space left on the disk while writing {tmp_path / 'm'}"),
        atomic_directory(tmp_path / "m"),
    ):
        raise library(f"Error while serializing: {words}")
    assert names(tmp_path) == []


def test_what_was_said_of_a_full_disk_stays(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^said\.$"), atomic_directory(tmp_path / "m"):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise UserError("said.") from error


def test_files_are_found_below_folders_but_not_in_stores(tmp_path: Path) -> None:
    for name in (
        "a.stage.json",
        "deep/er/b.stage.json",
        ".hidden/c.stage.json",
        "store/zarr.json",
        "store/d.stage.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "store" / "episodes").mkdir()
    (tmp_path / "store" / "episodes" / "e.stage.json").touch()
    found = [str(path.relative_to(tmp_path)) for path in find_files(tmp_path, "*.stage.json")]
    assert found == [".hidden/c.stage.json", "a.stage.json", "deep/er/b.stage.json", "store/d.stage.json"]
    assert find_files(tmp_path / "nothing", "*") == []
    with atomic_file(tmp_path / "deep" / "f.stage.json") as temporary:
        temporary.write_text("{")
        assert find_files(tmp_path / "deep", "*.stage.json") == [tmp_path / "deep" / "er" / "b.stage.json"]


def test_every_file_and_folder_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        (tmp_path / "tree" / f"{number % 7}" / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / f"{number % 7}" / "deep" / f"{number}").touch()
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    fsync_tree(tmp_path / "tree")
    assert sorted(flushed) == sorted([tmp_path / "tree", *(tmp_path / "tree").rglob("*")])
    flushed.clear()
    fsync_tree(tmp_path / "tree" / "0" / "deep" / "0")
    assert flushed == [tmp_path / "tree" / "0" / "deep" / "0"]


def test_a_failed_flush_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        fsync_tree(tmp_path)
