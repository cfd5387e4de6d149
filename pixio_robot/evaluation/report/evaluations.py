"""The evaluations of one or several run directories."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from pixio_robot.evaluation.checkpoint_series import SERIES, CheckpointSeries, read_series
from pixio_robot.evaluation.results import (
    EPISODES,
    SUMMARY,
    EvaluationSummary,
    read_episodes,
    read_outcomes,
    read_summary,
)
from pixio_robot.types import EpisodeResult

EVALUATIONS = "evaluations"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One finished evaluation, with its episodes in seed order."""

    summary: EvaluationSummary
    episodes: Sequence[EpisodeResult]
    directory: Path
    title: str
    """The label, plus whatever is needed to make it unique: `Frozen Pixio (diffusion)`."""

    @property
    def outcomes(self) -> dict[int, bool]:
        return {episode.seed: episode.success for episode in self.episodes}


def read_evaluations(run_dirs: Sequence[Path], stale: Collection[Path]) -> tuple[list[Evaluation], dict[str, int]]:
    """All finished evaluations, best first, and the number of episodes of each unfinished one."""
    finished: list[Evaluation] = []
    unfinished: dict[str, int] = {}
    for run_dir, path in _results_directories(run_dirs):
        if (path / SERIES).exists() or path in stale:
            continue
        if (path / SUMMARY).exists():
            summary = read_summary(path)
            episodes = read_outcomes(path, summary.seeds)
            finished.append(Evaluation(summary=summary, episodes=episodes, directory=path, title=summary.label))
        else:
            played = [each for each in (path, *path.glob("step_*")) if (each / EPISODES).exists()]
            unfinished[_evaluation_name(run_dirs, run_dir, path)] = sum(len(read_episodes(each)) for each in played)
    finished.sort(key=lambda evaluation: (-evaluation.summary.rate, evaluation.summary.name))
    details: list[Callable[[Evaluation], str]] = [
        lambda evaluation: evaluation.summary.policy,
        lambda evaluation: evaluation.summary.acting,
        lambda evaluation: evaluation.summary.sight,
        lambda evaluation: evaluation.directory.name,
    ]
    if len(run_dirs) > 1:
        details.insert(0, lambda evaluation: run_name(run_dirs, evaluation.directory.parent.parent))
    return _make_titles_unique(finished, details), unfinished


def _make_titles_unique(
    evaluations: list[Evaluation], details: Sequence[Callable[[Evaluation], str]]
) -> list[Evaluation]:
    """Make titles unique: add each detail to those titles that are shared and for which the detail differs."""
    titles: list[tuple[str, ...]] = [(evaluation.title,) for evaluation in evaluations]
    for detail in details:
        values: dict[tuple[str, ...], set[str]] = {}
        for title, evaluation in zip(titles, evaluations, strict=True):
            values.setdefault(title, set()).add(detail(evaluation))
        titles = [
            (*title, detail(evaluation)) if len(values[title]) > 1 else title
            for title, evaluation in zip(titles, evaluations, strict=True)
        ]
    return [
        dataclasses.replace(evaluation, title=f"{label} ({', '.join(filter(None, added))})" if any(added) else label)
        for (label, *added), evaluation in zip(titles, evaluations, strict=True)
    ]


def read_checkpoint_series(run_dirs: Sequence[Path], stale: Collection[Path]) -> dict[str, CheckpointSeries]:
    return {
        _evaluation_name(run_dirs, run_dir, path): read_series(path)
        for run_dir, path in _results_directories(run_dirs)
        if (path / SERIES).exists() and path not in stale
    }


def evaluation_names(run_dirs: Sequence[Path], paths: Collection[Path]) -> list[str]:
    return [
        _evaluation_name(run_dirs, run_dir, path) for run_dir, path in _results_directories(run_dirs) if path in paths
    ]


def _results_directories(run_dirs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    for run_dir in run_dirs:
        for path in sorted((run_dir / EVALUATIONS).glob("[!.]*")):
            if path.is_dir():
                yield run_dir, path


def _evaluation_name(run_dirs: Sequence[Path], run_dir: Path, path: Path) -> str:
    return f"{run_name(run_dirs, run_dir)}/{path.name}" if len(run_dirs) > 1 else path.name


def run_name(run_dirs: Sequence[Path], run_dir: Path) -> str:
    """Name of one of several run directories: its folder name, or its path if folder names are not unique."""
    name = run_dir.resolve().name
    return name if sum(other.resolve().name == name for other in run_dirs) == 1 else str(run_dir)
