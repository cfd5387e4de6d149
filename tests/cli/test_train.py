"""`pixio-robot train` on demonstrations of a few frames: every way to adapt, cache, mix and spread."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_data import SPEC, make_episode, make_store
from safetensors.torch import load_file

from envs.config import EnvConfig, Variation
from envs.spec import make_env_spec
from pixio_robot.cli import train
from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.evaluate import EvaluateCommand
from pixio_robot.cli.evaluation_target import finished_policy, training_checkpoints
from pixio_robot.cli.policy_training.trials import TrialsCommand, open_trials
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import read_json
from pixio_robot.training.run_record import FitResult
from pixio_robot.types import Frame
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weights.formats import WeightFormat, save_encoder_as
from policies.acting import ActingConfig
from policies.persistence import load_policy, read_policy_config
from policies.player import PolicyPlayer

TINY = "encoder=random encoder.encoder.size=micro encoder.encoder.patch=8 encoder.encoder.resize=16"
SHORT = "loop.steps=4 loop.log_every=2 batch_size=4 validation_every=2 validation_batches=1 device=cpu"


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demos") / "demos"
    make_store(path, 6)
    return path


@pytest.fixture(scope="module")
def other_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demos") / "other"
    store = DemoStore.create(path, dataclasses.replace(SPEC, task="Other"))
    for seed in range(3):
        store.append(make_episode(100 + seed))
    return path


def run(data: Path | str, out: Path, *words: str, policy: str = "bc", encoder: str = TINY) -> Path:
    settings = [f"data={data}", f"out={out}", f"policy={policy}", *encoder.split(), *SHORT.split(), *words]
    assert train.main(settings) == 0
    return out


def metrics(out: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items()}


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("adapt.mode=FROZEN", "Frozen random encoder"),
        ("adapt.mode=LAST_K adapt.last_k=1 adapt.layer_decay=0.7", "Last blocks trained random encoder"),
        ("adapt.mode=LORA adapt.lora_rank=2", "LoRA random encoder"),
        ("adapt.mode=FULL adapt.layer_decay=0.7", "ViT from scratch"),
    ],
)
def test_every_adaptation_trains_and_opens_again(demos: Path, tmp_path: Path, words: str, label: str) -> None:
    out = run(demos, tmp_path / "run", *words.split())
    assert read_policy_config(out / "model")["extra"]["label"] == label
    if "LORA" in words:
        with pytest.raises(UserError, match="LoRA adapters separately"):
            training_checkpoints(str(out), "x")
    policy = load_policy(out / "model")
    assert not any(".lora_" in name for name in policy.state_dict())
    measured = metrics(out)
    assert np.isfinite(measured["validation_loss"])
    assert measured["validation_action_error"] > 0


def test_the_encoder_of_a_policy_is_not_called_pretrained(demos: Path, tmp_path: Path) -> None:
    """It may be the untrained one that the policy began with."""
    first = run(demos, tmp_path / "first", "loop.steps=1")
    out = run(demos, tmp_path / "second", "loop.steps=1", "adapt.mode=LORA", encoder=f"encoder.path={first}")
    assert read_policy_config(out / "model")["extra"]["label"] == "LoRA encoder of a policy"


def test_the_best_on_held_out_episodes_are_kept_and_a_run_is_trained_on(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = ("keep_best=1", "best_by=validation_loss", "loop.save_every=2")
    out = run(demos, tmp_path / "run", *best)
    ranking = read_json(out / "best" / "ranking.json")
    assert [look["step"] for look in ranking["looks"]] == [2, 4]
    lowest = min(ranking["looks"], key=lambda look: look["value"])
    assert ranking["kept"] == [lowest["step"]]
    kept = load_policy(out / "best" / f"step_{lowest['step']:08d}")
    last = load_policy(out / "model")
    assert (lowest["step"] == 4) == all(map(torch.equal, kept.state_dict().values(), last.state_dict().values()))
    with pytest.raises(UserError, match="none are held out"):
        run(demos, tmp_path / "other", "keep_best=1", "validation_share=0")

    with pytest.raises(UserError, match=r"loop\.steps: 4 then, 6 now.*loop\.extend=true to continue training"):
        run(demos, out, *best, "loop.steps=6")
    run(demos, out, *best, "loop.steps=6", "loop.extend=true")
    assert [look["step"] for look in read_json(out / "best" / "ranking.json")["looks"]] == [2, 4, 6]
    capsys.readouterr()
    run(demos, out, *best, "loop.steps=6")
    assert "is up to date" in capsys.readouterr().out


def test_what_to_do_without_a_pretrained_encoder_is_said(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no encoder at .*pretrain/model: .*encoder.path=.*encoder=resnet18.*encoder=none"
    ):
        run(demos, tmp_path / "bc", encoder=f"run={tmp_path}")


def test_a_recipes_crop_of_images_of_another_size_is_refused(demos: Path, tmp_path: Path) -> None:
    for crop, share in (("[4,4]", "13.3%"), ("[4,7]", "23.3%")):
        with pytest.raises(UserError, match=rf"leave {share} of the 12 x 10 pixels of camera 'front'.*some \[11,9\]"):
            run(demos, tmp_path / "bc", f"policy.conditioning.crop_shape={crop}", encoder="encoder=resnet18")


def test_a_run_that_was_copied_with_its_data_goes_on(demos: Path, tmp_path: Path) -> None:
    shutil.copytree(demos, tmp_path / "a" / "demos")
    run(tmp_path / "a" / "demos", tmp_path / "a" / "bc", encoder="encoder=none")
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    longer = ["loop.steps=6", "loop.extend=true"]
    out = run(tmp_path / "b" / "demos", tmp_path / "b" / "bc", *longer, encoder="encoder=none")
    assert read_json(out / "result.json")["steps"] == 6
    DemoStore.open(tmp_path / "b" / "demos").append(make_episode(50))
    with pytest.raises(UserError, match=r"data: '6 episodes, .* then, '7 episodes"):
        run(tmp_path / "b" / "demos", out, "loop.steps=8", "loop.extend=true", encoder="encoder=none")


@pytest.mark.parametrize("kind", ["pixio", "transformers"])
def test_a_policy_is_stale_when_its_encoder_has_other_weights_whatever_its_kind(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(command: train.TrainCommand) -> FitResult:
        Path(command.out).mkdir()
        return FitResult(steps=1, seconds=0.0, metrics={})

    monkeypatch.setattr(train, "_train", trained)
    weights, out = tmp_path / "weights.pth", tmp_path / "policy"
    weights.write_text("one")
    encoder = f"encoder={kind} encoder.name=some encoder.path="
    run("demos", out, encoder=f"{encoder}{weights}")
    shutil.copyfile(weights, tmp_path / "moved.pth")
    run("demos", out, encoder=f"{encoder}{tmp_path}/moved.pth")
    assert "is up to date" in capsys.readouterr().out
    weights.write_text("two")
    with pytest.raises(UserError, match=r"made with other settings \(encoder\.path: '1 file, 3 bytes, .*' then"):
        run("demos", out, encoder=f"{encoder}{weights}")


def test_failed_episodes_and_padding_are_told_once_before_training(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(demos, tmp_path / "run", "policy.horizon=16", "loop.steps=2")
    told = capsys.readouterr().out
    assert told.count(f"data filter {demos} out=NEW where=success") == 1
    assert told.count("train: policy.horizon=16 is longer than most episodes") == 1


def test_fine_tuning_by_adapters_begins_from_a_trained_head(demos: Path, tmp_path: Path) -> None:
    first = run(demos, tmp_path / "first")
    second = run(demos, tmp_path / "second", "adapt.mode=LORA", f"initial_policy={first}", "optim.lr=1e-12")
    before, after = (load_file(out / "model/model.safetensors") for out in (first, second))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_named_episodes_are_held_out_of_cached_views_too_and_a_run_goes_on_with_them(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = DemoStore.create(tmp_path / "held_out", SPEC)
    store.append(make_episode(77))
    words = [f"validation_data=[{store.path}]", "validation_where='episode == 5'", "train_where='episode > 0'"]
    crop = ["policy.conditioning.random_shift=1", "cached_views=2"]
    whole = run(demos, tmp_path / "whole", *words, *crop)
    assert "train: 4 episodes to train on, 2 held out" in capsys.readouterr().out
    assert metrics(whole)["validation_loss"] > 0
    parts = run(demos, tmp_path / "parts", *words, *crop, "loop.steps=2")
    with pytest.raises(UserError, match="validation_data"):
        run(demos, parts, *crop, "loop.extend=true")
    run(demos, parts, *words, *crop, "loop.extend=true")


def test_what_the_initial_policy_has_learned_is_neither_held_out_nor_evaluated_on(
    demos: Path, other_task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def learned(out: Path) -> set[str]:
        return set(read_policy_config(out / "model")["extra"]["learned"])

    half = ["validation_share=0.5", "policy.horizon=2"]
    first = run(demos, tmp_path / "first", *half, encoder="encoder=none")
    after = [*half, f"initial_policy={first}"]
    # By another seed and share, and elsewhere: what it holds out was held out before.
    shutil.copytree(demos, tmp_path / "copy")
    second = run(tmp_path / "copy", tmp_path / "second", *after, "loop.seed=5", encoder="encoder=none")
    assert learned(second) == learned(first)
    assert len(learned(first)) == 3
    third = run(demos, tmp_path / "third", *after, "validation_share=0.2", "loop.seed=5", encoder="encoder=none")
    assert len(learned(third)) == 5
    assert learned(third) > learned(first)
    fourth = run(other_task, tmp_path / "fourth", f"initial_policy={third}", "policy.horizon=2", encoder="encoder=none")
    assert {0, 5, 100, 102} < set(finished_policy(str(fourth), "x").train_seeds)
    assert learned(fourth) > learned(third)
    capsys.readouterr()
    all_of_it = run(demos, tmp_path / "all", "validation_share=0", "policy.horizon=2", encoder="encoder=none")
    with pytest.raises(UserError, match=r"was trained on every episode of .*set validation_share=0"):
        run(demos, tmp_path / "no", *half, f"initial_policy={all_of_it}", encoder="encoder=none")
    # Policies of before this was noted.
    path = first / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["extra"]["learned"]
    path.write_text(json.dumps(config))
    run(demos, tmp_path / "old", *after, encoder="encoder=none")
    assert "does not record its training episodes" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["resnet", "resnet18", "timm"])
def test_policies_on_other_encoders_open_again(demos: Path, tmp_path: Path, kind: str) -> None:
    words = {
        "resnet": "encoder=resnet encoder.resnet.width=16 encoder.resnet.blocks=1",
        "resnet18": "encoder=resnet18",
        "timm": "encoder=timm encoder.name=resnet10t encoder.pretrained=false encoder.resize=32 adapt.mode=FROZEN",
    }[kind]
    # In bfloat16, PyTorch's CPU kernels (oneDNN) leave the gradient of a strided kernel over a single pixel unset, and
    # that is what ResNet18 comes to on images this small.
    settings = ["policy.conditioning.cameras=[hand]", "loop.dtype=float32"]
    out = run(demos, tmp_path / "run", *settings, encoder=words)
    target = finished_policy(str(out), "x")
    actor, _ = target.make_actor("Test", ActingConfig(), 1, torch.device("cpu"))
    actor.reset(0, 1)
    frame = Frame({"hand": np.zeros((8, 8, 3), np.uint8)}, np.zeros(3, np.float32))
    assert actor.act({0: frame})[0].shape == (2,)


def test_features_are_kept_where_one_says(demos: Path, tmp_path: Path) -> None:
    before = sorted(demos.glob(".features/*"))
    words = ["policy.conditioning.cameras=[hand]", f"features_dir={tmp_path / 'features'}"]
    run(demos, tmp_path / "run", *words, encoder="encoder=resnet18 adapt.mode=FROZEN")
    assert len(list((tmp_path / "features").rglob("*.safetensors"))) == len(DemoStore.open(demos))
    assert sorted(demos.glob(".features/*")) == before


def test_features_may_be_computed_in_half_precision(demos: Path, tmp_path: Path) -> None:
    words = ["policy.conditioning.cameras=[hand]", f"features_dir={tmp_path / 'features'}"]
    run(demos, tmp_path / "exact", *words)
    run(demos, tmp_path / "rough", *words, "features_dtype=bfloat16")
    exact, rough = sorted(path.name for path in (tmp_path / "features").glob("*/*"))
    assert rough == f"{exact}.bfloat16"
    with pytest.raises(UserError, match=r"features_dtype: 'float32' then, 'bfloat16' now"):
        run(demos, tmp_path / "exact", *words, "features_dtype=bfloat16")
    with pytest.raises(UserError, match="features_dtype"):
        run(demos, tmp_path / "no", *words, "features_dtype=int8")
    with pytest.raises(UserError, match="none are cached here"):
        run(demos, tmp_path / "no", "features_dtype=bfloat16", "adapt.mode=full")


def test_crops_of_a_frozen_encoder_are_encoded_anew_or_once_in_several_views(demos: Path, tmp_path: Path) -> None:
    crop = ["policy.conditioning.crop_shape=[8,8]", "policy.conditioning.random_shift=1"]
    run(demos, tmp_path / "anew", *crop)
    run(demos, tmp_path / "cached", *crop, "cached_views=2")
    cached = {path.name for path in (demos / ".features").iterdir()}
    folders = {name.partition(".")[2] for name in cached}
    assert {"crop-8x8", "crop-8x8.shift-1.seed-0.view-1", "crop-8x8.shift-1.seed-0.view-2"} <= folders
    run(demos, tmp_path / "seed", *crop, "cached_views=2", "seed=1")
    assert {path.name for path in (demos / ".features").iterdir()} == cached
    with pytest.raises(UserError, match="cached_views needs a frozen encoder"):
        run(demos, tmp_path / "no", "cached_views=2", "adapt.mode=FULL")
    with pytest.raises(UserError, match="equal views"):
        run(demos, tmp_path / "no", "cached_views=2")
    with pytest.raises(UserError, match="leave color_jitter out"):
        run(demos, tmp_path / "no", *crop, "cached_views=2", "policy.conditioning.color_jitter=[.1,.1,.1,.1]")


@pytest.mark.parametrize("stores", [1, 2])
def test_one_policy_for_two_tasks_is_told_which(demos: Path, other_task: Path, tmp_path: Path, stores: int) -> None:
    data, settings = f"[{demos},{other_task}]", ["data_weights=[1,3]"]
    if stores == 1:
        both = DemoStore.create(tmp_path / "both", dataclasses.replace(SPEC, task="2 tasks of a set"))
        for path in (demos, other_task):
            store = DemoStore.open(path)
            for number in range(len(store)):
                both.append(dataclasses.replace(store.episode(number), info={"task": store.spec.task}))
        data, settings = str(tmp_path / "both"), []
    out = run(data, tmp_path / "run", *settings, "optim.lr=1e-2", "loop.steps=20")
    policy, measured = load_policy(out / "model"), metrics(out)
    assert policy.goals == {"Test": [1.0, 0.0], "Other": [0.0, 1.0]}
    by_task = [value for name, value in measured.items() if name.startswith("validation_task_error/")]
    assert len(by_task) == stores, "of a single store, the one episode that is held out is of one task"
    assert min(by_task) - 1e-5 < measured["validation_action_error"] < max(by_task) + 1e-5
    target = finished_policy(str(out), "x")
    frame = Frame(
        {name: np.zeros((camera.height, camera.width, 3), np.uint8) for name, camera in SPEC.cameras.items()},
        np.zeros(3, np.float32),
    )
    actions = []
    for task in ("Test", "Other"):
        spec = target.spec_for_task(task)
        assert spec is not None
        assert not spec.differences(dataclasses.replace(SPEC, task=task))
        actor, _ = target.make_actor(task, ActingConfig(), 1, torch.device("cpu"))
        actor.reset(0, 1)
        actions.append(actor.act({0: frame})[0])
    assert not np.allclose(*actions)
    assert target.spec_for_task("Third").differences(dataclasses.replace(SPEC, task="Third"))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("execute=0", "execute = 0 must lie between 1 and the policy's horizon, 8"),
        ("execute=9", "execute = 9 must lie between 1 and the policy's horizon, 8"),
        ("ensemble_weight=-2", "policy.ensemble_weight=-2.0 must be at least 0, or null"),
        ("inference_steps=3", "inference_steps=3 applies only to policies that sample actions from noise"),
    ],
)
def test_rollouts_that_the_policy_cannot_play_are_refused_before_training(
    demos: Path, tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"settings in trials do not fit the policy: {message}"):
        run(demos, tmp_path / "no", "trials.every=2", f"trials.{setting}", encoder="encoder=none")
    assert not (tmp_path / "no").exists()


def test_goals_of_a_file_go_along(demos: Path, tmp_path: Path) -> None:
    (tmp_path / "goals.json").write_text(json.dumps({"Test": [0.1, 0.2, 0.3], "Later": [1, 1, 1]}))
    out = run(demos, tmp_path / "run", f"goals={tmp_path}/goals.json", policy="flow")
    assert load_policy(out / "model").goals["Later"] == [1.0, 1.0, 1.0]


def test_what_the_initial_policy_is_told_of_each_task_stays(demos: Path, other_task: Path, tmp_path: Path) -> None:
    blind = {"encoder": "encoder=none"}
    first = run(f"[{demos},{other_task}]", tmp_path / "first", "optim.lr=1e-2", "loop.steps=20", **blind)
    start = [f"initial_policy={first}", "optim.lr=1e-12"]
    swapped = run(f"[{other_task},{demos}]", tmp_path / "swapped", *start, **blind)
    one = run(other_task, tmp_path / "one", *start, **blind)
    frame = Frame({}, np.zeros(3, np.float32))
    for task in ("Test", "Other"):
        before, *after = (PolicyPlayer(out / "model", task=task).act(frame) for out in (first, swapped, one))
        np.testing.assert_allclose(after, [before, before], atol=1e-5)
    third = DemoStore.create(tmp_path / "third", dataclasses.replace(SPEC, task="Third"))
    third.append(make_episode(70))
    with pytest.raises(UserError, match=r"trained on the tasks 'Test', 'Other', and not on 'Third': .* goals="):
        run(f"[{demos},{third.path}]", tmp_path / "no", *start, **blind)


def test_mistakes_are_named(demos: Path, other_task: Path, tmp_path: Path) -> None:
    for words, message in (
        (["data_weights=[1]"], "data_weights"),
        (
            ["trials.every=2", "trials.first_seed=0"],
            r"seeds were already used to collect demonstrations .*Set trials\.first_seed=",
        ),
        (["trials.every=2"], "trials.env does not match the environment of the demonstrations"),
        (["policy.conditioning.goal_dim=3"], "goal_dim=3, but the goals have 2 numbers"),
    ):
        with pytest.raises(UserError, match=message):
            run(f"[{demos},{other_task}]", tmp_path / "no", *words)
    with pytest.raises(UserError, match="leave it out with tell_task=false"):
        run(str(demos), tmp_path / "no", "goals=goals.json", "tell_task=false")
    with pytest.raises(UserError, match="a list of stores"):
        run("[]", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_rollouts_beside_a_training_are_of_its_settings_in_any_directory() -> None:
    env = EnvConfig(task="TabletopReach", cameras=["front", "hand"], variation=Variation.CAMERA, look_seed=3)
    settings = TrialsCommand(every=1, env=env, episodes=7)
    model, results = Path("runs/a=1,b's (2)/model"), Path("runs/a=1,b's (2)/evaluation")
    words = open_trials(settings, "runs", make_env_spec(env))._command(model, results)
    command = load_settings("evaluate", EvaluateCommand, words[words.index("evaluate") + 1 :])
    assert (Path(command.checkpoint), Path(command.out), command.env) == (model, results, env)
    assert (command.episodes, command.first_seed, command.videos) == (7, settings.first_seed, 0)


def test_the_last_checkpoint_acts_as_the_policy_with_the_averaged_weights(demos: Path, tmp_path: Path) -> None:
    out = str(run(demos, tmp_path / "bc", "use_ema=true", encoder="encoder=none"))
    frame, actions = Frame({}, np.zeros(3, np.float32)), []
    for target in (finished_policy(out, "x"), training_checkpoints(out, "x")[-1]):
        actor, _ = target.make_actor("Test", ActingConfig(), 1, torch.device("cpu"))
        actor.reset(0, 1)
        actions.append(actor.act({0: frame})[0])
    np.testing.assert_array_equal(*actions)


def test_the_sampler_of_a_trained_policy_may_take_other_steps(demos: Path, tmp_path: Path) -> None:
    flow = finished_policy(str(run(demos, tmp_path / "flow", policy="flow", encoder="encoder=none")), "x")
    bc = finished_policy(str(run(demos, tmp_path / "bc", encoder="encoder=none")), "x")
    frame = Frame({}, np.zeros(3, np.float32))
    actions = []
    for steps in (1, 7):
        actor, _ = flow.make_actor("Test", ActingConfig(inference_steps=steps), 1, torch.device("cpu"))
        actor.reset(0, 1)
        actions.append(actor.act({0: frame})[0])
    assert not np.allclose(*actions)
    with pytest.raises(UserError, match="sample actions from noise"):
        bc.make_actor("Test", ActingConfig(inference_steps=3), 1, torch.device("cpu"))


def start(data: Path, out: Path, processes: int, *words: str, encoder: str = TINY) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    settings = [f"data={data}", f"out={out}", "policy=bc", *encoder.split(), *SHORT.split(), *words]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "pixio_robot.cli.main", "train", *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "accumulate"), [("ddp", 1), ("ddp", 2), ("fsdp", 2)])
def test_two_processes_learn_what_one_does(demos: Path, tmp_path: Path, parallel: str, accumulate: int) -> None:
    """Padded steps differ in number between the parts of an update: the loss is a mean over all of them."""
    words = ["adapt.mode=FULL", "optim.lr=1e-3", "loop.log_every=1", "policy.horizon=4"]
    words += [f"loop.accumulate={accumulate}", "loop.dtype=float32"]
    start(demos, tmp_path / "one", 1, *words)
    start(demos, tmp_path / "two", 2, *words, f"loop.parallel={parallel}")
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for mine, theirs in zip(*lines, strict=True):
        for name in set(mine) - {"seconds", "examples_per_second", "data_wait_share"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name
    weights = [load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=1e-2, atol=2e-4)


SPREAD = """
import json, sys
import torch
import torch.distributed as dist
from pixio_robot.cli import train
from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.config.policy_group import register_policies
from pixio_robot.training.distributed.launch import destroy_process_group
from pixio_robot.vision.encoders.deferred import DeferredEncoder

rank, where, runs = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{where}/meet", world_size=2, rank=rank)
register_policies("train", ["policy=bc"])
made = []
was_made = DeferredEncoder.__init__
DeferredEncoder.__init__ = lambda self, *arguments: made.append(self) or was_made(self, *arguments)
for words in runs:
    train._train(load_settings("train", train.TrainCommand, [*words, "loop.parallel=fsdp"]))
print(len(made))
destroy_process_group()
"""


@pytest.mark.slow
def test_a_spread_policy_begins_with_the_weights_of_a_whole_one(demos: Path, tmp_path: Path) -> None:
    """Whatever its encoder is, however it is adapted, and wherever it begins; frozen ones are not cached here."""
    pixio = PixioEncoder(EncoderConfig(size="micro", patch=8, image_size=16, drop_path=0.1), seed=3)
    pixio.save(tmp_path / "ours")
    save_encoder_as(pixio, tmp_path / "theirs.pth", WeightFormat.OFFICIAL)
    head = run(demos, tmp_path / "head")
    cases = [
        ["adapt.mode=FULL", "policy.conditioning.share_encoder=false"],
        ["adapt.mode=LORA", f"encoder.path={tmp_path / 'theirs.pth'}"],
        ["adapt.mode=LAST_K", "adapt.last_k=1", f"encoder.path={tmp_path / 'ours'}"],
        ["policy.conditioning.crop_shape=[8,8]", f"encoder.path={tmp_path / 'ours'}"],
        ["adapt.mode=LORA", f"initial_policy={head}"],
    ]

    def words(case: list[str], out: Path) -> list[str]:
        pixio = "encoder=pixio encoder.resize=16"
        encoder = pixio.split() if any(word.startswith("encoder.path") for word in case) else TINY.split()
        # No update changes a weight by so little.
        still = ["optim.lr=1e-60", "loop.steps=1", "loop.dtype=float32", "policy=bc"]
        return [f"data={demos}", f"out={out}", *encoder, *SHORT.split(), *still, *case]

    runs = [words(case, tmp_path / f"two{number}") for number, case in enumerate(cases)]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SPREAD, str(rank), str(tmp_path), json.dumps(runs)], text=True, stdout=-1
        )
        for rank in range(2)
    ]
    assert [process.communicate(timeout=250)[0].splitlines()[-1] for process in both] == [str(len(cases))] * 2
    for number, case in enumerate(cases):
        assert train.main(words(case, tmp_path / f"one{number}")) == 0
        one, two = (load_file(tmp_path / f"{name}{number}/model/model.safetensors") for name in ("one", "two"))
        assert one.keys() == two.keys(), case
        assert [name for name in one if not torch.equal(one[name], two[name])] == [], case


@pytest.mark.slow
def test_two_processes_fine_tune_an_encoder_with_parts_of_other_tasks(demos: Path, tmp_path: Path) -> None:
    """CLIP's last norm gives no feature; several processes must not wait for its gradient."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes, image_size=16, patch_size=8))
    model.save_pretrained(tmp_path / "clip")
    side = {"height": 16, "width": 16}
    transformers.BitImageProcessor(size={"shortest_edge": 16}, crop_size=side).save_pretrained(tmp_path / "clip")
    encoder = f"encoder=transformers encoder.path={tmp_path / 'clip'}"
    start(demos, tmp_path / "two", 2, "adapt.mode=FULL", encoder=encoder)
    assert np.isfinite(metrics(tmp_path / "two")["loss"])


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Absolute poses, commanded and reached."""
    names = tuple(
        f"eef_{what}.{axis} [{unit}]" for what, unit in (("pos", "m"), ("axis_angle", "rad")) for axis in "xyz"
    )
    path = tmp_path_factory.mktemp("demos") / "poses"
    store = DemoStore.create(path, dataclasses.replace(SPEC, state_names=names, action_names=names))
    for seed in range(6):
        episode, rng = make_episode(seed), np.random.default_rng(seed)
        state, actions = (rng.normal(size=(len(episode), 6)).astype(np.float32) for _ in range(2))
        store.append(dataclasses.replace(episode, state=state, actions=actions))
    return path


RELATIVE = ["policy.action_pose_repr=relative", "policy.conditioning.obs_pose_repr=relative"]


def test_poses_may_be_relative_to_the_grippers(poses: Path, demos: Path, tmp_path: Path) -> None:
    out = run(poses, tmp_path / "relative", *RELATIVE)
    policy = load_policy(out)
    assert policy.statistics.relative_actions is not None
    assert policy.statistics.relative_state is not None
    assert np.isfinite(metrics(out)["validation_action_error"])
    with pytest.raises(UserError, match=r"was trained with policy\.action_pose_repr=relative, not absolute"):
        run(poses, tmp_path / "absolute", f"initial_policy={out}")
    run(poses, tmp_path / "further", *RELATIVE, f"initial_policy={out}")
    with pytest.raises(UserError, match="action_pose_repr = relative does not work with these demonstrations"):
        run(demos, tmp_path / "other", *RELATIVE)


@pytest.mark.slow
def test_two_processes_learn_relative_poses_as_one_does(poses: Path, tmp_path: Path) -> None:
    start(poses, tmp_path / "one", 1, *RELATIVE)
    start(poses, tmp_path / "two", 2, *RELATIVE, "loop.parallel=ddp")
    weights = [load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=1e-2, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], RELATIVE], ids=["absolute", "relative"])
def test_a_compiled_loss_trains_alike(poses: Path, tmp_path: Path, words: list[str]) -> None:
    losses = [
        metrics(
            run(poses, tmp_path / word, f"loop.compile={word}", "loop.dtype=float32", *words, encoder="encoder=none")
        )["loss"]
        for word in ("true", "false")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
