"""`pixio-robot data inspect|verify PATH`: what a demonstration store holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.errors import UserError, unknown_name

HELP = """\
usage: pixio-robot data inspect PATH     episodes, lengths, cameras, ranges of state and action
       pixio-robot data verify PATH      read everything and check it; exit code 1 if something is damaged"""


def _inspect(path: Path) -> int:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from pixio_robot.data.demos import DemoStore
    from pixio_robot.data.stats import compute_statistics

    store = DemoStore.open(path)
    spec, lengths = store.spec, store.lengths
    console = Console()
    console.print(f"{path}: {spec.task} with {spec.robot}, {spec.controller}, {spec.control_hz:g} Hz, {spec.simulator}")
    if not len(store):
        console.print("no episode yet")
        return 0
    low, middle, high = np.percentile(lengths, [0, 50, 100]).astype(int)
    console.print(
        f"{len(store)} episodes ({sum(store.successes)} successful), {lengths.sum()} steps; "
        f"shortest {low}, median {middle}, longest {high}"
    )
    for name, camera in spec.cameras.items():
        console.print(f"camera {name}: {camera.height} x {camera.width} px, render quality {spec.render_quality}")
    statistics = compute_statistics(store, range(len(store)))
    table = Table("dimension", "minimum", "maximum", "mean", "std")
    for names, values in ((spec.state_names, statistics.state), (spec.action_names, statistics.actions)):
        for i, name in enumerate(names):
            row = (values.minimum[i], values.maximum[i], values.mean[i], values.std[i])
            table.add_row(name.replace("[", "\\["), *(f"{value:.4f}" for value in row))
        table.add_section()
    console.print(table)
    return 0


def _verify(path: Path) -> int:
    from pixio_robot.data.demo_verify import verify
    from pixio_robot.data.demos import DemoStore

    store = DemoStore.open(path)
    problems = verify(store)
    for problem in problems:
        print(problem)
    print(f"{path}: {len(store)} episodes, {len(problems)} problems")
    return 1 if problems else 0


ACTIONS = {"inspect": _inspect, "verify": _verify}


def main(arguments: list[str]) -> int:
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(HELP)
        return 0
    action, *rest = arguments
    if action not in ACTIONS:
        raise unknown_name("`data` action", action, ACTIONS)
    if len(rest) != 1:
        raise UserError(f"`data {action}` takes one path, not {len(rest)}.")
    return ACTIONS[action](Path(rest[0]))
