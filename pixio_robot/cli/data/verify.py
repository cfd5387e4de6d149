"""`pixio-robot data verify|migrate PATH`: check a store, or upgrade it to the current format version."""

from __future__ import annotations

from dataclasses import dataclass

from pixio_robot.cli.arguments import NoSettings, parse_one_path
from pixio_robot.errors import UserError


@dataclass(kw_only=True)
class VerifySettings:
    """`actions`: range LOW..HIGH that the controller accepts. Default: not checked."""

    actions: str = ""


def verify(arguments: list[str]) -> int:
    from pixio_robot.data.demos.store import DemoStore
    from pixio_robot.data.demos.verify import verify_store

    path, config = parse_one_path("data verify", arguments, VerifySettings)
    action_range = _parse_range(config.actions) if config.actions else None
    store = DemoStore.open(path)
    problems = verify_store(store, action_range=action_range)
    for problem in problems:
        print(problem)
    print(f"{path}: {len(store)} episodes, {len(problems)} problems")
    return 1 if problems else 0


def _parse_range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in text.split(".."))
    except ValueError:
        raise UserError(f"actions={text} must be LOW..HIGH, such as actions=-1..1.") from None
    return low, high


def migrate(arguments: list[str]) -> int:
    from pixio_robot.data.demos.root_metadata import migrate_store

    path, _ = parse_one_path("data migrate", arguments, NoSettings)
    before, after = migrate_store(path)
    print(f"{path}: version {after}" + (" already" if before == after else f", was {before}"))
    return 0
