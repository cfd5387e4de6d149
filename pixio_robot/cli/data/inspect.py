"""`pixio-robot data inspect|view PATH`: show the contents of a demonstration store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixio_robot.cli.arguments import parse_one_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

    from pixio_robot.data.demos.store import DemoStore
    from pixio_robot.data.demos.tasks import TaskEpisodes

BARS = 10
BAR_WIDTH = 40


@dataclass(kw_only=True)
class InspectSettings:
    """`html`: file for a page with images, plots and videos of `episodes` episodes. Default: no page."""

    html: str = ""
    episodes: int = 6


def inspect(arguments: list[str]) -> int:
    from rich.console import Console

    from pixio_robot.data.demos.store import DemoStore

    path, config = parse_one_path("data inspect", arguments, InspectSettings)
    store = DemoStore.open(path, ram_bytes=0)
    _print_summary(store, Console())
    if config.html:
        from pixio_robot.data.inspection.page import write_page

        write_page(store, Path(config.html), episodes=config.episodes)
        print(f"wrote {config.html}")
    return 0


@dataclass(kw_only=True)
class ViewSettings:
    """`save`: write a file for the rerun viewer. Default: start the viewer."""

    episode: int = 0
    save: str = ""


def view(arguments: list[str]) -> int:
    from pixio_robot.data.demos.store import DemoStore
    from pixio_robot.data.inspection.stream import stream

    path, config = parse_one_path("data view", arguments, ViewSettings)
    stream(DemoStore.open(path, ram_bytes=0), config.episode, Path(config.save) if config.save else None)
    if config.save:
        print(f"wrote {config.save}; open it with: rerun {config.save}")
    return 0


def _print_summary(store: DemoStore, console: Console) -> None:
    import numpy as np

    from pixio_robot.data.demos.pauses import describe_pauses, find_pauses
    from pixio_robot.data.demos.tasks import group_episodes_by_task
    from pixio_robot.data.inspection.spec_text import describe_simulator
    from pixio_robot.types import OF_THE_TASK, UNKNOWN

    spec, lengths = store.spec, store.lengths
    unspecified = (UNKNOWN, OF_THE_TASK)
    robot = "" if spec.robot in unspecified else f" with {spec.robot}"
    parts = [f"{spec.task}{robot}", spec.controller, f"{spec.control_hz:g} Hz", describe_simulator(spec)]
    what = ", ".join(part for part in parts if part not in unspecified)
    console.print(f"{store.path}: {what}", highlight=False, markup=False)
    if not len(store):
        console.print("no episodes yet")
        return
    low, middle, high = np.percentile(lengths, [0, 50, 100]).astype(int)
    console.print(
        f"{len(store)} episodes ({sum(store.successes)} successful), {lengths.sum()} steps; "
        f"shortest {low}, median {middle}, longest {high}"
    )
    if len(shares := group_episodes_by_task(store)) > 1:
        console.print(_task_table(shares))
    for name, camera in spec.cameras.items():
        console.print(f"camera {name}: {camera.height} x {camera.width} px, render quality {spec.render_quality}")
    size = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    console.print(f"{size / 1e6:.1f} MB including caches, image codec {store.image_codec}")
    if high > low:
        counts, edges = np.histogram(lengths, bins=min(BARS, high - low))
        console.print("\nsteps per episode")
        for count, start, end in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
            bar = "█" * round(BAR_WIDTH * count / counts.max()) or ("▏" if count else "")
            console.print(f"{start:8.0f} - {end:<6.0f} {bar} {count}", highlight=False)
    # From here on the arrays are read, which fails in a damaged store.
    if pauses := describe_pauses(find_pauses(store), int(lengths.sum()), spec.control_hz):
        console.print(f"\n{pauses}", highlight=False)
    console.print(_statistics_table(store))


def _empty_table(name: str, numbers: Sequence[str]) -> Table:
    """A table with a column of names and columns of numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(name, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _task_table(shares: Mapping[str, TaskEpisodes]) -> Table:
    from rich.markup import escape

    from pixio_robot.errors import printable

    table = _empty_table("task", ("episodes", "successful", "steps"))
    for task, share in shares.items():
        table.add_row(escape(printable(task)), str(len(share.episodes)), str(share.successes), str(share.steps))
    return table


def _statistics_table(store: DemoStore) -> Table:
    """The statistics of every dimension of state and actions."""
    from pixio_robot.data.stats import cached_statistics

    spec, statistics = store.spec, cached_statistics(store, range(len(store)))
    table = _empty_table("dimension", ("min", "1 %", "median", "99 %", "max", "std"))
    for heading, names, values in (
        ("state", spec.state_names, statistics.state),
        ("actions", spec.action_names, statistics.actions),
    ):
        table.add_row(heading, style="bold")  # imported data sets may use the same names for both
        columns = (values.minimum, values.q01, values.q50, values.q99, values.maximum, values.std)
        for i, name in enumerate(names):
            table.add_row(name.replace("[", "\\["), *(f"{column[i]:.3f}" for column in columns))
        table.add_section()
    return table
