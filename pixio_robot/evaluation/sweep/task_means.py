"""The mean over tasks of policies, or of training methods, that a sweep evaluated on all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from pixio_robot.evaluation.sweep.collect import SweepRow, student_interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskMean:
    """Mean over tasks of the success rates of the rows with one name; every task counts the same."""

    name: str
    by_task: Mapping[str, float]
    rates: Sequence[float]
    """Mean over tasks for each training seed; empty unless every task has the same two seeds or more."""
    rate: float
    low: float
    high: float
    interval: str
    """Description of the interval `low` to `high`."""


def average_tasks(rows: Sequence[SweepRow]) -> list[TaskMean]:
    """Of the rows whose name occurs in all tasks of the sweep, best first; empty if there is one task only.

    The interval combines those of the tasks as of independent rates (MOVER, Zou & Donner 2008, Statist. Med. 27:1693).
    One policy of several tasks may have been lucky with its training seed in all of them: with several seeds, Student's
    t over the seeds' means is taken where it is wider.
    """
    tasks = sorted({row.task for row in rows})
    named = {name: [row for row in rows if row.name == name] for name in {row.name for row in rows}}
    # Rows whose policies' settings are unknown may share a name, which then stands for none of them.
    complete = {name: each for name, each in named.items() if sorted(row.task for row in each) == tasks}
    means = [_average(name, each) for name, each in complete.items()] if len(tasks) > 1 else []
    return sorted(means, key=lambda mean: (-mean.rate, mean.name))


def _average(name: str, rows: Sequence[SweepRow]) -> TaskMean:
    count = len(rows)
    rate = sum(row.rate for row in rows) / count
    low = rate - math.hypot(*(row.rate - row.low for row in rows)) / count
    high = rate + math.hypot(*(row.high - row.rate for row in rows)) / count
    interval = f"combined from the intervals of {count} tasks"
    rates = _seed_means(rows)
    if rates:
        student = student_interval(rates)
        low, high = min(low, student[0]), max(high, student[1])
        interval += f", or Student's t over {len(rates)} training seeds where that is wider"
    by_task = {row.task: row.rate for row in rows}
    return TaskMean(name=name, by_task=by_task, rates=rates, rate=rate, low=low, high=high, interval=interval)


def _seed_means(rows: Sequence[SweepRow]) -> list[float]:
    """The mean over tasks for each training seed, if all tasks have the same ones, once each."""
    by_seed = [{run.training_seed: run.rate for run in row.runs} for row in rows]
    seeds = by_seed[0].keys()
    once = all(len(row.runs) == len(seeds) == len(row.rates) for row in rows)
    if not once or len(seeds) < 2 or any(each.keys() != seeds for each in by_seed):
        return []
    return [sum(each[seed] for each in by_seed) / len(rows) for seed in seeds]
