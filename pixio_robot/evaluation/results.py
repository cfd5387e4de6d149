"""The results directory of one evaluation: crash-safe, resumable, and recognisable as unfinished.

identity.json    what was evaluated; written first, a resumed run must match it
episodes.jsonl   one EpisodeResult per line, appended as each episode ends
videos/          seed_<seed>.mp4
summary.json     written last: its presence means the evaluation is complete
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixio_robot.errors import UserError, format_names
from pixio_robot.files import atomic_file, read_json, write_json
from pixio_robot.types import DemoSpec, EpisodeResult

SEQUENTIAL = "confidence sequence"
IDENTITY, EPISODES, SUMMARY, VIDEOS = "identity.json", "episodes.jsonl", "summary.json", "videos"


@dataclasses.dataclass(kw_only=True)
class EvaluatedPolicy:
    """The policy under evaluation. Two runs with equal identity are the same evaluation."""

    name: str
    """Short name, unique within a report and used for the directory: `bc_pixio_frozen`."""
    label: str
    """Display name: `Frozen Pixio`."""
    policy: str
    """`bc`, `diffusion`, ... or `random`."""
    encoder: str
    """`pixio`, `random` (untrained weights), `resnet` or `none` (no vision)."""
    adaptation: str = ""
    """`frozen`, `full`, `last_k`; empty without an encoder."""
    training_seed: int | None = None
    training_step: int | None = None
    """Training step of an intermediate checkpoint; None for the final policy."""
    fingerprint: str = ""
    """Hash of the policy's weights, so that a retrained policy does not resume the results of the earlier one."""
    acting: str = ""
    """How predictions are turned into actions, if configurable: `4 actions of each chunk`."""
    sight: str = ""
    """Name mapping between policy and environment, as text of `NameMappingConfig`; empty if the names agree."""


@dataclasses.dataclass(kw_only=True)
class EvaluationSummary(EvaluatedPolicy):
    """One finished evaluation: `summary.json`."""

    task: str
    robot: str
    render_quality: str
    spec_hash: str
    """Equal hashes mean the same task, robot, controller, cameras and simulator."""
    seeds: list[int]
    episodes: int
    successes: int
    rate: float
    low: float
    high: float
    """95 % interval of `rate`."""
    mean_steps_to_success: float | None
    restarts: int
    wall_seconds: float
    """Duration of the session that finished the evaluation."""
    resumed_episodes: int
    """Episodes played in earlier, interrupted sessions; not included in `wall_seconds`."""
    versions: dict[str, str]
    finished_at: str
    """UTC, ISO 8601."""
    interval: str
    """Type of the interval `low` to `high`: an `Interval`, or a confidence sequence with early stopping."""
    mean_seconds_to_success: float | None
    """Simulated seconds, mean over the successful episodes."""
    mean_return: float
    mean_highest_reward: float
    """Means over all episodes of the sum of rewards (`mean_return`) and of the highest reward."""
    scene: str
    """Details of the scene (`DemoSpec.source`: visual variation, spread of the objects' initial positions). A
    policy may be evaluated in another scene than it was trained in, but results of two scenes are not compared."""
    repeats: bool = True
    """Whether the environment reproduces an episode from its seed, where that was tested (third-party environments, by
    `envs.third_party.reproducibility`). If not, episodes with the same seed cannot be paired."""
    stopped: str = ""
    """Reason for stopping early; empty if all episodes were played."""


def spec_hash(spec: DemoSpec) -> str:
    """Hash of everything that determines what the episode of a given seed looks like."""
    value = {key: item for key, item in spec.to_json().items() if key not in ("source", "licence")}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def same_environment(first: EvaluationSummary, second: EvaluationSummary) -> bool:
    """Whether a seed starts the same episode in both."""
    return (first.spec_hash, first.scene) == (second.spec_hash, second.scene)


def _identity(policy: EvaluatedPolicy, spec: DemoSpec) -> dict[str, Any]:
    return dataclasses.asdict(policy) | {"spec_hash": spec_hash(spec), "scene": spec.source}


def load_previous_episodes(directory: Path, policy: EvaluatedPolicy, spec: DemoSpec) -> list[EpisodeResult]:
    """The episodes already in a results directory, which need not exist.

    Raises UserError naming the differing fields if the directory belongs to another policy or environment, and if it
    holds files that no evaluation made and this one would replace.
    """
    identity = _identity(policy, spec)
    path = directory / IDENTITY
    if path.exists():
        known = read_json(path)
        differing = sorted(key for key in identity if known.get(key) != identity[key])
        if differing:
            raise UserError(
                f"{directory} holds the results of another evaluation (differs in {', '.join(differing)}). "
                "Choose another output directory, or delete that one to start over."
            )
    elif foreign := [name for name in (EPISODES, SUMMARY, VIDEOS) if (directory / name).exists()]:
        raise UserError(
            f"{directory} has {format_names(foreign)} but no {IDENTITY}, so it is unknown which policy was evaluated: "
            "choose another output directory."
        )
    return read_episodes(directory) if (directory / EPISODES).exists() else []


def begin_results(directory: Path, policy: EvaluatedPolicy, spec: DemoSpec) -> None:
    """Create a results directory, or continue one that `load_previous_episodes` has checked."""
    if not (directory / IDENTITY).exists():
        write_json(directory / IDENTITY, _identity(policy, spec))
    _truncate_incomplete_line(directory / EPISODES)


def append_episode(directory: Path, result: EpisodeResult) -> None:
    """Append one line and flush it to the disk."""
    with (directory / EPISODES).open("a") as file:
        file.write(_to_json_line(result))
        file.flush()
        os.fsync(file.fileno())


def _to_json_line(result: EpisodeResult) -> str:
    return json.dumps(dataclasses.asdict(result), allow_nan=False) + "\n"


def read_episodes(directory: Path) -> list[EpisodeResult]:
    """All complete lines of `episodes.jsonl`, in order of completion; an incomplete last line is ignored."""
    path = directory / EPISODES
    if not path.exists():
        raise UserError(f"There is no {EPISODES} in {directory}: it holds no evaluation.")
    results = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        if line.endswith("\n"):
            try:
                results.append(EpisodeResult(**json.loads(line)))
            except (json.JSONDecodeError, TypeError) as error:
                raise UserError(f"Line {number} of {path} is not an episode result ({error}).") from error
    seeds = [result.seed for result in results]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path} contains a seed more than once: two evaluations wrote to it at the same time.")
    return results


def update_videos(directory: Path, videos: Mapping[int, str]) -> None:
    """Add videos, by seed, to `episodes.jsonl` that were selected after their episodes had been written."""
    if not videos:
        return
    results = read_episodes(directory)
    for result in results:
        result.video = videos.get(result.seed, result.video)
    with atomic_file(directory / EPISODES) as temporary:
        temporary.write_text("".join(map(_to_json_line, results)))


def write_summary(directory: Path, summary: EvaluationSummary) -> None:
    write_json(directory / SUMMARY, dataclasses.asdict(summary))


def read_summary(directory: Path) -> EvaluationSummary:
    """The summary of a finished evaluation.

    Raises UserError if the evaluation is missing or unfinished, or if its summary is not one.
    """
    path = directory / SUMMARY
    if not path.exists():
        if not (directory / EPISODES).exists():
            raise UserError(f"{directory} is not an evaluation: it has neither {SUMMARY} nor {EPISODES}.")
        played = len(read_episodes(directory))
        raise UserError(
            f"The evaluation in {directory} is unfinished ({played} episodes so far); run the same command again."
        )
    try:
        return EvaluationSummary(**read_json(path))
    except TypeError as error:
        raise UserError(f"{path} is not an evaluation summary ({error}).") from error


def read_outcomes(directory: Path, seeds: Sequence[int]) -> list[EpisodeResult]:
    """The episodes with exactly these seeds, in this order. Raises UserError if one is missing."""
    by_seed = {result.seed: result for result in read_episodes(directory)}
    missing = [seed for seed in seeds if seed not in by_seed]
    if missing:
        raise UserError(f"{directory / EPISODES} lacks {len(missing)} of its summary's seeds, such as {missing[0]}.")
    return [by_seed[seed] for seed in seeds]


def _truncate_incomplete_line(path: Path) -> None:
    """Remove an incomplete last line left by a killed process, so that appending is safe."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
