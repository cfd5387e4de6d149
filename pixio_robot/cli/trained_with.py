"""What an evaluated policy was trained with, from the stamps beside it: also the policy that it started from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixio_robot.cli.evaluation_target import RANDOM
from pixio_robot.cli.policy_directory import BEST, TRIALS
from pixio_robot.cli.relevant_settings import drop_unused_settings
from pixio_robot.cli.stages.stage import stamp_path
from pixio_robot.cli.stale_evaluations import candidate_policy_paths, relocated
from pixio_robot.evaluation.sweep.collect import CONTENTS, INITIAL_POLICY, SEED_SETTINGS
from pixio_robot.files import read_json

GIVEN, LAST = "given", "last"
_KEPT = ((BEST,), (TRIALS,))
_NOT_OF_THE_START = SEED_SETTINGS | {"label", CONTENTS}


def training_settings(evaluation: Path, fingerprint: Callable[[str], str]) -> dict[str, Any] | None:
    """Training settings of the evaluated policy; empty for random actions, None if no stamp records them. `fingerprint`
    is `fingerprint_content`, which reads whole policies: cached if many may have started from the same.

    `initial_policy` is not a path, in which there often is a seed, but says whether there was one; how that was trained
    follows as `initial_policy.optim.lr` and so on. `CONTENTS` is what was at the other paths. `checkpoint` tells the
    last policy of a training from those that it kept for their results, in `best` and `trials`.
    """
    stamp = stamp_path(evaluation)
    if not stamp.is_file():
        return None
    if read_json(stamp)["settings"]["checkpoint"] == RANDOM:
        return {}
    for path in candidate_policy_paths(evaluation):
        if (settings := _settings_of_policy(path, fingerprint)) is not None:
            return settings
    return None


def _settings_of_policy(policy: Path, fingerprint: Callable[[str], str]) -> dict[str, Any] | None:
    """The settings of the training whose output contains this path."""
    for directory in (policy, *policy.parents):
        stamp = stamp_path(directory) if directory.name else None
        if stamp is not None and stamp.is_file() and (stage := read_json(stamp))["stage"] == "train":
            place = policy.relative_to(directory).parts[:1]
            settings = _with_initial_policy(stage, directory, fingerprint)
            return {**settings, "checkpoint": place[0] if place in _KEPT else LAST}
    return None


def _with_initial_policy(stage: dict[str, Any], directory: Path, fingerprint: Callable[[str], str]) -> dict[str, Any]:
    contents = dict(stage.get("inputs", {}))
    started_from = contents.pop(INITIAL_POLICY, None)
    settings = {**drop_unused_settings(stage["settings"]), CONTENTS: contents}
    if settings.get(INITIAL_POLICY) is None:
        return settings
    start = Path(str(settings[INITIAL_POLICY]))
    moved = relocated(start, Path(stage["out"]), directory)
    earlier: dict[str, Any] = {}
    for path in (start,) if moved is None else (moved, start):
        # What has been trained anew since is another policy, whose settings say nothing about this one.
        if path.exists() and fingerprint(str(path)) == started_from:
            earlier = _settings_of_policy(path, fingerprint) or {}
            break
    of_start = {f"{INITIAL_POLICY}.{key}": value for key, value in earlier.items() if key not in _NOT_OF_THE_START}
    return {**settings, INITIAL_POLICY: GIVEN, **of_start}
