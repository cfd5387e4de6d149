"""`pixio-robot data merge|split|filter|subsample|trim|rename|resize|actions|pack`: write an edited copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from pixio_robot.choice import Choice
from pixio_robot.cli.arguments import (
    check_path_count,
    parse_one_path,
    parse_settings,
    print_result,
    split_arguments,
)
from pixio_robot.errors import UserError

if TYPE_CHECKING:
    from pixio_robot.data.demos.editing.rewrite import NewStore


class DuplicateHandling(Choice):
    """keep: keep all duplicates. drop: keep only the first of each."""

    KEEP = "keep"
    DROP = "drop"


@dataclass(kw_only=True)
class MergeSettings:
    """`twins`: what to do with duplicates, episodes with exactly equal state and actions: keep them (with a warning),
    or drop all but the first of each."""

    out: str = MISSING
    twins: DuplicateHandling = DuplicateHandling.KEEP


@dataclass(kw_only=True)
class SplitSettings:
    """Hold out the same episodes as `train` does with the same share and seed. `by=task`: write one store per task
    instead."""

    out: str = MISSING
    by: str = ""
    validation_share: float = 0.1
    seed: int = 0


@dataclass(kw_only=True)
class FilterSettings:
    out: str = MISSING
    where: str = MISSING


@dataclass(kw_only=True)
class SubsampleSettings:
    """Keep `episodes` random episodes (0: all), and every `stride`-th step of them; `actions`: how the actions of
    `stride` steps become one: last for absolute targets, sum or mean for deltas (mean multiplies their unit)."""

    out: str = MISSING
    episodes: int = 0
    seed: int = 0
    stride: int = 1
    actions: str = ""


@dataclass(kw_only=True)
class TrimSettings:
    """`keep_s`: seconds of a pause to keep, next to the motion. `end`: also cut pauses at the end."""

    out: str = MISSING
    keep_s: float = 0.0
    end: bool = False


@dataclass(kw_only=True)
class RenameSettings:
    """Settings besides OLD=NEW. `state_names`, `action_names`: the complete list, in order. If a camera has the name of
    one of these settings, the key refers to the camera."""

    out: str = MISSING
    task: str = ""
    robot: str = ""
    controller: str = ""
    state_names: list[str] = field(default_factory=list)
    action_names: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class ResizeSettings:
    """Resize to `size` x `size` or `height` x `width` pixels. `cameras`: comma-separated names. Default: all. `fit`:
    what becomes of images of another aspect ratio: stretch, crop or pad (black borders)."""

    out: str = MISSING
    size: int = 0
    height: int = 0
    width: int = 0
    fit: str = "stretch"
    cameras: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class ActionsSettings:
    """`scale_position`, `scale_rotation`: motion in m and rad that a delta action of 1 stands for."""

    out: str = MISSING
    to: str = ""
    rotation: str = ""
    scale_position: float = 0.05
    scale_rotation: float = 0.5


@dataclass(kw_only=True)
class PackSettings:
    out: str = MISSING
    codec: str = "zstd"


def merge(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.merge import find_duplicates, merge_stores
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming

    paths, pairs = split_arguments(arguments)
    if len(paths) < 2:
        raise UserError(f"`data merge` takes at least two paths, not {len(paths)}.")
    config = parse_settings("data merge", pairs, MergeSettings)
    stores = [open_for_streaming(path) for path in paths]
    # Report incompatible stores before reading all data to find duplicates.
    merged = merge_stores(stores)
    duplicates = find_duplicates(stores)
    note = (
        f"warning: {len(duplicates)} episodes are duplicates (same state and actions), and a validation split may put "
        "one copy on each side; twins=drop keeps the first of each"
    )
    if config.twins is DuplicateHandling.DROP:
        merged, note = merge_stores(stores, duplicates), f"left out {len(duplicates)} duplicate episodes"
    return _write(config.out, merged, [note] if duplicates else [])


def split(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, split_store, write_stores
    from pixio_robot.data.demos.tasks import split_by_task

    path, config = parse_one_path("data split", arguments, SplitSettings)
    if config.by not in ("", "task"):
        raise UserError(
            f"`data split` by={config.by} is not valid: use by=task for one store per task, or leave by= out."
        )
    store, notes = open_for_streaming(path), []
    if config.by:
        if unused := [word for word in arguments if word.startswith(("validation_share=", "seed="))]:
            raise UserError(f"`data split` by=task does not hold out episodes: leave out {' and '.join(unused)}.")
        new_stores = split_by_task(store)
    else:
        new_stores = split_store(store, config.validation_share, config.seed)
        if duplicates := len(store) - sum(new.count for new in new_stores.values()):
            notes = [f"left out {duplicates} episodes with the state and actions of a held-out one"]
    write_stores(Path(config.out), new_stores)
    return sum(_print_written(f"{config.out}/{name}", notes if name == "train" else []) for name in new_stores)


def filter(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.rewrite import filter_episodes, open_for_streaming

    path, config = parse_one_path("data filter", arguments, FilterSettings)
    return _write(config.out, filter_episodes(open_for_streaming(path), config.where))


def subsample(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.resample import subsample
    from pixio_robot.data.demos.editing.rewrite import Edit, open_for_streaming, sample_episodes, select_episodes

    path, config = parse_one_path("data subsample", arguments, SubsampleSettings)
    if config.episodes == 0 and config.stride == 1:
        raise UserError("`data subsample` needs episodes=N, stride=K, or both.")
    store = open_for_streaming(path)
    episodes = sample_episodes(store, config.episodes, config.seed) if config.episodes else None
    edit = Edit(store.spec) if config.stride == 1 else subsample(store.spec, config.stride, config.actions)
    return _write(config.out, select_episodes(store, episodes, edit), edit.notes)


def trim(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes
    from pixio_robot.data.demos.editing.trim import trim_pauses

    path, config = parse_one_path("data trim", arguments, TrimSettings)
    store = open_for_streaming(path)
    edit = trim_pauses(store, end=config.end, keep_s=config.keep_s)
    return _write(config.out, select_episodes(store, edit=edit), edit.notes)


def rename(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.rename import SpecOverrides, rename_columns
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes

    paths, pairs = split_arguments(arguments)
    check_path_count("data rename", paths)
    store = open_for_streaming(paths[0])
    own = {field.name for field in dataclasses.fields(RenameSettings)} - set(store.spec.cameras) | {"out"}
    config = parse_settings("data rename", {key: pairs.pop(key) for key in list(pairs) if key in own}, RenameSettings)
    overrides = {field.name: getattr(config, field.name) for field in dataclasses.fields(SpecOverrides)}
    if not pairs and not any(overrides.values()):
        raise UserError(
            "`data rename` needs cameras or columns as OLD=NEW, or robot=, controller=, task=, state_names=, "
            "action_names=."
        )
    edit = rename_columns(store.spec, pairs, SpecOverrides(**overrides))
    renamed = select_episodes(store, edit=edit)
    if config.task:  # overrides the task recorded with each episode
        renamed = dataclasses.replace(renamed, spec=edit.spec)
    return _write(config.out, renamed, edit.notes)


def resize(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.resize import resize_images
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes

    path, config = parse_one_path("data resize", arguments, ResizeSettings)
    if bool(config.size) == bool(config.height or config.width):
        raise UserError("`data resize` needs size=PIXELS, or height=PIXELS and width=PIXELS.")
    store = open_for_streaming(path)
    height, width = config.size or config.height, config.size or config.width
    edit = resize_images(store.spec, height, width, config.cameras, config.fit)
    return _write(config.out, select_episodes(store, edit=edit), edit.notes)


def actions(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.convert_actions import (
        DELTA,
        convert_actions,
        is_motionless,
        warn_about_clipped_deltas,
    )
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores
    from pixio_robot.data.demos.store import DemoStore

    path, config = parse_one_path("data actions", arguments, ActionsSettings)
    if not config.to and not config.rotation:
        raise UserError("`data actions` needs to=delta|absolute, rotation=FORM, or both.")
    store = open_for_streaming(path)
    edit = convert_actions(store.spec, config.to, config.rotation, config.scale_position, config.scale_rotation)
    write_stores(Path(config.out), {"": select_episodes(store, edit=edit)})
    notes = list(edit.notes)
    converted = DemoStore.open(config.out, ram_bytes=0)
    if config.to == DELTA and is_motionless(converted.spec, map(converted.actions, range(len(converted)))):
        notes.append(
            "warning: every delta is 0, because each action is the pose of its own step, as in UMI: a policy trained "
            "on them would stand still. Train on the absolute poses."
        )
    notes += warn_about_clipped_deltas(store.spec, converted.spec, map(converted.actions, range(len(converted))))
    return _print_written(config.out, notes)


def pack(arguments: list[str]) -> int:
    from pixio_robot.data.demos.codecs import LOSSY, check_codec
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores

    path, config = parse_one_path("data pack", arguments, PackSettings)
    codec, store = check_codec(config.codec), open_for_streaming(path)
    if store.image_codec in LOSSY and codec in LOSSY:
        raise UserError(
            f"{path} is already packed with the lossy codec {store.image_codec}; packing again loses more quality."
        )
    if store.image_codec in LOSSY:
        print(f"{path} was packed with the lossy codec {store.image_codec}: the lost quality cannot be restored.")
    write_stores(Path(config.out), {"": dataclasses.replace(select_episodes(store), image_codec=codec)})
    before, after = _episode_bytes(path), _episode_bytes(Path(config.out))
    print(f"{before / 1e6:.1f} MB -> {after / 1e6:.1f} MB ({after / before:.0%})")
    return _print_written(config.out)


def _write(out: str, new_store: NewStore, notes: Iterable[str] = ()) -> int:
    from pixio_robot.data.demos.editing.rewrite import write_stores

    write_stores(Path(out), {"": new_store})
    return _print_written(out, notes)


def _print_written(out: str, notes: Iterable[str] = ()) -> int:
    from pixio_robot.data.demos.store import DemoStore

    store = DemoStore.open(out)
    return print_result(out, len(store), int(store.lengths.sum()), notes)


def _episode_bytes(path: Path) -> int:
    """Size of the episodes, without the caches next to them."""
    return sum(file.stat().st_size for file in (path / "episodes").rglob("*") if file.is_file())
