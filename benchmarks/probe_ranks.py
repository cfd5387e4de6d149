"""Do probes rank encoders as the success of policies on them does?

    python benchmarks/probe_ranks.py PROBES_DIRECTORY NAME=EVALUATION_DIRECTORY ... [--level=cluttered] [--out=FILE]

NAME is a probe's directory inside PROBES_DIRECTORY (`pixio-robot probe out=PROBES_DIRECTORY/NAME levels=...`), and
EVALUATION_DIRECTORY the evaluation of a policy on that encoder, all policies trained alike. For every number of the
cards Kendall's tau with the success rate is printed, 1 where a better probe always means more successes, with its exact
p-value (two-sided, over all orders of the encoders). With few encoders only a perfect order can be told from chance:
four give p >= 0.08, five 0.017. Success rates are themselves known to some ten points only, so the table says too how
many pairs of encoders differ in success by McNemar's exact test.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from common.result_file import git_commit, parse_arguments, save_result
from scipy import stats

from pixio_robot.evaluation.results import read_outcomes, read_summary
from pixio_robot.evaluation.statistics import compare_paired
from pixio_robot.files import read_json

ERRORS = ("depth_rmse", "_cm", "degrees")
"""Numbers of which less is better."""


def numbers(result: dict[str, Any]) -> dict[str, float]:
    found = {}
    for way in ("linear", "knn"):
        scores = result[way]
        found |= {f"{way} {key}": scores[key] for key in ("depth_rmse_m", "depth_delta1", "miou")}
        whole = {"linear": "patches", "knn": "knn"}[way]
        found |= {f"{way} {name}_cm": errors[whole] for name, errors in result["positions"].items()}
        if result["camera_angle"] is not None:
            found[f"{way} camera_degrees"] = result["camera_angle"][whole]
        if result["contact"] is not None:
            found[f"{way} contact"] = result["contact"][whole]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Rank correlation of probes with success.")
    parser.add_argument("probes", type=Path)
    parser.add_argument("pairs", nargs="+", metavar="NAME=EVALUATION")
    parser.add_argument("--level", default="", help="visual variation of the cards; empty: each one's first")
    arguments = parse_arguments(parser)
    cards, rates, outcomes = {}, {}, {}
    for pair in arguments.pairs:
        name, _, evaluation = pair.partition("=")
        card = read_json(arguments.probes / name / "probe.json")
        levels = [level for level in card["levels"] if arguments.level in ("", level["variation"])]
        summary = read_summary(Path(evaluation))
        cards[name], rates[name] = numbers(levels[0]["own"]), summary.rate
        played = read_outcomes(Path(evaluation), summary.seeds)
        outcomes[name] = {episode.seed: episode.success for episode in played}
    names = list(cards)
    told = [compare_paired(outcomes[a], outcomes[b]).p_value < 0.05 for a, b in itertools.combinations(names, 2)]
    print(", ".join(f"{name} {rates[name]:.0%}" for name in sorted(names, key=lambda name: -rates[name])))
    print(f"{sum(told)} of {len(told)} pairs differ in success (McNemar exact, p < 0.05)")
    table = {}
    for key in cards[names[0]]:
        sign = -1 if any(word in key for word in ERRORS) else 1
        found = stats.kendalltau([sign * cards[name][key] for name in names], [rates[name] for name in names])
        values = {name: cards[name][key] for name in names}
        table[key] = {"tau": float(found.statistic), "p": float(found.pvalue), "values": values}
        print(f"{key:24} tau {found.statistic:+.2f}  p {found.pvalue:.2f}")
    result = {"success": rates, "pairs_told_apart": [sum(told), len(told)], "probes": table}
    save_result(result | {"commit": git_commit()}, arguments.out)


if __name__ == "__main__":
    main()
