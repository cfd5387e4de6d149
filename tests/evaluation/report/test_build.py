import csv
import json
import re
import shutil
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from demo_data import make_store

from pixio_robot.errors import UserError
from pixio_robot.evaluation.baselines import RandomActor
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import evaluate, summarise
from pixio_robot.evaluation.report.build import render_csv, render_html, render_markdown, write_report
from pixio_robot.evaluation.report.curves import Curve
from pixio_robot.evaluation.report.data import Stage, collect_comparison, collect_inputs
from pixio_robot.evaluation.report.figures import interval_svg, loss_svg
from pixio_robot.evaluation.report.findings import (
    caveats,
    comparison_tables,
    headlines,
    held_out_text,
    interval_text,
    p_text,
    rate_text,
)
from pixio_robot.evaluation.report.media import load_clips
from pixio_robot.evaluation.report.templating import duration_text
from pixio_robot.evaluation.results import (
    SEQUENTIAL,
    SUMMARY,
    EvaluatedPolicy,
    append_episode,
    begin_results,
    write_summary,
)
from pixio_robot.types import OF_THE_TASK, UNSEEDED, EpisodeResult

LABELS = {"pixio": "Frozen Pixio", "random": "Frozen random", "none": "No vision", "resnet": "ResNet from scratch"}


def write_evaluation(run_dir, spec, encoder, successes, *, n=100, policy="bc", first_seed=100_000, shift=0, **changes):
    """An evaluation whose first `successes` seeds (after `shift`) succeed."""
    values = {"adaptation": "frozen" if encoder in ("pixio", "random") else "", "training_seed": 0} | changes
    who = EvaluatedPolicy(name=f"{policy}_{encoder}", label=LABELS[encoder], policy=policy, encoder=encoder, **values)
    directory = run_dir / "evaluations" / who.name
    begin_results(directory, who, spec)
    results = [
        EpisodeResult(
            seed=first_seed + i,
            success=(i - shift) % n < successes,
            steps=20 + i % 30,
            episode_return=-float(i),
            highest_reward=0.0,
        )
        for i in range(n)
    ]
    for result in results:
        append_episode(directory, result)
    write_summary(directory, summarise(who, spec, results))
    return directory


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, line_pool, seeking_actor):
    """A run with every part; its evaluations are of the point on the line."""
    root = tmp_path_factory.mktemp("whole") / "run"
    for name, encoder in (("bc_pixio", "pixio"), ("bc_random", "random"), ("random", "none")):
        kind = "random" if name == "random" else "bc"
        who = EvaluatedPolicy(name=name, label=f"<{name}> & co", policy=kind, encoder=encoder, training_seed=0)
        actor = RandomActor(1) if kind == "random" else seeking_actor(noise=0.3 if encoder == "pixio" else 3.0)
        config = EvaluateConfig(episodes=30, num_slots=4, videos=2)
        evaluate(line_pool(4), actor, who, config, root / "evaluations" / name)
    for part in ("pretrain", "policies/bc_pixio", "policies/bc_random"):
        (root / part).mkdir(parents=True)
        lines = [{"step": i, "loss": 1 / i, "lr": 1e-3, "seconds": i * 0.1} for i in range(1, 200)]
        if part != "policies/bc_random":
            measured = ((50, 0.25, 0.125), (100, 0.0625, 0.09), (199, 0.07, 0.0812))
            lines += [{"step": i, "validation_loss": a, "validation_action_error": b} for i, a, b in measured]
            lines[-1] |= {"validation_action_error/eef_pos.x [m]": 0.0123, "validation_action_error/gripper": 0.15}
            lines[-1] |= {"validation_task_error/open the drawer": 0.0456}
        (root / part / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "pretrain" / "panels").mkdir()
    for step in range(0, 1000, 100):
        image = np.random.default_rng(step).integers(0, 255, (96, 288, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "pretrain" / "panels" / f"step_{step}.png"), image)
    (root / "frames").mkdir()
    (root / "frames" / "manifest.json").write_text(
        '{"frames": 12345, "dropped": {"too_dark": 3}, "odd": [1, 2], "shards": [{"a": 1}]}'
    )
    return root


@pytest.fixture
def run_dir(whole_run, tmp_path):
    make_store(tmp_path / "run" / "demos")
    return shutil.copytree(whole_run, tmp_path / "run", dirs_exist_ok=True)


class Page(HTMLParser):
    """Checks nesting, and collects what could reach out."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "path"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "poster", "data", "action", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def parse(html):
    page = Page()
    page.feed(html)
    assert page.open == []
    page.text = re.sub(r"\s+", " ", " ".join(page.text))
    return page


def test_the_page_is_whole_and_reaches_nowhere(run_dir, tmp_path):
    stages = [
        Stage(stage="collect", command="pixio-robot collect env.task=Lift", seconds=100.5),
        Stage(stage="pretrain", command="pixio-robot pretrain", seconds=3725.0),
    ]
    machine = {"versions": {"torch": "2.11.0"}, "device": "cpu"}
    out = write_report(collect_inputs(run_dir, (), stages, machine), tmp_path / "public" / "report.html")
    html = out.read_text()
    page = parse(html)
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", html)
    assert page.tags.count("video") >= 3
    assert page.tags.count("img") == 4
    assert "not run" not in page.text.lower()
    assert "None in this run" not in page.text
    assert "episodes 4 successes 2 steps" in page.text
    assert "<bc_pixio> & co" in page.text  # labels are text, never markup
    assert "pixio-robot collect env.task=Lift" in page.text
    assert "1 h 02 min" in page.text
    assert "12,345" in page.text
    assert "odd 1, 2 shards 1" in page.text
    assert sorted(path.name for path in out.parent.iterdir()) == [
        *("report.html", "report.md", "results.csv", "results.json"),
    ]
    rows = list(csv.DictReader((out.parent / "results.csv").open()))
    assert {row["name"] for row in rows} == {"bc_pixio", "bc_random", "random"}
    assert float(rows[0]["rate"]) >= float(rows[1]["rate"])
    assert "| frames" not in (out.parent / "report.md").read_text()


@pytest.mark.parametrize("part", ["pretrain", "policies", "evaluations", "frames", "demos"])
def test_any_part_alone_is_reported(run_dir, tmp_path, part):
    alone = tmp_path / "alone"
    alone.mkdir()
    (run_dir / part).rename(alone / part)
    page = parse(write_report(collect_inputs(alone), tmp_path / "report.html").read_text())
    assert "Not run" in page.text
    write_report(collect_inputs(run_dir), tmp_path / "without" / "report.html")


def test_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        collect_inputs(tmp_path / "missing")
    with pytest.raises(UserError, match="nothing to report"):
        collect_inputs(tmp_path)


@pytest.mark.parametrize(
    ("pixio", "random", "shift", "words"),
    [
        (
            71,
            40,
            0,
            r"^Frozen Pixio 71/100 \(61–79\s%\) beats Frozen random 40/100 \(31–50\s%\): paired exact p < 0.0001",
        ),
        (50, 48, 30, "does not beat Frozen random 48/100 .* by more than chance would: paired exact p = "),
        (20, 60, 0, "Frozen Pixio 20/100 .* is worse than Frozen random 60/100"),
    ],
)
def test_headlines_say_what_the_numbers_say(tmp_path, make_spec, pixio, random, shift, words):
    write_evaluation(tmp_path, make_spec(), "pixio", pixio)
    write_evaluation(tmp_path, make_spec(), "random", random, shift=shift)
    assert re.search(words, headlines(collect_inputs(tmp_path))[0])


def test_pairs_have_the_same_method_and_the_best_is_compared(tmp_path, make_spec):
    for policy in ("bc", "diffusion"):
        for encoder, successes in (("pixio", 60), ("random", 50), ("none", 5), ("resnet", 90)):
            write_evaluation(tmp_path, make_spec(), encoder, successes + (policy == "bc"), policy=policy)
    tables = comparison_tables(collect_inputs(tmp_path))
    assert [len(table.rows) for table in tables] == [6, 6, 7]
    for row in [*tables[0].rows, *tables[1].rows]:
        assert row.first.summary.policy == row.second.summary.policy
    assert {row.second.summary.name for row in tables[2].rows} == {"bc_resnet"}
    sentences = headlines(collect_inputs(tmp_path))
    assert len(sentences) == 4
    assert sentences[0].startswith("Frozen Pixio (bc) 61/100")
    assert " Frozen random (bc) 51/100" in sentences[0]


def test_names_say_no_more_than_tells_them_apart_and_many_pairs_are_counted(tmp_path, make_spec):
    for seed in range(5):
        for encoder, successes in (("pixio", 60), ("random", 60 if seed else 20), ("none", 5)):
            path = write_evaluation(tmp_path, make_spec(), encoder, successes, training_seed=seed)
            path.rename(path.with_name(f"{encoder}-{seed}"))
    for path in (tmp_path / "evaluations").iterdir():
        for name in ("summary.json", "identity.json"):
            (path / name).write_text(json.dumps(json.loads((path / name).read_text()) | {"name": path.name}))
    inputs = collect_inputs(tmp_path)
    assert {each.title for each in inputs.evaluations if each.summary.encoder == "none"} == {
        f"No vision (none-{seed})" for seed in range(5)
    }
    assert headlines(inputs) == [
        "Pixio against its frozen random encoder, same method: no clear difference in 4 of 5 pairs, better in 1.",
        "Pixio against no vision, same method: better in 5 of 5 pairs.",
    ]


def test_a_pair_is_one_test_however_many_tables_have_it(tmp_path, make_spec):
    for encoder, successes in (("pixio", 60), ("random", 40), ("none", 5)):
        write_evaluation(tmp_path, make_spec(), encoder, successes)
    inputs = collect_inputs(tmp_path)
    assert sum(len(table.rows) for table in comparison_tables(inputs)) == 6
    assert any("p-values of the 3 paired comparisons" in text and "p < 0.017" in text for text in caveats(inputs))


def test_seeds_of_two_tasks_are_not_two_seeds_of_one(tmp_path, make_spec):
    one = write_evaluation(tmp_path, make_spec(), "pixio", 60, training_seed=0)
    one.rename(one.with_name("one"))
    write_evaluation(tmp_path, make_spec(task="Other"), "pixio", 60, training_seed=1)
    assert any("Every policy was trained once" in text for text in caveats(collect_inputs(tmp_path)))


def test_rounding_claims_no_certainty():
    assert interval_text(0.617, 0.79) == "62–79\N{NO-BREAK SPACE}%"
    assert interval_text(0.9962, 1.0) == "99.6–100.0\N{NO-BREAK SPACE}%"
    assert interval_text(0.0, 0.0038) == "0.0–0.4\N{NO-BREAK SPACE}%"
    assert interval_text(0.0, 0.05) == "0–5\N{NO-BREAK SPACE}%"
    assert (p_text(0.0496), p_text(0.0504), p_text(0.012)) == ("p = 0.0496", "p = 0.0504", "p = 0.012")


def test_no_headline_holds_one_method_against_another(tmp_path, make_spec):
    write_evaluation(tmp_path, make_spec(), "pixio", 30, policy="diffusion")
    write_evaluation(tmp_path, make_spec(), "random", 60, policy="bc")
    inputs = collect_inputs(tmp_path)
    assert headlines(inputs) == [f"Best of 2 evaluated: {rate_text(inputs.evaluations[0])}."]
    # The table still has the pair, with both names.
    assert comparison_tables(inputs)[0].rows[0].verdict == "worse"


def test_a_pair_acts_alike_if_it_can_and_the_headline_says_if_not(tmp_path, make_spec):
    less_noise = "8 actions of each chunk, noise_scale 0.5"
    for name, encoder, successes, acting in (
        ("pixio", "pixio", 60, "8 actions of each chunk"),
        ("pixio-half", "pixio", 70, less_noise),
        ("random", "random", 50, "8 actions of each chunk"),
        ("random-half", "random", 40, less_noise),
        ("blind", "none", 5, "8 actions of each chunk"),
        ("blind-asked", "none", 6, "8 actions of each chunk"),
    ):
        sight = "task='lift'" if name == "blind-asked" else ""
        path = write_evaluation(tmp_path, make_spec(), encoder, successes, acting=acting, sight=sight)
        path.rename(path.with_name(name))
    inputs = collect_inputs(tmp_path)
    titles = {each.directory.name: each.title for each in inputs.evaluations}
    assert titles["pixio-half"] == f"Frozen Pixio ({less_noise})"
    assert (titles["blind"], titles["blind-asked"]) == ("No vision", "No vision (task='lift')")
    pairs = {row.first.directory.name: row.second.directory.name for row in comparison_tables(inputs)[0].rows}
    assert pairs == {"pixio": "random", "pixio-half": "random-half", "blind": "random", "blind-asked": "random"}
    told = [sentence for sentence in headlines(inputs) if "acted differently" in sentence]
    assert len(told) == 1
    assert told[0].startswith(f"Frozen Pixio ({less_noise}) 70/100")
    assert f"They acted differently: {less_noise}; 8 actions of each chunk" in told[0]


def test_other_environments_and_other_seeds_are_not_compared(tmp_path, make_spec):
    write_evaluation(tmp_path, make_spec(), "pixio", 60)
    write_evaluation(tmp_path, make_spec(render_quality="fast"), "random", 50)
    write_evaluation(tmp_path, make_spec(), "none", 50, first_seed=5)
    inputs = collect_inputs(tmp_path)
    assert all(row.paired is None for table in comparison_tables(inputs) for row in table.rows)
    assert all("cannot be compared" in sentence for sentence in headlines(inputs))
    text = " ".join(caveats(inputs))
    for words in ("same environment", "same seeds", "fast quality", "trained once", "simulation"):
        assert words in text
    parse(render_html(inputs))


def test_episodes_that_were_found_not_to_repeat_are_no_pairs(tmp_path, make_spec):
    directories = [write_evaluation(tmp_path, make_spec(), encoder, 60) for encoder in ("pixio", "random")]
    path = directories[1] / SUMMARY
    summary = json.loads(path.read_text())
    del summary["repeats"]  # as of before it was noted
    path.write_text(json.dumps(summary))
    assert all(row.paired for table in comparison_tables(collect_inputs(tmp_path)) for row in table.rows)
    path.write_text(json.dumps(summary | {"repeats": False}))
    rows = [row for table in comparison_tables(collect_inputs(tmp_path)) for row in table.rows]
    assert {row.verdict for row in rows} == {f"{UNSEEDED}: cannot be paired"}


@pytest.mark.parametrize(("episodes", "successes", "points"), [(6, 0, 31), (6, 6, 31), (100, 2, 10)])
def test_what_a_rate_is_known_to_at_worst_does_not_depend_on_what_came_out(
    tmp_path, make_spec, episodes, successes, points
):
    write_evaluation(tmp_path, make_spec(), "pixio", successes, n=episodes)
    assert (
        f"With {episodes} episodes, a success rate is known to within ±{points} points in the worst case"
        in " ".join(caveats(collect_inputs(tmp_path)))
    )


def test_episodes_that_do_not_follow_from_their_seeds_are_no_pairs(tmp_path, make_spec):
    spec = make_spec(task="gymnasium:lab:Arm-v0", robot=OF_THE_TASK, source=f"as Gymnasium makes it, {UNSEEDED}")
    write_evaluation(tmp_path, spec, "pixio", 60)
    write_evaluation(tmp_path, spec, "random", 40)
    inputs = collect_inputs(tmp_path)
    assert {row.verdict for table in comparison_tables(inputs) for row in table.rows} == {
        f"{UNSEEDED}: cannot be paired"
    }
    # Nor is it known here whether it is a robot.
    assert any(found.endswith("simulations or real robots: gymnasium:lab:Arm-v0.") for found in caveats(inputs))
    assert "All evaluations ran in simulation" not in " ".join(caveats(inputs))


def test_no_exact_test_holds_where_an_evaluation_may_have_stopped_early(tmp_path, make_spec):
    write_evaluation(tmp_path, make_spec(), "random", 40)
    path = write_evaluation(tmp_path, make_spec(), "pixio", 60) / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"interval": SEQUENTIAL}))
    inputs = collect_inputs(tmp_path)
    assert all(row.paired is None for table in comparison_tables(inputs) for row in table.rows)
    assert "early stopping was enabled" in headlines(inputs)[0]


def test_levels_of_variation_are_environments_of_their_own(tmp_path, make_spec):
    for level, successes in (("none", (60, 40)), ("cluttered", (50, 10))):
        spec = make_spec(source=f"simulated: variation {level}")
        for encoder, count in zip(("pixio", "random"), successes, strict=True):
            write_evaluation(tmp_path / level, spec, encoder, count)
    inputs = collect_comparison([tmp_path / "none", tmp_path / "cluttered"])
    sentences = headlines(inputs)
    assert len(sentences) == 2
    for level, sentence in zip(("none", "cluttered"), sentences, strict=True):  # each beside its own twin
        assert sentence.count(f"({level})") == 2
        assert "beats" in sentence
    best = [table for table in comparison_tables(inputs) if "best" in table.title]
    assert [table.title for table in best] == [
        "Against the best in Line, Frozen Pixio (none)",
        "Against the best in Line, Frozen Pixio (cluttered)",
    ]
    assert [row.paired is not None for table in best for row in table.rows] == [True, True]
    assert "same environment" in " ".join(caveats(inputs))


def test_unfinished_and_empty_evaluations_are_named_not_counted(tmp_path, make_spec):
    directory = write_evaluation(tmp_path, make_spec(), "pixio", 60)
    (directory / "summary.json").unlink()
    (tmp_path / "evaluations" / "begun").mkdir()
    inputs = collect_inputs(tmp_path)
    assert inputs.evaluations == []
    assert inputs.unfinished == {"bc_pixio": 100, "begun": 0}
    assert headlines(inputs) == ["No policy has been evaluated yet."]
    assert "bc_pixio: unfinished, 100 episodes" in parse(render_html(inputs)).text
    assert render_csv(inputs).count("\n") == 1


def test_broken_files_are_named(tmp_path):
    metrics = tmp_path / "pretrain" / "metrics.jsonl"
    metrics.parent.mkdir()
    metrics.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert collect_inputs(tmp_path).pretraining.steps == [1]
    metrics.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"Line 2 of .*metrics.jsonl is not JSON"):
        collect_inputs(tmp_path)
    metrics.write_text('{"loss": 1.0}\n')
    with pytest.raises(UserError, match="lacks the key 'step'"):
        collect_inputs(tmp_path)


def test_a_resumed_run_counts_a_step_once_and_divergence_is_drawn(tmp_path):
    (tmp_path / "pretrain").mkdir()
    lines = [
        '{"step": 1, "loss": 2.0}',
        '{"step": 2, "loss": 1.0}',
        '{"step": 2, "loss": 1.5}',
        '{"step": 3, "loss": NaN}',
    ]
    (tmp_path / "pretrain" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    inputs = collect_inputs(tmp_path)
    assert inputs.pretraining.steps == [1, 2, 3]
    assert inputs.pretraining.losses[:2] == [2.0, 1.5]
    parse(render_html(inputs))


@pytest.mark.parametrize(
    "losses",
    [[1.0], [0.0, 0.0], [5.0] * 3, [1e-9, 1e4], [-3.0, 2.0, 1.0], [float("nan"), 1.0, float("inf"), 2.0], [1e300, 1.0]],
)
def test_curves_of_any_shape_stay_inside_their_frame(losses):
    svg = loss_svg(Curve(steps=list(range(len(losses))), losses=losses, seconds=None), "x")
    parse(svg)
    assert "nan" not in svg
    assert "inf" not in svg
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", svg):
        assert 0 <= float(x) <= 360
        assert 0 <= float(y) <= 210


def test_a_curve_without_a_finite_loss_says_so():
    assert "No finite loss" in loss_svg(Curve(steps=[1], losses=[float("nan")], seconds=None), "x")
    parse(interval_svg(0.0, 0.0, 0.16))


def test_what_was_measured_on_held_out_data_is_drawn_and_told(run_dir):
    policies = collect_inputs(run_dir).policies
    assert policies["bc_random"].held_out == {}
    told = "loss 0.07 (lowest 0.0625 after 100 steps), action error 0.0812"
    assert held_out_text(policies["bc_pixio"]) == told
    page, markdown = render_html(collect_inputs(run_dir)), render_markdown(collect_inputs(run_dir))
    assert page.count('class="held-out"') == 2
    assert f"Held-out episodes (dashed): {told}." in page
    assert f"Held-out images (dashed): {told}." in page
    assert f"| bc_pixio | 199 | 20 s | 0.005025 | {told} |" in markdown
    assert "| bc_random | 199 | 20 s | 0.005025 | – |" in markdown
    assert "<dt>eef_pos.x [m]</dt><dd>0.0123</dd><dt>gripper</dt><dd>0.15</dd>" in page
    assert "<dt>open the drawer</dt><dd>0.0456</dd>" in page
    shutil.rmtree(run_dir / "evaluations")
    assert headlines(collect_inputs(run_dir)) == [
        "No policy has been evaluated yet.",
        f"bc_pixio on held-out episodes: {told}.",
    ]


def test_a_held_out_loss_outside_the_training_losses_stays_inside_the_frame():
    curve = Curve(steps=[1, 2], losses=[1.0, 0.5], seconds=None, held_out={"loss": {1: 3.0, 2: 0.1}})
    heights = [float(y) for y in re.findall(r"[ML]-?[\d.]+ (-?[\d.]+)", loss_svg(curve, "x"))]
    assert len(heights) == 4
    assert all(0 <= y <= 210 for y in heights)


def test_videos_stay_within_the_budget_and_the_directory(run_dir):
    evaluations = collect_inputs(run_dir).evaluations
    whole = load_clips(evaluations, 10**9)
    assert all(group.left_out == 0 for group in whole)
    sizes = sorted(len(clip.source) + len(clip.poster) for group in whole for clip in group.shown)
    few = load_clips(evaluations, sizes[-1])
    assert 1 <= sum(len(group.shown) for group in few) < len(sizes)
    assert sum(group.left_out for group in few) > 0
    stranger = next(episode for episode in evaluations[0].episodes if episode.video)
    stranger.video = "../../stages.jsonl"
    assert sum(len(group.shown) for group in load_clips(evaluations, 10**9)) == len(sizes) - 1


def test_a_broken_video_or_panel_is_named(run_dir):
    video = next(run_dir.glob("evaluations/*/videos/*.mp4"))
    video.write_bytes(b"no video")
    with pytest.raises(UserError, match=video.name):
        render_html(collect_inputs(run_dir))
    video.unlink()
    (run_dir / "pretrain" / "panels" / "step_0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"step_0\.png is not a readable image"):
        render_html(collect_inputs(run_dir))


def test_failures_come_first(run_dir):
    for group in load_clips(collect_inputs(run_dir).evaluations, 10**9):
        outcomes = [clip.episode.success for clip in group.shown]
        assert outcomes == sorted(outcomes)
        # The grid of all, where there is more than one.
        assert (group.grid is not None) == (len(outcomes) > 1)


def test_several_runs_on_one_page(tmp_path, make_spec):
    for name, successes in (("first", 70), ("second", 40)):
        write_evaluation(tmp_path / name, make_spec(), "pixio", successes)
    inputs = collect_comparison([tmp_path / "first", tmp_path / "second"])
    out = write_report(inputs, tmp_path / "both" / "page.html")
    page = parse(out.read_text())
    assert "Frozen Pixio (first)" in page.text
    assert "Frozen Pixio (second)" in page.text
    assert "−30" in page.text  # the second against the best, on the seeds that both played
    assert "Pretraining" not in page.text
    assert sorted(path.name for path in out.parent.iterdir()) == ["page.csv", "page.html", "page.json", "page.md"]
    table = list(csv.DictReader((out.parent / "page.csv").open()))
    assert [row["title"] for row in table] == ["Frozen Pixio (first)", "Frozen Pixio (second)"]
    assert table[0]["directory"] == str(tmp_path / "first" / "evaluations" / "bc_pixio")
    (row,) = json.loads((out.parent / "page.json").read_text())["comparisons"]
    assert row["verdict"] == "worse"
    assert row["paired"]["difference"] == pytest.approx(-0.3)
    write_report(inputs, tmp_path / "dots" / "page.2.html")
    names = sorted(path.name for path in (tmp_path / "dots").iterdir())
    assert names == ["page.2.csv", "page.2.html", "page.2.json", "page.2.md"]
    with pytest.raises(UserError, match="holds no evaluation to compare"):
        collect_comparison([tmp_path / "first", tmp_path])
    with pytest.raises(UserError, match="the same run directory twice"):
        collect_comparison([tmp_path / "first", tmp_path / "first"])


def test_runs_whose_folders_are_called_the_same_are_told_apart(tmp_path, make_spec):
    runs = [tmp_path / name / "run" for name in ("first", "second")]
    for run in runs:
        write_evaluation(run, make_spec(), "pixio", 50)
        (run / "evaluations" / "late").mkdir()
        (run / "evaluations" / "late" / "episodes.jsonl").touch()
    inputs = collect_comparison(runs)
    assert {evaluation.title for evaluation in inputs.evaluations} == {f"Frozen Pixio ({run})" for run in runs}
    assert set(inputs.unfinished) == {f"{run}/late" for run in runs}


def test_durations():
    assert [duration_text(s) for s in (None, 0.52, 41.2, 200, 7500)] == [
        "–",
        "0.5 s",
        "41 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
