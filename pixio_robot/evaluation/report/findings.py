"""What the evaluations show, in numbers and in plain sentences, and their limitations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from pixio_robot.evaluation.report.curves import Curve
from pixio_robot.evaluation.report.data import ReportInputs
from pixio_robot.evaluation.report.evaluations import Evaluation
from pixio_robot.evaluation.results import SEQUENTIAL, EvaluationSummary, same_environment
from pixio_robot.evaluation.sequential import confidence_sequence
from pixio_robot.evaluation.statistics import Interval, PairedComparison, compare_paired
from pixio_robot.types import OF_THE_TASK, SIMULATED, UNSEEDED

SIGNIFICANCE = 0.05
MOST_SENTENCES = 8
"""With more pairs, the headline only counts outcomes; the tables list them all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One evaluation against a reference; if they cannot be paired, `paired` is None and `reason` says why."""

    first: Evaluation
    second: Evaluation
    paired: PairedComparison | None
    reason: str = ""

    @property
    def verdict(self) -> str:
        if self.paired is None:
            return self.reason
        if self.paired.p_value >= SIGNIFICANCE:
            return "no clear difference"
        return "better" if self.paired.difference > 0 else "worse"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonTable:
    title: str
    rows: Sequence[Comparison]


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Paired comparison on the shared seeds, if the environments match and reproduce episodes from their seeds."""
    if not same_environment(first.summary, second.summary):
        return Comparison(first=first, second=second, paired=None, reason="different environments: not comparable")
    if UNSEEDED in first.summary.scene or not (first.summary.repeats and second.summary.repeats):
        return Comparison(first=first, second=second, paired=None, reason=f"{UNSEEDED}: cannot be paired")
    if SEQUENTIAL in (first.summary.interval, second.summary.interval):
        reason = "early stopping was enabled, so the exact test is not valid: not comparable"
        return Comparison(first=first, second=second, paired=None, reason=reason)
    if not first.outcomes.keys() & second.outcomes.keys():
        return Comparison(first=first, second=second, paired=None, reason="no shared seed: not comparable")
    return Comparison(first=first, second=second, paired=compare_paired(first.outcomes, second.outcomes))


def comparison_tables(inputs: ReportInputs) -> list[ComparisonTable]:
    """All policies against the frozen random encoder, against no vision, and against the best in each environment."""
    evaluations = inputs.evaluations
    tables = []
    for title, encoder in (
        ("Against a frozen random encoder", "random"),
        ("Against a policy without vision", "none"),
    ):
        rows = []
        for evaluation in evaluations:
            reference = _find_reference(evaluation, evaluations, encoder)
            if reference is not None and not _is_reference(evaluation, encoder):
                rows.append(compare(evaluation, reference))
        tables.append(ComparisonTable(title=title, rows=rows))
    groups = _group_by_environment(evaluations)
    for best, *others in groups:
        where = f" in {best.summary.task}" if len(groups) > 1 else ""
        rows = [compare(evaluation, best) for evaluation in others]
        tables.append(ComparisonTable(title=f"Against the best{where}, {best.title}", rows=rows))
    return [table for table in tables if table.rows]


def _group_by_environment(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    groups: list[list[Evaluation]] = []
    for evaluation in evaluations:
        for group in groups:
            if same_environment(group[0].summary, evaluation.summary):
                group.append(evaluation)
                break
        else:
            groups.append([evaluation])
    return groups


def headlines(inputs: ReportInputs) -> list[str]:
    """The main results as sentences: each Pixio policy against the same method with a random encoder or no vision.

    Pairs are determined by method and kind of encoder, not by score; a policy without such a counterpart is skipped.
    More than MOST_SENTENCES pairs are summarised by counting their outcomes.
    """
    if not inputs.evaluations:
        trained = {name: curve for name, curve in inputs.policies.items() if curve.held_out}
        found = [f"{name} on held-out episodes: {held_out_text(curve)}." for name, curve in trained.items()]
        return ["No policy has been evaluated yet.", *found[:MOST_SENTENCES]]
    pairs: list[tuple[str, Comparison]] = []
    for evaluation in inputs.evaluations:
        if evaluation.summary.encoder == "pixio":
            for encoder, words in (("random", "its frozen random encoder"), ("none", "no vision")):
                reference = _find_reference(evaluation, inputs.evaluations, encoder)
                if reference is not None and reference.summary.policy == evaluation.summary.policy:
                    pairs.append((words, compare(evaluation, reference)))
    if not pairs:
        best = inputs.evaluations[0]
        return [f"Best of {len(inputs.evaluations)} evaluated: {rate_text(best)}."]
    if len(pairs) <= MOST_SENTENCES:
        return [_sentence(comparison) for _, comparison in pairs]
    verdicts: dict[str, list[str]] = {}
    for words, comparison in pairs:
        verdicts.setdefault(words, []).append(comparison.verdict if comparison.paired is not None else "not comparable")
    return [_count_sentence(words, found) for words, found in verdicts.items()]


def held_out_text(curve: Curve) -> str:
    """`loss 0.18 (lowest 0.17 after 600 steps), action error 0.09`; empty if nothing was held out."""
    words = []
    for name, values in curve.held_out.items():
        last, lowest = max(values), min(values, key=lambda step: values[step])
        before = f" (lowest {values[lowest]:.3g} after {lowest:,} steps)" if lowest < last else ""
        words.append(f"{name} {values[last]:.3g}{before}")
    return ", ".join(words)


def _count_sentence(words: str, verdicts: Sequence[str]) -> str:
    """`Pixio against no vision, same method: better in 20 of 22 pairs, no clear difference in 2.`"""
    kinds = sorted(set(verdicts), key=lambda kind: -verdicts.count(kind))
    counts = [f"{kind} in {verdicts.count(kind)}" for kind in kinds]
    counts[0] += f" of {len(verdicts)} pairs"
    return f"Pixio against {words}, same method: {', '.join(counts)}."


def rate_text(evaluation: Evaluation) -> str:
    """`Frozen Pixio 71/100 (61–79 %)`."""
    summary = evaluation.summary
    return f"{evaluation.title} {summary.successes}/{summary.episodes} ({interval_text(summary.low, summary.high)})"


def interval_text(low: float, high: float) -> str:
    """`62–79 %`, with a no-break space; with a decimal where whole numbers would say that both ends are the same, or
    that a rate is certain."""
    rounded = [f"{100 * end:.0f}" for end in (low, high)]
    certain = any(text in ("0", "100") and end not in (0, 1) for text, end in zip(rounded, (low, high), strict=True))
    ends = [f"{100 * end:.1f}" for end in (low, high)] if certain or rounded[0] == rounded[1] else rounded
    return f"{'–'.join(ends)}\N{NO-BREAK SPACE}%"


def p_text(p_value: float) -> str:
    """`p = 0.012`, with enough digits to tell on which side of SIGNIFICANCE it is."""
    if p_value < 0.0001:
        return "p < 0.0001"
    if round(p_value, 2) == SIGNIFICANCE:
        return f"p = {p_value:.3g}"
    return f"p = {p_value:.2g}" if p_value < 0.1 else f"p = {p_value:.2f}"


def _how(evaluation: Evaluation) -> str:
    """How the policy acted, and how it was told what it sees."""
    return ", ".join(filter(None, (evaluation.summary.acting, evaluation.summary.sight)))


def _sentence(comparison: Comparison) -> str:
    ways = _how(comparison.first), _how(comparison.second)
    note = "" if ways[0] == ways[1] else f" They acted differently: {ways[0] or 'unknown'}; {ways[1] or 'unknown'}."
    return _verdict_sentence(comparison) + note


def _verdict_sentence(comparison: Comparison) -> str:
    first, second = rate_text(comparison.first), rate_text(comparison.second)
    if comparison.paired is None:
        return f"{first} and {second} cannot be compared ({comparison.reason.split(':')[0]})."
    test = f"paired exact {p_text(comparison.paired.p_value)} on {comparison.paired.n} shared seeds"
    if comparison.verdict == "better":
        return f"{first} beats {second}: {test}."
    if comparison.verdict == "worse":
        return f"{first} is worse than {second}: {test}."
    return f"{first} does not beat {second} by more than chance would: {test}."


def _is_reference(evaluation: Evaluation, encoder: str) -> bool:
    """Whether it serves as a reference: the random encoder does only if it is frozen, not if it is trained."""
    summary = evaluation.summary
    if summary.encoder != encoder or summary.policy == "random":
        return False
    return encoder != "random" or summary.adaptation in ("", "frozen")


def _find_reference(evaluation: Evaluation, evaluations: Sequence[Evaluation], encoder: str) -> Evaluation | None:
    """The reference with the same kind of policy, or else the first; if there are several, prefer the same environment,
    then one that acted in the same way, then the same training seed, never the best score."""
    references = [candidate for candidate in evaluations if _is_reference(candidate, encoder)]
    same = [candidate for candidate in references if candidate.summary.policy == evaluation.summary.policy]
    here = [candidate for candidate in same or references if same_environment(candidate.summary, evaluation.summary)]
    left = here or same or references
    left = [candidate for candidate in left if _how(candidate) == _how(evaluation)] or left
    same_seed = [candidate for candidate in left if candidate.summary.training_seed == evaluation.summary.training_seed]
    return next(iter(same_seed or left), None)


def caveats(inputs: ReportInputs) -> list[str]:
    """Limitations of the results, derived from the data."""
    summaries = [evaluation.summary for evaluation in inputs.evaluations]
    return [
        *_training_seed_caveats(summaries),
        *_interval_caveats(summaries),
        *_environment_caveats(summaries),
        *_selection_caveats(inputs),
        *_run_caveats(inputs),
    ]


def _training_seed_caveats(summaries: Sequence[EvaluationSummary]) -> Iterator[str]:
    seeds: dict[tuple[str, str, str, str], set[int | None]] = {}
    for summary in summaries:
        if summary.policy != "random":
            kind = (summary.task, summary.policy, summary.encoder, summary.adaptation)
            seeds.setdefault(kind, set()).add(summary.training_seed)
    if once := sum(len(values) == 1 for values in seeds.values()):
        who = "Every policy was" if once == len(seeds) else f"{once} of {len(seeds)} kinds of policy were"
        yield (
            f"{who} trained once. The intervals cover the choice of evaluation episodes only; "
            "the variation between training seeds was not measured."
        )


def _interval_caveats(summaries: Sequence[EvaluationSummary]) -> Iterator[str]:
    if summaries:
        margin, episodes = max((_interval_width(summary) / 2, summary.episodes) for summary in summaries)
        yield (
            f"With {episodes} episodes, a success rate is known to within ±{100 * margin:.0f} points in the worst case "
            "(a rate near 50 %); differences of a few points cannot be detected."
        )


def _environment_caveats(summaries: Sequence[EvaluationSummary]) -> Iterator[str]:
    yield from _simulation_caveats(summaries)
    if any(summary.render_quality == "fast" for summary in summaries):
        yield "Images were rendered at fast quality (no shadows, no antialiasing), unlike real images."
    if not all(same_environment(summary, summaries[0]) for summary in summaries):
        yield "Not all evaluations used the same environment; different environments are not compared."
    if len({tuple(summary.seeds) for summary in summaries}) > 1:
        yield "Not all evaluations used the same seeds; comparisons use the seeds that both sides share."


def _selection_caveats(inputs: ReportInputs) -> Iterator[str]:
    """About many comparisons, and the best of many."""
    rows = [row for table in comparison_tables(inputs) for row in table.rows if row.paired is not None]
    # The same two policies may be compared in several tables, in either direction.
    tests = len({frozenset((id(row.first), id(row.second))) for row in rows})
    if tests > 1:
        yield (
            f"The p-values of the {tests} paired comparisons are not corrected for multiple testing; "
            f"the Bonferroni threshold would be p < {SIGNIFICANCE / tests:.2g}."
        )
    if len(inputs.evaluations) > 2:
        yield "The “best” policy was selected on these same episodes, so its rate is biased upwards."
    if inputs.series:
        yield (
            "The best of several checkpoints was selected on the same episodes that its rate is reported on, so the "
            "rate is biased upwards; the last checkpoint and the mean of the last ten are not selected."
        )


def _run_caveats(inputs: ReportInputs) -> Iterator[str]:
    summaries = [evaluation.summary for evaluation in inputs.evaluations]
    if restarts := sum(summary.restarts for summary in summaries):
        yield f"{restarts} episodes were restarted from their seed because a simulator worker died."
    if inputs.pretraining is not None and any(summary.encoder == "pixio" for summary in summaries):
        yield (
            f"The Pixio encoder here was pretrained in this run for {inputs.pretraining.steps[-1]:,} steps; "
            "this says nothing about the published Pixio weights, which were trained on vastly more data."
        )
    for name, played in inputs.unfinished.items():
        yield f"The evaluation {name} is unfinished ({played} episodes so far) and not included."
    for name in inputs.stale:
        yield f"The evaluation {name} is not included: its policy was trained anew since. Evaluate it again."


def _interval_width(summary: EvaluationSummary) -> float:
    """Width of the interval at a success rate of 50 % with this number of episodes."""
    kind = confidence_sequence if summary.interval == SEQUENTIAL else Interval(summary.interval)
    low, high = kind(summary.episodes // 2, summary.episodes)
    return high - low


def _simulation_caveats(summaries: Sequence[EvaluationSummary]) -> list[str]:
    """Which evaluations were simulated; unknown for third-party environments."""
    unknown = [summary for summary in summaries if summary.scene and not summary.scene.startswith(SIMULATED)]
    sentences = []
    if names := sorted({_environment_name(summary) for summary in summaries if summary not in unknown}):
        sentences.append(f"All evaluations ran in simulation: {', '.join(names)}. Nothing was tested on a real robot.")
        if unknown:
            sentences[0] = f"Simulation: {', '.join(names)}."
    if unknown:
        names = sorted({_environment_name(summary) for summary in unknown})
        sentences.append(f"Third-party environments, which may be simulations or real robots: {', '.join(names)}.")
    return sentences


def _environment_name(summary: EvaluationSummary) -> str:
    return summary.task if summary.robot == OF_THE_TASK else f"{summary.task} with {summary.robot}"
