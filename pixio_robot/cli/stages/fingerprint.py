"""What an input of a stage contains, wherever it is and however its path is spelled.

A copy has the identity of its original; a store that took in further episodes and a policy that was trained again have
another one than before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

FULL_READ_BYTES, SAMPLED_END_BYTES = 1 << 16, 1 << 12
SAMPLED_SUFFIXES = ("", ".tar")
"""Endings of large files of which only the size and both ends are read: arrays in Zarr, which end with their checksum,
and shards, whose index (`.npy`) contains a hash of every frame."""


def fingerprint_content(name: str) -> str:
    """Identity of the input at a path. If there is nothing (a hub name): the name itself.

    A demonstration store counts by its episodes, a selection of frames by its acceptance, a training run by its model.
    Folders that are none of ours, such as raw footage, count by the sizes and modification times of their files.
    """
    path = Path(name)
    if path.is_file():
        return _fingerprint_files("1 file", path.parent, [path])
    if not path.exists():
        return name
    if (path / "episodes").is_dir() and (path / "zarr.json").is_file():
        episodes = [entry for entry in (path / "episodes").iterdir() if entry.name.isdecimal()]
        files = [path / "zarr.json", *(file for episode in episodes for file in files_below(episode))]
        return _fingerprint_files(f"{len(episodes)} episodes", path, files)
    if (path / "acceptance.npy").is_file():
        return _fingerprint_files("selection", path, [path / "acceptance.npy"])
    if (path / "model").is_dir() and not (path / "model.safetensors").is_file():
        path = path / "model"
    files = list(files_below(path))
    if any((path / mark).is_file() for mark in ("config.json", "manifest.json")) or path.name == "model":
        return _fingerprint_files(f"{len(files)} files", path, files)
    return fingerprint_file_stats(path)


def files_below(path: Path) -> Iterator[Path]:
    """All files below a directory that are not hidden (hidden: caches, locks)."""
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def fingerprint_file_stats(path: Path) -> str:
    """Summary of sizes and modification times of a file, or of all files below a directory."""
    files = [path] if path.is_file() else list(files_below(path))
    total, digest = 0, hashlib.sha256()
    for file in sorted(files):
        with contextlib.suppress(FileNotFoundError):  # a dangling symbolic link
            state = file.stat()
            total += state.st_size
            name = os.path.relpath(file, path)  # Path.relative_to takes half of the time of everything here
            digest.update(f"{name} {state.st_size} {state.st_mtime_ns}\n".encode(errors="replace"))
    return f"{len(files)} files of {total} bytes, {digest.hexdigest()[:16]}"


def _fingerprint_files(what: str, root: Path, files: list[Path]) -> str:
    total, digest = 0, hashlib.sha256()
    for file in sorted(files):
        with contextlib.suppress(FileNotFoundError):
            size = file.stat().st_size
            total += size
            # The name of a single file, like the path of a folder, is not part of what it contains.
            name = os.path.relpath(file, root) if len(files) > 1 else ""
            digest.update(f"{name} {size} ".encode(errors="replace") + _digest_file(file, size))
    return f"{what}, {total} bytes, {digest.hexdigest()[:16]}"


def _digest_file(file: Path, size: int) -> bytes:
    with file.open("rb") as content:
        if size <= FULL_READ_BYTES or file.suffix not in SAMPLED_SUFFIXES:
            return hashlib.file_digest(content, "sha256").digest()
        start = content.read(SAMPLED_END_BYTES)
        content.seek(-SAMPLED_END_BYTES, os.SEEK_END)
        return hashlib.sha256(start + content.read()).digest()
