"""`pixio-robot data merge|split|filter|subsample|rename|resize|actions|pack`: write an edited copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from pixio_robot.choice import Choice
from pixio_robot.cli.data.arguments import (
    check_path_count,
    parse_one_path,
    parse_settings,
    print_result,
    split_arguments,
)
from pixio_robot.errors import UserError


class DuplicateHandling(Choice):
    """KEEP: keep all duplicates. DROP: keep only the first of each."""

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
    """Resize to `size` x `size` or `height` x `width` pixels. `cameras`: comma-separated names. Default: all."""

    out: str = MISSING
    size: int = 0
    height: int = 0
    width: int = 0
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
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, write_stores

    paths, pairs = split_arguments(arguments)
    check_path_count("merge", paths, many=True)
    config = parse_settings("merge", pairs, MergeSettings)
    stores = [open_for_streaming(path) for path in paths]
    # Report incompatible stores before reading all data to find duplicates.
    recipe = merge_stores(stores)
    twice = find_duplicates(stores)
    drop = config.twins is DuplicateHandling.DROP
    write_stores(Path(config.out), {"": merge_stores(stores, twice) if drop else recipe})
    if drop:
        return _print_written(config.out, [f"left out {len(twice)} duplicate episodes"] if twice else [])
    warning = (
        f"warning: {len(twice)} episodes are duplicates (same state and actions), and a validation split may put one "
        "copy on each side; twins=drop keeps the first of each"
    )
    return _print_written(config.out, [warning] if twice else [])


def split(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, split_store, write_stores
    from pixio_robot.data.demos.tasks import split_by_task

    path, config = parse_one_path("split", arguments, SplitSettings)
    if config.by not in ("", "task"):
        raise UserError(
            f"`data split` by={config.by} is not valid: use by=task for one store per task, or leave by= out."
        )
    store, words = open_for_streaming(path), []
    if config.by:
        if said := [word for word in arguments if word.startswith(("validation_share=", "seed="))]:
            raise UserError(f"`data split` by=task does not hold out episodes: leave out {' and '.join(said)}.")
        recipes = split_by_task(store)
    else:
        recipes = split_store(store, config.validation_share, config.seed)
        if twins := len(store) - sum(recipe.count for recipe in recipes.values()):
            words = [f"left out {twins} episodes with the state and actions of a held-out one"]
    write_stores(Path(config.out), recipes)
    return sum(_print_written(f"{config.out}/{name}", words if name == "train" else []) for name in recipes)


def filter(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.rewrite import filter_episodes, open_for_streaming, write_stores

    path, config = parse_one_path("filter", arguments, FilterSettings)
    write_stores(Path(config.out), {"": filter_episodes(open_for_streaming(path), config.where)})
    return _print_written(config.out)


def subsample(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.resample import Edit, subsample
    from pixio_robot.data.demos.editing.rewrite import (
        open_for_streaming,
        sample_episodes,
        select_episodes,
        write_stores,
    )

    path, config = parse_one_path("subsample", arguments, SubsampleSettings)
    if config.episodes == 0 and config.stride == 1:
        raise UserError("`data subsample` needs episodes=N, stride=K, or both.")
    store = open_for_streaming(path)
    episodes = sample_episodes(store, config.episodes, config.seed) if config.episodes else list(range(len(store)))
    edit = (
        Edit(store.spec, lambda episode: episode)
        if config.stride == 1
        else subsample(store.spec, config.stride, config.actions)
    )
    write_stores(Path(config.out), {"": select_episodes(store, episodes, edit.change, edit.spec)})
    return _print_written(config.out, edit.notes)


def rename(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.rename import SpecOverrides, rename_columns
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores

    paths, pairs = split_arguments(arguments)
    check_path_count("rename", paths)
    store = open_for_streaming(paths[0])
    own = {field.name for field in dataclasses.fields(RenameSettings)} - set(store.spec.cameras) | {"out"}
    config = parse_settings("rename", {key: pairs.pop(key) for key in list(pairs) if key in own}, RenameSettings)
    words = {field.name: getattr(config, field.name) for field in dataclasses.fields(SpecOverrides)}
    if not pairs and not any(words.values()):
        raise UserError(
            "`data rename` needs cameras or columns as OLD=NEW, or robot=, controller=, task=, state_names=, "
            "action_names=."
        )
    edit = rename_columns(store.spec, pairs, SpecOverrides(**words))
    recipe = select_episodes(store, range(len(store)), edit.change, edit.spec)
    if config.task:  # overrides the task recorded with each episode
        recipe = dataclasses.replace(recipe, spec=edit.spec)
    write_stores(Path(config.out), {"": recipe})
    return _print_written(config.out, edit.notes)


def resize(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.resample import resize_images
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores

    path, config = parse_one_path("resize", arguments, ResizeSettings)
    if bool(config.size) == bool(config.height or config.width):
        raise UserError("`data resize` needs size=PIXELS, or height=PIXELS and width=PIXELS.")
    store = open_for_streaming(path)
    edit = resize_images(store.spec, config.size or config.height, config.size or config.width, config.cameras)
    write_stores(Path(config.out), {"": select_episodes(store, range(len(store)), edit.change, edit.spec)})
    return _print_written(config.out)


def actions(arguments: list[str]) -> int:
    from pixio_robot.data.demos.editing.convert_actions import (
        DELTA,
        convert_actions,
        is_motionless,
        warn_about_clipped_deltas,
    )
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores
    from pixio_robot.data.demos.store import DemoStore

    path, config = parse_one_path("actions", arguments, ActionsSettings)
    if not config.to and not config.rotation:
        raise UserError("`data actions` needs to=delta|absolute, rotation=FORM, or both.")
    store = open_for_streaming(path)
    edit = convert_actions(store.spec, config.to, config.rotation, config.scale_position, config.scale_rotation)
    write_stores(Path(config.out), {"": select_episodes(store, range(len(store)), edit.change, edit.spec)})
    notes = list(edit.notes)
    made = DemoStore.open(config.out, ram_bytes=0)
    if config.to == DELTA and is_motionless(made.spec, map(made.actions, range(len(made)))):
        notes.append(
            "warning: every delta is 0, because each action is the pose of its own step, as in UMI: a policy trained "
            "on them would stand still. Train on the absolute poses."
        )
    notes += warn_about_clipped_deltas(store.spec, made.spec, map(made.actions, range(len(made))))
    return _print_written(config.out, notes)


def pack(arguments: list[str]) -> int:
    from pixio_robot.data.demos.codecs import LOSSY, check_codec
    from pixio_robot.data.demos.editing.rewrite import open_for_streaming, select_episodes, write_stores

    path, config = parse_one_path("pack", arguments, PackSettings)
    codec, store = check_codec(config.codec), open_for_streaming(path)
    if store.image_codec in LOSSY and codec in LOSSY:
        raise UserError(
            f"{path} is already packed with the lossy codec {store.image_codec}; packing again loses more quality."
        )
    if store.image_codec in LOSSY:
        print(f"{path} was packed with the lossy codec {store.image_codec}: the lost quality cannot be restored.")
    recipe = select_episodes(store, range(len(store)))
    write_stores(Path(config.out), {"": dataclasses.replace(recipe, image_codec=codec)})
    before, after = _episode_bytes(path), _episode_bytes(Path(config.out))
    print(f"{before / 1e6:.1f} MB -> {after / 1e6:.1f} MB ({after / before:.0%})")
    return _print_written(config.out)


def _print_written(out: str, notes: Iterable[str] = ()) -> int:
    from pixio_robot.data.demos.store import DemoStore

    store = DemoStore.open(out)
    return print_result(out, len(store), int(store.lengths.sum()), notes)


def _episode_bytes(path: Path) -> int:
    """Size of the episodes, without the caches next to them."""
    return sum(file.stat().st_size for file in (path / "episodes").rglob("*") if file.is_file())
