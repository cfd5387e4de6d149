"""Success of policies, episode by episode, so that others can recompute rates, intervals and tests.

    python benchmarks/policy_success.py EVALUATION_DIRECTORY ... [--out=FILE]
    python benchmarks/policy_success.py benchmarks/results/policy_success.json

Prints each policy's rate with its Wilson interval, and McNemar's exact test of every two policies that played the same
episodes of a task, without a correction for how many there are. The JSON has both commands of each policy, and the
outcomes in the order of their seeds as a text of 0 and 1.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from common.result_file import parse_arguments, save_result

from pixio_robot.cli.stages.stage import stamp_path
from pixio_robot.cli.stale_evaluations import candidate_policy_paths
from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import read_outcomes, read_summary
from pixio_robot.evaluation.statistics import compare_paired, wilson_interval
from pixio_robot.files import read_json


def describe(evaluation: Path) -> dict[str, Any]:
    summary, command = read_summary(evaluation), read_json(stamp_path(evaluation))["command"]
    success = {episode.seed: episode.success for episode in read_outcomes(evaluation, summary.seeds)}
    first = min(success)
    if sorted(success) != list(range(first, first + len(success))):
        raise UserError(f"{evaluation}: its seeds are not consecutive, so that a text cannot hold its outcomes.")
    trained = next(filter(Path.is_file, map(stamp_path, candidate_policy_paths(evaluation))), None)
    return {
        "name": str(evaluation),
        "task": summary.task,
        "policy": f"{summary.label} ({summary.policy})",
        "train": read_json(trained)["command"] if trained else None,
        "evaluate": command,
        "finished_at": summary.finished_at,
        "versions": summary.versions,
        "spec_hash": summary.spec_hash,
        "scene": summary.scene,
        "first_seed": first,
        "successes": "".join(str(int(success[seed])) for seed in sorted(success)),
    }


def outcomes(row: dict[str, Any]) -> dict[int, bool]:
    return {row["first_seed"] + index: letter == "1" for index, letter in enumerate(row["successes"])}


def main() -> None:
    parser = argparse.ArgumentParser(description="Success of policies, episode by episode.")
    parser.add_argument("sources", nargs="+", type=Path, metavar="EVALUATION|JSON")
    arguments = parse_arguments(parser, note=True)
    rows: list[dict[str, Any]] = []
    for source in arguments.sources:
        rows += read_json(source)["rows"] if source.suffix == ".json" else [describe(source)]
    for row in rows:
        count, total = row["successes"].count("1"), len(row["successes"])
        low, high = wilson_interval(count, total)
        print(f"{row['name']}: {row['task']}, {row['policy']}: {count} of {total} ({low:.0%} to {high:.0%})")
    for first, second in itertools.combinations(rows, 2):
        if any(first[name] != second[name] for name in ("task", "spec_hash", "scene")):
            continue
        sides = outcomes(first), outcomes(second)
        if sides[0].keys().isdisjoint(sides[1]):
            continue
        pair = compare_paired(*sides)
        print(
            f"{first['name']} / {second['name']}: only the first {pair.only_first}, only the second "
            f"{pair.only_second}, p = {pair.p_value:.2g}"
        )
    save_result({"note": arguments.note, "rows": rows}, arguments.out)


if __name__ == "__main__":
    main()
