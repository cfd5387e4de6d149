"""Run one evaluation from start to summary: resumable, with videos, rejecting seeds used for training."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import EvaluateConfig, check_disjoint
from pixio_robot.evaluation.demo_recorder import DemoRecorder
from pixio_robot.evaluation.results import (
    SEQUENTIAL,
    SUMMARY,
    VIDEOS,
    EvaluatedPolicy,
    EvaluationSummary,
    append_episode,
    begin_results,
    load_previous_episodes,
    read_outcomes,
    read_summary,
    spec_hash,
    update_videos,
    write_summary,
)
from pixio_robot.evaluation.rollout import Watcher, run_episodes
from pixio_robot.evaluation.sequential import StopConfig, StopMonitor, StopRule, confidence_sequence
from pixio_robot.evaluation.statistics import Interval
from pixio_robot.evaluation.video_recorder import VideoRecorder
from pixio_robot.types import Actor, DemoSpec, EnvPool, EpisodeResult

_PACKAGES = ("pixio-robot", "torch", "numpy", "mujoco", "robosuite")


def check_spec(policy_spec: DemoSpec, env_spec: DemoSpec, hint: str = "") -> None:
    """Raise UserError if the policy cannot run in the environment, listing every differing field, then `hint`."""
    differences = policy_spec.differences(env_spec)
    if differences:
        raise UserError("The policy was trained for another environment: " + "; ".join(differences) + f".{hint}")


def evaluate(
    pool: EnvPool,
    actor: Actor,
    policy: EvaluatedPolicy,
    config: EvaluateConfig,
    directory: Path,
    *,
    train_seeds: Iterable[int] = (),
    repeats: bool = True,
    record: Path | None = None,
    on_resume: Callable[[list[EpisodeResult]], None] | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> EvaluationSummary:
    """Run the configured seeds that `directory` has no results for yet, then write and return the summary.

    An interrupted evaluation continues where it stopped: `on_resume` is called with the episodes of earlier sessions,
    `on_episode` with each one of this session as it ends.
    `repeats`: whether the environment reproduces an episode from its seed. `record`: demonstration store to which every
    episode is added.
    Raises UserError as `check_disjoint`, `load_previous_episodes`, `VideoRecorder`, `DemoRecorder` and `run_episodes`
    do.
    """
    seeds = config.seed_list()
    check_disjoint(train_seeds, seeds)
    done = [result for result in load_previous_episodes(directory, policy, pool.spec) if result.seed in set(seeds)]
    stop_monitor = StopMonitor(seeds, config.stop, _reference_outcomes(config.stop, pool.spec, repeats))
    for result in done:
        stop_monitor.add(result)
    if done and on_resume is not None:
        on_resume(done)
    video_recorder = _make_video_recorder(config, pool.spec, directory, done)
    watchers: list[Watcher] = [video_recorder]
    if record is not None:
        watchers.append(_make_demo_recorder(record, pool.spec, policy, directory, done))
    # Nothing is written before all checks pass, so the settings of a rejected evaluation can still be corrected.
    begin_results(directory, policy, pool.spec)
    (directory / SUMMARY).unlink(missing_ok=True)

    def keep(result: EpisodeResult) -> None:
        append_episode(directory, result)
        stop_monitor.add(result)
        if on_episode is not None:
            on_episode(result)

    played = {result.seed for result in done}
    started = time.monotonic()
    run_episodes(
        pool,
        actor,
        [] if stop_monitor.stop_reason else [seed for seed in seeds if seed not in played],
        watchers=watchers,
        on_episode=keep,
        should_stop=lambda: bool(stop_monitor.stop_reason),
        max_restarts=config.max_restarts,
    )
    ended = read_outcomes(directory, sorted(stop_monitor.ended))
    update_videos(directory, video_recorder.promote_spares(ended))
    video_recorder.write_grid(ended)
    counted = read_outcomes(directory, stop_monitor.counted)
    interval = config.interval if config.stop.rule is StopRule.NEVER else None
    summary = dataclasses.replace(
        summarise(policy, pool.spec, counted, interval),
        repeats=repeats,
        stopped=stop_monitor.stop_reason,
        wall_seconds=round(time.monotonic() - started, 3),
        resumed_episodes=len(done),
    )
    write_summary(directory, summary)
    return summary


def _make_video_recorder(
    config: EvaluateConfig, spec: DemoSpec, directory: Path, done: Sequence[EpisodeResult]
) -> VideoRecorder:
    if config.videos and not spec.cameras:
        raise UserError(f"videos={config.videos} needs a camera, but the environment has none; set videos=0.")
    camera = config.video_camera or next(iter(spec.cameras), "")
    return VideoRecorder(directory / VIDEOS, spec, videos=config.videos, camera=camera, done=done)


def _make_demo_recorder(
    record: Path, spec: DemoSpec, policy: EvaluatedPolicy, directory: Path, done: Sequence[EpisodeResult]
) -> DemoRecorder:
    recorder = DemoRecorder(record, spec, policy)
    if missing := recorder.missing_seeds(result.seed for result in done):
        raise UserError(
            f"{len(missing)} episodes in {directory} were played without being recorded to record={record}, for "
            f"example seed {missing[0]}. Use another output directory to play and record them again."
        )
    if note := recorder.describe_other_version():
        print(f"evaluate: {note}")
    return recorder


def _reference_outcomes(stop: StopConfig, spec: DemoSpec, repeats: bool) -> dict[int, bool]:
    """{seed: success} of the evaluation to compare with. Raises UserError if its environment differs or does not
    reproduce episodes from their seeds."""
    if stop.rule is not StopRule.VERSUS or stop.versus is None:
        return {}
    directory = Path(stop.versus)
    summary = read_summary(directory)
    if summary.spec_hash != spec_hash(spec) or summary.scene != spec.source:
        raise UserError(
            f"stop.versus={directory} was evaluated in another environment ({summary.task}, {summary.scene})."
        )
    if not (repeats and summary.repeats):
        raise UserError(
            f"stop.versus={directory} compares policies on the same episodes, but {spec.task} does not reproduce an "
            "episode from its seed. Leave out stop.rule."
        )
    return {result.seed: result.success for result in read_outcomes(directory, summary.seeds)}


def summarise(
    policy: EvaluatedPolicy,
    spec: DemoSpec,
    results: list[EpisodeResult],
    interval: Interval | None = Interval.WILSON,
) -> EvaluationSummary:
    """Counts, success rate and interval of the results (at least one), with the metadata needed to compare them.

    `interval`: None if the evaluation could have stopped early, which requires the confidence sequence.
    """
    steps = [result.first_success or result.steps for result in results if result.success]
    low, high = (interval or confidence_sequence)(len(steps), len(results))
    return EvaluationSummary(
        **dataclasses.asdict(policy),
        task=spec.task,
        robot=spec.robot,
        render_quality=spec.render_quality,
        spec_hash=spec_hash(spec),
        scene=spec.source,
        seeds=[result.seed for result in results],
        episodes=len(results),
        successes=len(steps),
        rate=len(steps) / len(results),
        low=low,
        high=high,
        interval=interval.value if interval else SEQUENTIAL,
        mean_steps_to_success=sum(steps) / len(steps) if steps else None,
        mean_seconds_to_success=sum(steps) / len(steps) / spec.control_hz if steps else None,
        mean_return=sum(result.episode_return for result in results) / len(results),
        mean_highest_reward=sum(result.highest_reward for result in results) / len(results),
        restarts=sum(result.restarts for result in results),
        wall_seconds=0.0,
        resumed_episodes=0,
        versions=_versions(),
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
