"""`pixio-robot data verify|migrate PATH`: whether a store is whole, and whether it is of today's version."""

from __future__ import annotations

from dataclasses import dataclass

from pixio_robot.cli.data_words import need_paths, paths_and_pairs, settings
from pixio_robot.errors import UserError


@dataclass(kw_only=True)
class Verify:
    """`actions`: LOW..HIGH that the controller accepts."""

    actions: str = ""


def verify(arguments: list[str]) -> int:
    from pixio_robot.data.demo_verify import verify
    from pixio_robot.data.demos import DemoStore

    paths, pairs = paths_and_pairs(arguments)
    need_paths("verify", paths)
    config = settings("verify", pairs, Verify)
    action_range = _range(config.actions) if config.actions else None
    store = DemoStore.open(paths[0])
    problems = verify(store, action_range=action_range, progress=True)
    for problem in problems:
        print(problem)
    print(f"{paths[0]}: {len(store)} episodes, {len(problems)} problems")
    return 1 if problems else 0


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in text.split(".."))
    except ValueError:
        raise UserError(f"actions={text} must be LOW..HIGH, such as actions=-1..1.") from None
    return low, high


def migrate(arguments: list[str]) -> int:
    from pixio_robot.data.demo_recognition import migrate

    paths, pairs = paths_and_pairs(arguments)
    need_paths("migrate", paths)
    settings("migrate", pairs, Nothing)
    before, after = migrate(paths[0])
    print(f"{paths[0]}: version {after}" + (" already" if before == after else f", was {before}"))
    return 0


@dataclass(kw_only=True)
class Nothing:
    """An action without settings."""
