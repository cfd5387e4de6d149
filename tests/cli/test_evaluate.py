"""`evaluate`: recorded rollouts train a policy, whose checkpoints are evaluated, here or on a Ray cluster."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import SPEC

from envs.config import EnvConfig
from envs.pool import worker_pool
from envs.spec import make_env_spec
from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.evaluate import EvaluateCommand, _evaluate_target
from pixio_robot.cli.evaluation_target import finished_policy, random_actions
from pixio_robot.cli.main import dispatch
from pixio_robot.cli.policy_training.trials import TrialsCommand, open_trials
from pixio_robot.cli.report import find_unshown_evaluations
from pixio_robot.cli.stages.stage import Stage, run_stage
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.evaluation import evaluate as evaluate_module
from pixio_robot.evaluation.results import append_episode, read_episodes, read_summary
from pixio_robot.types import UNKNOWN, EpisodeResult, Frame
from policies.acting import ActingConfig

pytestmark = pytest.mark.sim

ENV = ["env=tabletop_reach", "env.image_size=32", "env.cameras=[front]", "env.horizon=15", "device=cpu"]
FEW = [*ENV, "num_slots=3", "videos=2"]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_settings_are_finite(value):
    with pytest.raises(UserError, match=f"ensemble_weight = {value} must be a finite number"):
        load_settings("evaluate", EvaluateCommand, ["checkpoint=random", f"ensemble_weight={value}"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with random play, recorded, and a policy trained on it, with its last three checkpoints."""
    root = tmp_path_factory.mktemp("run")
    common = [f"run={root}"]
    chance = [f"out={root}/evaluations/chance", f"record={root}/demos", "workers=1", "episodes=4"]
    assert dispatch(["evaluate", *FEW, *common, "checkpoint=random", *chance]) == 0
    loop = ["loop.steps=6", "loop.save_every=2", "loop.keep_checkpoints=3", "validation_share=0", "batch_size=16"]
    train = ["encoder=none", "policy=bc", f"data={root}/demos", f"out={root}/policies/bc", "device=cpu"]
    assert dispatch(["train", *common, *loop, *train]) == 0
    return root


def evaluate(run: Path, name: str, *words: str) -> Path:
    out = run / "evaluations" / name
    policy = [f"checkpoint={run}/policies/bc", f"run={run}", f"out={out}", "seeds=[11,7,12,5]", "workers=1"]
    assert dispatch(["evaluate", *FEW, *policy, *words]) == 0
    return out


def test_rollouts_are_demonstrations(run: Path) -> None:
    store = DemoStore.open(run / "demos")
    assert sorted(store.seeds) == read_summary(run / "evaluations" / "chance").seeds
    assert store.images(0, "front").any()
    # What was trained on is not what is tested on.
    with pytest.raises(UserError, match="4 evaluation seeds were already used"):
        dispatch(["evaluate", *FEW, f"checkpoint={run}/policies/bc", "episodes=5", f"out={run}/evaluations/memory"])


def test_every_checkpoint_and_the_last_one_is_the_policy(run: Path) -> None:
    final = evaluate(run, "final")
    series = evaluate(run, "series", "every_checkpoint=true", "videos=0")
    names = sorted(path.name for path in series.glob("step_*"))
    assert names == ["step_00000002", "step_00000004", "step_00000006"]
    played = {name: [(e.seed, e.steps, e.episode_return) for e in read_episodes(series / name)] for name in names}
    assert played[names[-1]] == [(e.seed, e.steps, e.episode_return) for e in read_episodes(final)]
    assert read_summary(final).seeds == [11, 7, 12, 5]
    value = json.loads((series / "checkpoints.json").read_text())
    assert (value["best_of"], value["averaged"], value["steps"]) == (3, 3, [2, 4, 6])
    assert dispatch(["report", f"run={run}"]) == 0
    assert "Best of 3" in (run / "report.html").read_text()


def test_a_finished_evaluation_goes_on_with_more_episodes(run: Path) -> None:
    words = ["seeds=[]", "first_seed=300000"]
    whole = evaluate(run, "whole", *words, "episodes=5")
    grown = evaluate(run, "grown", *words, "episodes=2")
    evaluate(run, "grown", *words, "episodes=5")
    assert read_episodes(grown) == read_episodes(whole)
    once, twice = read_summary(whole), read_summary(grown)
    assert (twice.resumed_episodes, twice.seeds) == (2, once.seeds)
    assert (twice.rate, twice.low, twice.high) == (once.rate, once.low, once.high)
    assert [path.name for path in sorted((grown / "videos").iterdir())] == [
        path.name for path in sorted((whole / "videos").iterdir())
    ]
    with pytest.raises(UserError, match="episodes: 5 then, 3 now"):
        evaluate(run, "grown", *words, "episodes=3")


def test_other_noise_says_nothing_new_of_a_policy_that_draws_none(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual, other = evaluate(run, "usual", "videos=0"), evaluate(run, "other", "videos=0", "noise_seed=3")
    assert "noise_seed=3 has no effect: this policy is deterministic" in capsys.readouterr().out
    assert read_summary(other).acting == read_summary(usual).acting
    assert read_episodes(other) == read_episodes(usual)


def test_episodes_that_were_solved_but_not_at_their_end_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """LeRobot counts them as successes."""

    def result(seed: int, success: bool, first_success: int | None) -> EpisodeResult:
        ends = {"steps": 9, "episode_return": 1.0, "highest_reward": 1.0}
        return EpisodeResult(seed=seed, success=success, first_success=first_success, **ends)  # type: ignore[arg-type]

    def play(*args: object, on_resume, on_episode, **_: object):
        earlier, later = [result(0, False, 3), result(1, True, 9)], [result(2, False, None), result(3, False, 5)]
        on_resume(earlier)
        for one in later:
            on_episode(one)
        for one in [*earlier, *later]:
            append_episode(tmp_path, one)
        return evaluate_module.summarise(target.policy, SPEC, [*earlier, *later])

    monkeypatch.setattr(evaluate_module, "evaluate", play)
    command = load_settings("evaluate", EvaluateCommand, [*ENV, "checkpoint=random"])
    target = random_actions("chance", (np.zeros(2), np.ones(2)))
    _evaluate_target(command, None, target, None, tmp_path, True)  # type: ignore[arg-type]
    told = capsys.readouterr().out
    assert "1 of 4 succeeded" in told
    assert "; 2 more were solved, but no longer at their last step (first_success in episodes.jsonl)" in told


def test_on_a_cpu_an_episode_is_the_same_whatever_else_is_played(run: Path) -> None:
    target = finished_policy(f"{run}/policies/bc", "x")
    assert target.spec is not None
    states = np.random.default_rng(0).normal(size=(9, target.spec.state_dim)).astype(np.float32)

    def play(slots: int, seeds: dict[int, int]) -> dict[int, list[list[float]]]:
        """Actions of each seed, whose episode runs in a slot."""
        actor, _ = target.make_actor("TabletopReach", ActingConfig(execute=1), slots, torch.device("cpu"))
        for slot, seed in seeds.items():
            actor.reset(slot, seed)
        steps = [actor.act({slot: Frame({}, state + seed) for slot, seed in seeds.items()}) for state in states]
        return {seed: [step[slot].tolist() for step in steps] for slot, seed in seeds.items()}

    together = play(4, {0: 5, 1: 6, 2: 7, 3: 8})
    for seed in (5, 6, 7, 8):
        assert play(1, {0: seed})[seed] == together[seed]


@pytest.mark.slow
def test_what_is_called_otherwise_plays_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In somebody else's environment, whose rollouts train two policies: one under its names, one under others."""
    dots = ["env.task=gymnasium:painted:painted/Dot-v0", "env.make={width: 16}", "env.horizon=6"]
    dots += ["device=cpu", "workers=1", "num_slots=2", "episodes=2", "videos=1"]
    assert dispatch(["evaluate", *dots, "checkpoint=random", f"out={tmp_path}/chance", f"record={tmp_path}/same"]) == 0
    store = DemoStore.open(tmp_path / "same")
    assert [store.spec.cameras[name].width for name in ("pixels_top", "pixels_wrist")] == [16, 16]
    names = {"eye_1": "pixels_top", "eye_2": "pixels_wrist"}
    foreign = replace(
        store.spec,
        task="push the dot",
        simulator=UNKNOWN,
        robot=UNKNOWN,
        controller=UNKNOWN,
        cameras={mine: store.spec.cameras[theirs] for mine, theirs in names.items()},
        state_names=tuple("abcd"),
        action_names=("u", "v"),
    )
    other = DemoStore.create(tmp_path / "other", foreign)
    for number in range(len(store)):
        episode = store.episode(number)
        images = {mine: episode.images[theirs] for mine, theirs in names.items()}
        other.append(replace(episode, images=images))
    micro = ["encoder=random", "encoder.encoder.size=micro", "encoder.encoder.patch=8", "encoder.encoder.resize=16"]
    train = ["loop.steps=2", "validation_share=0", "batch_size=4", "policy=bc", "device=cpu", *micro]
    for name in ("same", "other"):
        assert dispatch(["train", *train, f"data={tmp_path}/{name}", f"out={tmp_path}/policies/{name}"]) == 0

    def play(name: str, *words: str) -> list[EpisodeResult]:
        out = f"out={tmp_path}/played_{name}"
        assert dispatch(["evaluate", *dots, "seeds=[7,8]", f"checkpoint={tmp_path}/policies/{name}", out, *words]) == 0
        return read_episodes(tmp_path / f"played_{name}")

    mapping = "cameras={eye_1: pixels_top, eye_2: pixels_wrist}"
    with pytest.raises(UserError, match=r"eye_1.*add cameras='\{eye_1: pixels_top, .*\}' by_position=true"):
        play("other")
    with pytest.raises(UserError, match=r"trials\.by_position=true"):
        # The same words in training.
        dots_of_trials = [f"trials.{word}" for word in dots[:3]]
        again = [f"data={tmp_path}/other", f"out={tmp_path}/no", "trials.every=1"]
        dispatch(["train", *train, *again, *dots_of_trials, f"trials.{mapping}"])
    assert play("other", mapping, "by_position=true") == play("same")
    summary = read_summary(tmp_path / "played_other")
    assert summary.sight == "cameras='{eye_1: pixels_top, eye_2: pixels_wrist}' by_position=true"
    assert summary.mean_highest_reward == pytest.approx(
        np.mean([episode.highest_reward for episode in read_episodes(tmp_path / "played_same")])
    )
    assert "not used, because they are neither colour images nor vectors: depth" in capsys.readouterr().out


def test_mappings_arrive_in_the_rollouts_of_a_training(tmp_path: Path) -> None:
    task, make = "gymnasium:painted:painted/Dot-v0", {"width": 16, "wind": "it's a, b = {c}"}
    settings = TrialsCommand(
        every=1, env=EnvConfig(task=task, make=make), cameras={"a": "pixels_top"}, by_position=True
    )
    env = make_env_spec(settings.env)
    learned = replace(env, cameras={"a": env.cameras["pixels_top"]})
    words = open_trials(settings, str(tmp_path), learned)._command(tmp_path / "model", tmp_path / "results")
    command = load_settings("evaluate", EvaluateCommand, words[words.index("evaluate") + 1 :])
    assert (command.env, command.to_arguments()) == (settings.env, "cameras='{a: pixels_top}' by_position=true")
    # One key of a mapping is a setting like others, and so is one more.
    command = load_settings(
        "evaluate", EvaluateCommand, ["checkpoint=x", f"env.task={task}", "env.make.width=8", "cameras.b=c"]
    )
    assert (command.env.make, command.cameras) == ({"width": 8}, {"b": "c"})


def test_a_policy_of_another_environment_names_its_settings(run: Path) -> None:
    with pytest.raises(UserError, match=r"task: 'TabletopReach' against 'Lift'.* add env\.task=TabletopReach\.$"):
        dispatch(["evaluate", f"checkpoint={run}/policies/bc", f"out={run}/evaluations/elsewhere"])
    spec = replace(finished_policy(str(run / "policies/bc"), "bc").spec, task="TabletopPush")
    with pytest.raises(UserError, match=r"against 'TabletopReach'\. .* add trials\.env\.task=TabletopPush\.$"):
        open_trials(TrialsCommand(every=1, env=EnvConfig(task="TabletopReach")), str(run), spec)


def test_what_does_not_go_together_is_refused(run: Path) -> None:
    for words, message in (
        (["checkpoint=random", "every_checkpoint=true"], "random has no checkpoints"),
        (["checkpoint=random", "by_position=true"], "by_position=true only applies to policies"),
        ([f"checkpoint={run}/policies/bc", "cameras=[front]"], "cameras takes a mapping"),
        (["checkpoint=random", "env.make={width: 3}"], "make applies only to Gymnasium environments"),
        ([f"checkpoint={run}/policies/bc", "every_checkpoint=true", "record=x"], "record= keeps the episodes of one"),
        ([f"checkpoint={run}/policies/bc", "every_checkpoint=true", "stop.rule=WIDTH"], "leave out stop.rule"),
        ([f"checkpoint={run}/policies/bc/model", "every_checkpoint=true"], "has no training checkpoints"),
    ):
        with pytest.raises(UserError, match=message):
            dispatch(["evaluate", *FEW, *words, f"out={run}/evaluations/refused"])
        assert not (run / "evaluations" / "refused").exists()


def test_damaged_weights_are_told_before_any_simulator_starts(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run / "policies" / "bc" / "model", tmp_path / "bc")
    weights = tmp_path / "bc" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    monkeypatch.setattr(worker_pool, "make_pool", lambda *_, **__: pytest.fail("simulators started"))
    with pytest.raises(UserError, match="safetensors"):
        dispatch(["evaluate", *FEW, f"checkpoint={tmp_path}/bc", f"out={tmp_path}/damaged"])


@pytest.mark.slow
def test_a_ray_cluster_and_a_forkserver_give_the_same_results_by_the_same_command(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    here = evaluate(run, "here", "workers=2")
    forked = evaluate(run, "forked", "start_method=forkserver")
    # Two machines of one core, as far as Ray can tell.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        there = evaluate(run, "there", "executor=ray", "workers=2")
    finally:
        cluster.shutdown()
    assert read_episodes(here) == read_episodes(forked) == read_episodes(there)
    assert (there / "videos" / "grid.mp4").exists() == (here / "videos" / "grid.mp4").exists()


def test_an_evaluation_is_stale_when_the_one_it_was_held_against_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pixio_robot.cli.evaluate._evaluate", lambda command: not Path(command.out).mkdir())
    words = ["evaluate", "checkpoint=random", f"out={tmp_path / 'new'}", "stop.rule=VERSUS"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "episodes.jsonl").write_text("one")
    assert dispatch([*words, f"stop.versus={tmp_path / 'a'}"]) == 0
    (tmp_path / "a").rename(tmp_path / "b")
    assert dispatch([*words, f"stop.versus={tmp_path / 'b'}"]) == 0
    assert "is up to date" in capsys.readouterr().out
    (tmp_path / "b" / "episodes.jsonl").write_text("two")
    with pytest.raises(UserError, match=r"other settings \(stop\.versus: '1 file, 3 bytes, .*' then"):
        dispatch([*words, f"stop.versus={tmp_path / 'b'}"])


def test_runs_are_compared_on_one_page(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two"):
        dispatch(["report", f"compare=[{run}]"])
    with pytest.raises(UserError, match="one page at a time"):
        dispatch(["report", f"compare=[{run},{run}]", f"sweep={run}"])
    with pytest.raises(UserError, match=r"must end in \.html"):
        dispatch(["report", f"compare=[{run},{tmp_path}]", f"out={tmp_path}/page"])


def test_a_report_replaces_only_an_earlier_report(tmp_path: Path) -> None:
    own = ("results.csv", "results.json", "report.md", "report.html")
    for name in own:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="nothing to report"):
        dispatch(["report", f"run={tmp_path}"])
    run_stage(Stage("evaluate", str(tmp_path / "evaluations" / "begun"), {}), lambda: True)
    for name in own:
        with pytest.raises(UserError, match=rf"holds .*{name}.*, not made by pixio-robot"):
            dispatch(["report", f"run={tmp_path}"])
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    for _ in range(2):
        assert dispatch(["report", f"run={tmp_path}"]) == 0
    assert all((tmp_path / name).is_file() for name in own)


def test_a_report_names_the_evaluations_that_lie_elsewhere(tmp_path: Path) -> None:
    for place in ("evaluations/shown", "policies/bc/trials/step_00000001/evaluation", "mine"):
        run_stage(Stage("evaluate", str(tmp_path / "run" / place), {}), lambda: True)
    assert find_unshown_evaluations(tmp_path / "run") == [str(tmp_path / "run" / "mine")]
    assert find_unshown_evaluations(tmp_path) == [
        str(tmp_path / "run" / place) for place in ("evaluations/shown", "mine")
    ]


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("policies/flow", "flow"),
        ("a/flow/model", "flow"),
        ("random", "random"),
        ("flow/", "flow"),
        ("a/flow/best/step_0020", "flow-step_0020"),
        ("flow/trials/step_0020/model", "flow-step_0020"),
        ("runs/best/bc", "bc"),
    ],
)
def test_results_are_named_after_the_policy(checkpoint, name):
    assert (
        load_settings("evaluate", EvaluateCommand, [f"checkpoint={checkpoint}", "run=r"]).out == f"r/evaluations/{name}"
    )
    assert load_settings("evaluate", EvaluateCommand, [f"checkpoint={checkpoint}", "out=elsewhere"]).out == "elsewhere"
