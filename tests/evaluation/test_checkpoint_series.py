"""Last, mean of the last ten, and best of k: each what it is called."""

import json
import shutil

import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.checkpoint_series import checkpoint_directory, read_series, series_text, write_series
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import evaluate
from pixio_robot.evaluation.report.build import write_report
from pixio_robot.evaluation.report.data import collect_inputs
from pixio_robot.evaluation.results import EvaluatedPolicy

STEPS = range(100, 1300, 100)


@pytest.fixture(scope="module")
def run_dir(line_pool, seeking_actor, tmp_path_factory):
    """Twelve checkpoints, the noisiest first, of one training."""
    root = tmp_path_factory.mktemp("series") / "run"
    for step in STEPS:
        who = EvaluatedPolicy(name="bc", label="Seeker", policy="bc", encoder="none", training_step=step)
        config = EvaluateConfig(episodes=20, videos=0)
        noise = 3.0 if step == 1200 else 400 / step
        directory = root / "evaluations" / "bc" / checkpoint_directory(step)
        evaluate(line_pool(4), seeking_actor(noise=noise), who, config, directory)
    write_series(root / "evaluations" / "bc")
    return root


def test_the_three_numbers(run_dir):
    series = read_series(run_dir / "evaluations" / "bc")
    assert series.steps == list(STEPS)
    assert series.last == series.rates[-1]
    assert series.mean_of_last == pytest.approx(sum(series.rates[2:]) / 10)
    assert series.best == max(series.rates) > series.last
    assert series.best_step == series.steps[series.rates.index(series.best)]
    assert series.best_of == 12
    stored = json.loads((run_dir / "evaluations" / "bc" / "checkpoints.json").read_text())
    assert (stored["best_of"], stored["mean_of_last"]) == (12, series.mean_of_last)


def test_the_best_is_always_labelled(run_dir, tmp_path):
    text = series_text(read_series(run_dir / "evaluations" / "bc"))
    assert "best of 12 checkpoints" in text
    assert "biased upwards" in text
    page = write_report(collect_inputs(run_dir), tmp_path / "report.html")
    assert "Best of 12" in page.read_text()
    assert "Mean of the last 10" in page.read_text()
    assert "biased upwards" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["checkpoints"]["bc"]["best_of"] == 12
    # A checkpoint is not a policy of its own: it competes with nobody.
    assert collect_inputs(run_dir).evaluations == []


def test_a_series_that_is_not_through_is_unfinished(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "evaluations" / "bc" / "checkpoints.json").unlink()
    assert collect_inputs(tmp_path / "run").unfinished == {"bc": 12 * 20}


def test_checkpoints_of_other_seeds_are_no_series(line_pool, seeking_actor, tmp_path):
    for step, first_seed in ((1, 0), (2, 50)):
        who = EvaluatedPolicy(name="bc", label="Seeker", policy="bc", encoder="none", training_step=step)
        config = EvaluateConfig(episodes=4, videos=0, first_seed=first_seed)
        evaluate(line_pool(2), seeking_actor(), who, config, tmp_path / checkpoint_directory(step))
    with pytest.raises(UserError, match="different seeds"):
        write_series(tmp_path)
    with pytest.raises(UserError, match="no evaluated checkpoint"):
        write_series(tmp_path / "nowhere")
