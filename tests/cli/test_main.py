"""The console command: help is instant, bad input is one sentence and exit code 2."""

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pixio_robot.cli.collect import CollectCommand
from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.main import COMMANDS, dispatch, main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """pixio-robot WORDS in an empty directory: (exit code, what went to stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pixio-robot", *words])
        return main(), capsys.readouterr().err

    return call


def imported_by(*lines: str) -> set[str]:
    """The modules that a process has which runs the commands one after the other."""
    code = (
        "import sys\nfrom pixio_robot.cli.main import main\n"
        f"for words in {[line.split() for line in lines]}:\n    sys.argv = ['pixio-robot', *words]\n    main()\n"
        "print('MODULES', *sys.modules)"
    )
    here = Path(__file__).parent
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here).stdout
    return set(output.split("MODULES")[1].split())


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "hydra", "numpy", "robosuite", "mujoco", "lerobot", "zarr"}
    assert not heavy & imported_by("--help")


SLOW = {"sympy", "scipy", "matplotlib", "mujoco", "robosuite", "lerobot", "transformers", "timm", "torchvision"}
"""Seconds each, and none is needed to compose settings: of those that only some runs use, imported there."""


def test_settings_of_a_training_are_composed_without_what_only_some_need() -> None:
    of_several_processes = {"torch.distributed.fsdp", "torch.distributed.tensor", "torch.distributed.checkpoint"}
    modules = imported_by("train --help", "pretrain --help", "distill --help", "train data=nowhere out=x")
    assert "pixio_robot.training.imitate" in modules
    assert not (SLOW | of_several_processes) & modules


def test_settings_of_what_does_not_train_are_composed_without_torch() -> None:
    helps = ("evaluate --help", "collect --help", "report --help", "data inspect --help")
    modules = imported_by(*helps, f"data import {Path(__file__).name} out=x")  # asks every format
    assert "pixio_robot.interop.aloha" in modules
    # cv2: not every machine has the libGL that one of its builds needs.
    assert not (SLOW | {"torch", "cv2"}) & modules


def test_the_check_above_can_fail() -> None:
    code = "import hydra, sys; print(*sys.modules)"
    assert "hydra" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()


def test_help_names_every_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pixio-robot"])
    assert main() == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


BAD_INPUT = [
    ("colect", "Unknown command 'colect'. Did you mean 'collect'?"),
    ("collect experiment=smok", "Did you mean 'smoke'?"),
    ("collect episods=3", "Did you mean 'episodes'?"),
    ("collect env.image_sise=64", "Did you mean 'env.image_size'?"),
    ("collect +episods=3", "Did you mean 'episodes'?"),
    ("collect ++env.image_sise=64", "Did you mean 'env.image_size'?"),
    ("train +polcy.horizon=2 out=x", "no setting 'polcy'. Did you mean 'policy'?"),
    (
        "train experiment=pixio_small16_footage out=x",
        "(in experiment/pixio_small16_footage.yaml, which is for `pretrain`)",
    ),
    ("train data=[früh] out=x", "a text that contains 'ü'"),
    ("train -m --cfg job out=x", "`train -m` has no option --cfg"),
    ("collect --cfg job episods=3", "Did you mean 'episodes'?"),
    ("collect episodes=abc", "episodes=abc must be an integer."),
    ("collect env.cameras={a:1}", "env.cameras takes a list: env.cameras=[A]"),
    ("collect env.render_quality=1.5", "Unknown env.render_quality '1.5'. Valid choices: fast, full."),
    ("collect success_only=maybe", "success_only=maybe must be true or false."),
    ("collect episodes=null", "episodes cannot be null."),
    ("evaluate out=x checkpoint=[a,b]", "checkpoint takes one text, not ['a', 'b']."),
    ("train out=x encoder=-1", "`train` cannot read encoder=-1: give the name of one option"),
    ("collect env=[1]", "`collect` cannot read env=[1]: give the name of one option"),
    ("train out=x optim=adam", "optim is a group of settings: optim.lr, optim.betas,"),
    ("train out=x policy.conditioning.pooling=patch_mlp", "Did you mean policy.conditioning.pooling.name=patch_mlp?"),
    ("train out=x policy.conditioning.pooling=[patch_mlp]", "is a group of settings: policy.conditioning.pooling.name"),
    ("train out=x trials.env=lift", "trials.env is a group of settings: choose one with env@trials.env=lift."),
    ("train out=x encoder.options=7", "encoder.options takes a mapping: encoder.options='{KEY: VALUE}'."),
    ("collect env=lft", "Did you mean 'lift'?"),
    ("collect env.task=Lfit", "Did you mean 'Lift'?"),
    ("collect env.render_quality=fasst", "Did you mean 'fast'?"),
    ("collect env.cameras=[font]", "front"),
    ("collect foo", "foo"),
    ("ingest source=footage[a]", "cannot parse 'source=footage[a]'"),
    ("footage env.robot=Pandda", "Did you mean 'Panda'?"),
    ("ingest source=nowhere", "nowhere"),
    ("ingest source=", "source"),
    ("pretrain data=[nowhere]", "nowhere"),
    ("pretrain data=nowhere", "data takes a list: data=[A]"),
    ("pretrain encoder.size=tinny", "Did you mean 'tiny'?"),
    ("pretrain mask.ratio=1.5", "1.5"),
    ("distill students=[{encodr:{size:tiny}}]", "Did you mean 'encoder'? Valid settings here: encoder, mask, name."),
    ("train", "'out' is required"),
    ("train out=x data=nowhere encoder=none", "nowhere"),
    ("collect out=", "must name the directory"),
    ("evaluate out=. checkpoint=random", "cannot hold the result"),
    ("train out=x env=lift", "Did you mean to override env@trials.env?"),
    ("train out=x policy=bcc", "Did you mean 'bc'?"),
    ("train out=x policy.conditioning.pooling.name=spatial_softmx", "spatial_softmax"),
    ("evaluate out=x checkpoint=nowhere", "There is no policy directory nowhere"),
    ("evaluate out=x", "'checkpoint' is required"),
    ("report run=nowhere", "There is no run directory nowhere"),
    ("data inspct x", "Did you mean 'inspect'?"),
    ("data inspect nowhere", "There is no demonstration store nowhere"),
    ("data verify", "takes one path"),
    ("quickstart experiment=smok", "Did you mean 'smoke'?"),
    ("quickstart foo=1", "no setting 'foo=1'"),
    ("doctor --gl", "does not take '--gl'"),
]


@pytest.mark.parametrize("text", ["früh/日本", "it's", "a=b", "a&b", "lr(1)", "#1", "~x", "a b"])
def test_texts_need_no_quotes(text: str) -> None:
    assert load_settings("collect", CollectCommand, [f"out={text}", f"++run={text}"]).out == text


def test_the_composed_settings_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["collect", "--cfg", "job", "env=stack", "episodes=7"]) == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    assert (printed.episodes, printed.env.task, printed.env.variation) == (7, "Stack", "none")


@pytest.mark.parametrize(("words", "message"), BAD_INPUT, ids=[words for words, _ in BAD_INPUT])
def test_bad_input_is_one_sentence(run, words: str, message: str, tmp_path: Path) -> None:
    code, error = run(*words.split())
    assert code == 2
    assert message in error
    assert error.startswith("pixio-robot: ")
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(run) -> None:
    from pixio_robot.errors import UserError

    with pytest.raises(UserError):
        run("--debug", "colect")


@pytest.mark.parametrize("kind", [RuntimeError, BaseException])
def test_a_full_disk_is_one_sentence(kind: type[BaseException], monkeypatch: pytest.MonkeyPatch, run) -> None:
    def fail(arguments: list[str]) -> int:
        raise kind("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("pixio_robot.cli.report.main", fail)
    code, text = run("report", "run=x")
    assert code == 2
    assert text == "pixio-robot: The disk is full. Free some space and run the same command again.\n"


def test_a_folder_that_may_not_be_written_to_is_one_sentence(monkeypatch: pytest.MonkeyPatch, run) -> None:
    def fail(arguments: list[str]) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/shared/sweep.html")

    monkeypatch.setattr("pixio_robot.cli.report.main", fail)
    code, text = run("report", "sweep=/shared")
    assert code == 2
    assert text.startswith("pixio-robot: Permission denied: /shared/sweep.html. Choose another folder")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_command_and_say_how_it_goes_on(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    monkeypatch.setattr("pixio_robot.cli.report.main", lambda _: signal.raise_signal(number))
    code, said = run("report", "run=x")
    assert code == 128 + number
    assert said.endswith("Run the same command again to continue where it stopped.\n")


@pytest.mark.sim
def test_ctrl_c_ends_a_command_that_a_script_put_into_the_background(tmp_path: Path) -> None:
    words = ["env=tabletop_reach", "env.cameras=[]", "checkpoint=random", "episodes=100000", "workers=1", "videos=0"]
    command = subprocess.Popen(
        [Path(sys.executable).with_name("pixio-robot"), "evaluate", *words, f"out={tmp_path}/chance"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell without job control ignores Ctrl-C for what it starts by `&`.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    while not (tmp_path / "chance" / "episodes.jsonl").is_file() and command.poll() is None:
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=200)
    assert command.returncode == 128 + signal.SIGINT
    assert said.endswith("Run the same command again to continue where it stopped.\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chance", "chance.stage.json"]
    assert not json.loads((tmp_path / "chance.stage.json").read_text())["finished"]
