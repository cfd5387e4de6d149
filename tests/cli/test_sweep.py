"""`-m` runs a command once for each combination of values."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from demo_data import make_store
from hydra.core.global_hydra import GlobalHydra

from pixio_robot.cli.collect import CollectCommand
from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.cli.main import dispatch, main
from pixio_robot.cli.report import main as report
from pixio_robot.cli.stages.fingerprint import fingerprint_content
from pixio_robot.cli.stages.stage import stamp_path
from pixio_robot.errors import UserError
from pixio_robot.files import write_json
from pixio_robot.training.run_record import FitResult


def test_one_run_for_each_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "demos")
    words = ["train", "-m", "run=.", "data=demos", "encoder=none", "policy=bc", "loop.steps=2", "batch_size=2,3"]
    out = "out=out/${batch_size}-${hydra:job.name}"  # that is how Slurm lists its jobs
    monkeypatch.setattr(sys, "argv", ["pixio-robot", *words, "device=cpu", out])
    assert main() == 0
    assert [json.loads((tmp_path / f"out/{n}-train/result.json").read_text())["steps"] for n in (2, 3)] == [2, 2]
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "multirun").exists()


def test_a_script_that_uses_hydra_itself_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "demos")
    words = ["train", "run=.", "data=demos", "encoder=none", "policy=bc", "loop.steps=2", "device=cpu"]
    root, line = logging.getLogger(), sys.argv
    before = root.level, list(root.handlers)
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        assert dispatch([*words, "out=one"]) == 0
        assert dispatch([*words, "-m", "batch_size=2,3", "out=out/${batch_size}"]) == 0
        assert GlobalHydra.instance().hydra is mine
    assert (tmp_path / "out" / "3" / "result.json").is_file()
    assert (root.level, root.handlers, sys.argv) == (*before, line)
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_ctrl_c_ends_the_sweep_and_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "demos")
    begun = []

    def fit(*_: object, **__: object) -> FitResult:
        begun.append(1)
        return FitResult(steps=1, seconds=0.0, metrics={}, interrupted=True)

    monkeypatch.setattr("pixio_robot.training.imitate.fit", fit)
    words = ["train", "data=demos", "encoder=none", "policy=bc", "device=cpu", "run=."]
    with pytest.raises(KeyboardInterrupt):
        dispatch([*words, "-m", "batch_size=2,3", "out=out/${batch_size}"])
    assert begun == [1]
    with pytest.raises(KeyboardInterrupt):
        dispatch([*words, "out=out/alone"])
    monkeypatch.setattr(sys, "argv", ["pixio-robot", *words, "out=out/main"])
    assert main() == 130
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")  # an error of one task may end the others
    with pytest.raises(SystemExit) as ended:
        dispatch([*words, "-m", "batch_size=2,3", "out=out/${batch_size}"])
    assert ended.value.code == 0


def test_training_settings_are_found_where_a_run_was_moved(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_evaluation: Callable[..., None],
) -> None:
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "cluster" / "mine"
    for name, rate in (("slow", 0.1), ("fast", 0.2)):
        evaluation, policy = old / "evaluations" / name, old / "policies" / name
        write_evaluation(evaluation, fingerprint=name)
        settings = {"checkpoint": f"cluster/mine/policies/{name}"}
        write_json(
            stamp_path(evaluation),
            {"stage": "evaluate", "out": f"cluster/mine/evaluations/{name}", "settings": settings},
        )
        write_json(stamp_path(policy), {"stage": "train", "out": "", "settings": {"optim.lr": rate, "seed": 0}})
    (tmp_path / "laptop").mkdir()
    old.rename(tmp_path / "laptop" / "run")
    assert report(["sweep=laptop/run", "out=page.html"]) == 0
    printed = capsys.readouterr().out
    assert "BC (bc, optim.lr=0.1)" in printed
    assert "BC (bc, optim.lr=0.2)" in printed
    assert "not known" not in printed
    assert (tmp_path / "page.svg").is_file()
    assert not list((tmp_path / "laptop").rglob("sweep.*"))
    assert "not finished" not in printed
    (tmp_path / "laptop/run/evaluations/late").mkdir()
    (tmp_path / "laptop/run/evaluations/late/episodes.jsonl").touch()
    for stamp in (tmp_path / "laptop").rglob("policies/*.stage.json"):
        stamp.unlink()
    assert report(["sweep=laptop/run", "out=page.html"]) == 0
    printed = capsys.readouterr().out
    assert "the training settings of 2 policies are unknown" in printed
    assert "left out laptop/run/evaluations/late, which have not finished" in printed


def test_policies_that_started_from_others_are_told_apart_but_not_by_their_seeds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_evaluation: Callable[..., None],
) -> None:
    monkeypatch.chdir(tmp_path)

    def train(name: str, **settings: object) -> None:
        start = settings.get("initial_policy")
        write_json(Path("old", name, "model", "config.json"), {"weights": name})
        inputs = {"data": "demos"} | ({"initial_policy": fingerprint_content(str(start))} if start else {})
        stamp = {"stage": "train", "out": f"old/{name}", "inputs": inputs, "settings": {"optim.lr": 1, **settings}}
        write_json(stamp_path(Path("old", name)), stamp)

    for seed in (0, 1):
        for rate in (0.1, 0.2):
            train(f"head-{rate}-{seed}", **{"seed": seed, "optim.lr": rate, "initial_policy": None})
        for name, start in (
            ("scratch", None),
            ("scratch-best", None),
            ("tuned", f"old/head-0.1-{seed}"),
            ("other", f"old/head-0.2-{seed}"),
        ):
            policy = f"{name}-{seed}" if name != "scratch-best" else f"scratch-{seed}/best/step_{seed}"
            if name != "scratch-best":
                train(policy, seed=seed, initial_policy=start)
            evaluation = Path("old/evaluations", f"{name}-{seed}")
            write_evaluation(evaluation, fingerprint=str(evaluation), training_seed=seed)
            settings = {"checkpoint": f"old/{policy}"}
            write_json(stamp_path(evaluation), {"stage": "evaluate", "out": str(evaluation), "settings": settings})
    monkeypatch.setattr("pixio_robot.cli.report.find_stale_evaluations", lambda _: [])
    Path("old").rename("new")
    assert report(["sweep=new"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split(": ")[1] for line in printed.splitlines() if "training seeds" in line]
    assert sorted(rows) == [
        "BC (bc, checkpoint=best, initial_policy=–, initial_policy.optim.lr=–)",
        "BC (bc, checkpoint=last, initial_policy=given, initial_policy.optim.lr=0.1)",
        "BC (bc, checkpoint=last, initial_policy=given, initial_policy.optim.lr=0.2)",
        "BC (bc, checkpoint=last, initial_policy=–, initial_policy.optim.lr=–)",
    ]


def test_a_sweep_ends_with_the_highest_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    codes = {1: 0, 2: 3, 3: 1}
    words = ["-m", "run=.", "episodes=1,2,3"]
    assert run_command_line("collect", CollectCommand, lambda command: codes[command.episodes], words) == 3


def test_a_run_that_fails_fails_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "-m",
        "run=.",
        "data=demos",
        "policy=bc",
        "encoder=none",
        "batch_size=2,-1",
        "out=o/${batch_size}",
    ]
    monkeypatch.setattr(sys, "argv", ["pixio-robot", *words])
    assert main() == 2
    assert "demos" in capsys.readouterr().err


def test_every_run_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    errors = {1: UserError("one"), 2: UserError("two"), 3: RuntimeError("three")}

    def run(command: CollectCommand) -> int:
        if command.episodes in errors:
            raise errors[command.episodes]
        return 0

    with pytest.raises(UserError, match="one"):
        run_command_line("collect", CollectCommand, run, ["-m", "run=.", "episodes=1,2,3,4,-1"])
    told = capsys.readouterr().err
    assert "pixio-robot: this run failed: two" in told
    assert "RuntimeError: three" in told
    assert "this run failed: episodes=-1" in told
    assert "failed: one" not in told, "the caller prints what is raised"


CALLBACK = "{hydra: {callbacks: {x: {_target_: builtins.print}}}}"
HANDLER = "{version: 1, handlers: {x: {(): subprocess.getoutput, cmd: touch ran}}, root: {handlers: [x]}}"
FINE = "{loop: {steps: 2}}"


@pytest.fixture
def sweep_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """sweep_beside(text, WORDS): a sweep where the experiment `hostile` is the text, and others are fine or not."""

    def sweep(text: str, *words: str) -> int:
        shutil.copytree(config_directory(), tmp_path / "configs")
        (tmp_path / "configs/experiment/more").mkdir()
        for name, content in (("hostile", text), ("more/further", CALLBACK), ("fine", FINE), ("more/fine", FINE)):
            (tmp_path / f"configs/experiment/{name}.yaml").write_text(f"# @package _global_\n{content}\n")
        for module in ("compose", "overrides", "hydra_code"):
            monkeypatch.setattr(f"pixio_robot.cli.config.{module}.config_directory", lambda: tmp_path / "configs")
        monkeypatch.chdir(tmp_path)
        make_store(tmp_path / "demos")
        settings = ["run=.", "data=demos", "encoder=none", "policy=bc", "batch_size=2,3", "device=cpu"]
        return dispatch(["train", "-m", *settings, "out=out/${batch_size}", *words])

    return sweep


@pytest.mark.parametrize(
    ("word", "text", "part"),
    [
        ("experiment=hostile", CALLBACK, "callbacks"),
        ("+experiment=fine,hostile", CALLBACK, "callbacks"),
        ("experiment=hostile", f"{{hydra: {{job_logging: {HANDLER}}}}}", "job_logging"),
        ("+experiment=fine,hostile", f"{{hydra: {{hydra_logging: {HANDLER}}}}}", "hydra_logging"),
        ("experiment=hostile", "{hydra: {sweeper: {params: {+experiment/more: 'fine,further'}}}}", "callbacks"),
        ("experiment=hostile", "{hydra: {sweeper: {params: {+hydra.job_logging.root.class: x}}}}", "job_logging"),
    ],
)
def test_no_configuration_file_names_code_for_hydra_to_call(
    tmp_path: Path, sweep_beside: Callable[..., int], word: str, text: str, part: str
) -> None:
    with pytest.raises(UserError, match=rf"hydra\.{part} is set in a configuration file"):
        sweep_beside(text, word)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "ran").exists()


def test_the_command_line_may_set_what_files_may_not(tmp_path: Path, sweep_beside: Callable[..., int]) -> None:
    assert sweep_beside(CALLBACK, "experiment=fine", "hydra.job_logging.root.level=WARNING") == 0
    assert (tmp_path / "out/3/result.json").is_file()
