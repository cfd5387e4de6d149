"""The results directory of one evaluation: survives a kill, resumes, and says when it is unfinished.

identity.json    who was evaluated; written first, a resumed run must match it
episodes.jsonl   one EpisodeResult a line, appended as each episode ends
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

from pixio_robot.errors import UserError
from pixio_robot.evaluation.statistics import Interval
from pixio_robot.files import atomic_file, read_json, write_json
from pixio_robot.types import DemoSpec, EpisodeResult

SEQUENTIAL = "confidence sequence"
IDENTITY, EPISODES, SUMMARY, VIDEOS = "identity.json", "episodes.jsonl", "summary.json", "videos"


@dataclasses.dataclass(kw_only=True)
class EvaluatedPolicy:
    """Who is evaluated. Two runs with equal identity are the same evaluation."""

    name: str
    """Short and unique within a report, also the directory's name: `bc_pixio_frozen`."""
    label: str
    """For people: `Frozen Pixio`."""
    policy: str
    """`bc`, `diffusion`, ... or `random`."""
    encoder: str
    """`pixio`, `random` (untrained weights), `resnet` or `none` (no vision)."""
    adaptation: str = ""
    """`frozen`, `full`, `last_k`; empty without an encoder."""
    training_seed: int | None = None
    training_step: int | None = None
    """Of a checkpoint from the midst of training; None for the policy that training ended with."""
    fingerprint: str = ""
    """A hash of the policy's weights: a retrained policy must not resume its predecessor's results."""
    acting: str = ""
    """How its predictions become actions, where that can be chosen: `4 actions of each chunk`."""
    sight: str = ""
    """How it sees an environment that calls things otherwise, in words of `SightConfig`; empty: by the same names."""


@dataclasses.dataclass(kw_only=True)
class EvaluationSummary(EvaluatedPolicy):
    """One finished evaluation: `summary.json`."""

    task: str
    robot: str
    render_quality: str
    spec_hash: str
    """Equal hashes: same task, robot, controller, cameras and simulator."""
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
    """Of the session that finished the evaluation."""
    resumed_episodes: int
    """Episodes that earlier, interrupted sessions had played; they are not in `wall_seconds`."""
    versions: dict[str, str]
    finished_at: str
    """UTC, ISO 8601."""
    interval: str = Interval.WILSON.value
    """What `low` and `high` are: an `Interval`, or a confidence sequence where stopping early was allowed."""
    mean_seconds_to_success: float | None = None
    """Simulated seconds, of the episodes that succeeded."""
    mean_return: float | None = None
    mean_highest_reward: float | None = None
    """Both over all episodes: of the sum of an episode's rewards, and of the highest of them."""
    scene: str = ""
    """What the environment shows besides (`DemoSpec.source`: the variation, how far apart objects start). Policies may
    be played in other scenes than they learned in, but results of two scenes are not compared."""
    repeats: bool = True
    """Whether the environment gave the same episode again from the same seed where that was tried (`envs.repeatable`,
    of environments of others); without, episodes of the same seed are no pairs. True of before it was noted."""
    stopped: str = ""
    """Why the evaluation ended before its last episode; empty when it did not."""


def spec_hash(spec: DemoSpec) -> str:
    """A hash of everything that decides what an episode from a given seed looks like."""
    value = {key: item for key, item in spec.to_json().items() if key not in ("source", "licence")}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def same_environment(first: EvaluationSummary, second: EvaluationSummary) -> bool:
    """Whether a seed starts the same episode in both. Summaries of before scenes were noted count as alike."""
    scenes = {first.scene, second.scene} - {""}
    return first.spec_hash == second.spec_hash and len(scenes) < 2


def _identity(policy: EvaluatedPolicy, spec: DemoSpec) -> dict[str, Any]:
    return dataclasses.asdict(policy) | {"spec_hash": spec_hash(spec), "scene": spec.source}


def played_before(directory: Path, policy: EvaluatedPolicy, spec: DemoSpec) -> list[EpisodeResult]:
    """The episodes that a results directory holds already; it need not be there.

    Raises UserError naming what differs when the directory holds another policy or environment.
    """
    identity = _identity(policy, spec)
    path = directory / IDENTITY
    if path.exists():
        known = read_json(path)
        if not isinstance(known, dict):
            raise UserError(f"{path} does not say whose results these are; delete {directory} to evaluate anew.")
        # Before it was noted, everything was seen by its own names.
        known = {"sight": ""} | known
        differing = sorted(key for key in identity if key in known and known[key] != identity[key])
        if differing:
            raise UserError(
                f"{directory} holds the results of another evaluation (differs in {', '.join(differing)}). "
                "Choose another output directory, or delete that one to evaluate anew."
            )
    elif (directory / EPISODES).exists():
        raise UserError(f"{directory} has {EPISODES} but no {IDENTITY}: it is not known which policy played them.")
    return read_episodes(directory) if (directory / EPISODES).exists() else []


def begin_results(directory: Path, policy: EvaluatedPolicy, spec: DemoSpec) -> None:
    """Make a results directory, or go on with one that `played_before` found nothing wrong with."""
    if not (directory / IDENTITY).exists():
        write_json(directory / IDENTITY, _identity(policy, spec))
    _drop_torn_line(directory / EPISODES)


def append_episode(directory: Path, result: EpisodeResult) -> None:
    """Append one line and flush it to the disk."""
    with (directory / EPISODES).open("a") as file:
        file.write(_line(result))
        file.flush()
        os.fsync(file.fileno())


def _line(result: EpisodeResult) -> str:
    return json.dumps(dataclasses.asdict(result), allow_nan=False) + "\n"


def read_episodes(directory: Path) -> list[EpisodeResult]:
    """All whole lines of `episodes.jsonl`, in the order played; a torn last line is left out."""
    path = directory / EPISODES
    if not path.exists():
        raise UserError(f"There is no {EPISODES} in {directory}: nothing was evaluated there.")
    results = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        if line.endswith("\n"):
            try:
                results.append(EpisodeResult(**json.loads(line)))
            except (json.JSONDecodeError, TypeError) as error:
                raise UserError(f"Line {number} of {path} is not an episode result ({error}).") from error
    seeds = [result.seed for result in results]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path} holds a seed more than once: two evaluations wrote to it at the same time.")
    return results


def note_videos(directory: Path, videos: Mapping[int, str]) -> None:
    """Note in `episodes.jsonl` the films, by seed, that were chosen after their episodes were noted."""
    if not videos:
        return
    results = read_episodes(directory)
    for result in results:
        result.video = videos.get(result.seed, result.video)
    with atomic_file(directory / EPISODES) as temporary:
        temporary.write_text("".join(map(_line, results)))


def write_summary(directory: Path, summary: EvaluationSummary) -> None:
    write_json(directory / SUMMARY, dataclasses.asdict(summary))


def read_summary(directory: Path) -> EvaluationSummary:
    """The summary of a finished evaluation.

    Raises UserError when the evaluation is missing, unfinished, or its summary lacks something.
    """
    path = directory / SUMMARY
    if not path.exists():
        if not (directory / EPISODES).exists():
            raise UserError(f"{directory} is not an evaluation: it has neither {SUMMARY} nor {EPISODES}.")
        played = len(read_episodes(directory))
        raise UserError(
            f"The evaluation in {directory} is unfinished ({played} episodes so far); run the same command again."
        )
    return _from_json(path, read_json(path))


def read_outcomes(directory: Path, seeds: Sequence[int]) -> list[EpisodeResult]:
    """The episodes of exactly those seeds, in their order. UserError when one is missing."""
    by_seed = {result.seed: result for result in read_episodes(directory)}
    missing = [seed for seed in seeds if seed not in by_seed]
    if missing:
        raise UserError(f"{directory / EPISODES} lacks {len(missing)} of its summary's seeds, such as {missing[0]}.")
    return [by_seed[seed] for seed in seeds]


def _from_json(path: Path, value: Any) -> EvaluationSummary:
    fields = dataclasses.fields(EvaluationSummary)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not an evaluation summary.")
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in value]
    if missing:
        raise UserError(f"{path} is not an evaluation summary: it lacks {', '.join(missing)}.")
    return EvaluationSummary(**{field.name: value[field.name] for field in fields if field.name in value})


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a killed process did not finish, so that appending stays sound."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
