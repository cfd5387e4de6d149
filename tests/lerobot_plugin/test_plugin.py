"""LeRobot's own rollouts, with our policies and environments in them, are the rollouts that we make."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.envs import make_env_pre_post_processors
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.rollout.context import _load_pretrained_policy
from lerobot.scripts.lerobot_eval import rollout
from painted import Dot

from envs.config import EnvConfig
from envs.registry import make_env
from envs.spec import max_episode_steps
from pixio_robot.cli.main import dispatch
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.lerobot_plugin.environment import PixioRobotEnv, _LeRobotEnv
from pixio_robot.lerobot_plugin.policy import PixioRobotConfig
from policies.bc import BCConfig
from policies.chunking import ChunkedActor
from policies.config import ConditioningConfig
from policies.flow import FlowConfig
from policies.persistence import load_policy, read_policy_config, save_policy
from policies.registry import build_policy

BIN = Path(sys.executable).parent
SEEDS = [3, 8]
PLAIN = EnvConfig(task="TabletopReach", image_size=32, horizon=15)
WORDS = ["env=tabletop_reach", "env.image_size=32"]


def run(program: str, *words: str) -> str:
    done = subprocess.run([BIN / program, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reach")
    assert dispatch(["collect", *WORDS, "episodes=3", "workers=1", f"out={root}/demos"]) == 0
    words = ["encoder=random", "encoder.encoder.size=micro", "encoder.encoder.patch=8", "encoder.encoder.image_size=32"]
    words += ["policy=flow", "policy.observation_steps=2", "policy.inference_steps=2", "loop.steps=3", "batch_size=4"]
    assert dispatch(["train", f"data={root}/demos", f"out={root}/policy", "device=cpu", *words]) == 0
    return root / "policy"


def environment(**settings: Any) -> PixioRobotEnv:
    return PixioRobotEnv(task="tabletop_reach", settings=["image_size=32", "horizon=15"], **settings)


def config(checkpoint: Path | str, **settings: Any) -> PixioRobotConfig:
    return PixioRobotConfig(checkpoint=str(checkpoint), device="cpu", **settings)


def opened(checkpoint: Path, **settings: Any) -> Any:
    return make_policy(config(checkpoint, **settings), env_cfg=environment())


def played_by_lerobot(policy: Any, seeds: list[int]) -> dict[str, Any]:
    env_config = environment()
    vector = env_config.create_envs(len(seeds))["pixio_robot"][0]
    try:
        around = make_env_pre_post_processors(env_config, policy.config)
        return rollout(vector, policy, *around, *make_pre_post_processors(policy.config), seeds=seeds)
    finally:
        vector.close()


def played_here(checkpoint: Path, seeds: list[int], noise: list[int], **acting: Any) -> list[np.ndarray]:
    """Actions of each episode; `noise` are the seeds of its draws."""
    policy = load_policy(checkpoint / "model")
    actor = ChunkedActor(policy, acting.get("execute", policy.config.executed), batch_size=1)
    envs = [make_env(PLAIN) for _ in seeds]
    try:
        frames = {}
        for slot, env in enumerate(envs):
            actor.reset(slot, noise[slot])
            frames[slot] = env.reset(seeds[slot])
        steps = []
        for _ in range(max_episode_steps(PLAIN)):
            actions = actor.act(frames)
            steps.append(np.stack([actions[slot] for slot in range(len(envs))]))
            frames = {slot: env.step(actions[slot]).frame for slot, env in enumerate(envs)}
        return list(np.stack(steps, axis=1))
    finally:
        for env in envs:
            env.close()


@pytest.mark.parametrize("acting", [{}, {"execute": 2}])
def test_lerobot_plays_the_same_episodes(checkpoint: Path, acting: dict[str, int]) -> None:
    policy = opened(checkpoint, **acting)
    for noise in ([0, 1], [2, 3]):  # every episode draws anew
        found = played_by_lerobot(policy, SEEDS)
        for mine, theirs, done in zip(
            played_here(checkpoint, SEEDS, noise, **acting), found["action"].numpy(), found["done"], strict=True
        ):
            length = int(done.int().argmax()) + 1
            np.testing.assert_array_equal(mine[:length], theirs[:length])


class Replay(torch.nn.Module):
    """Actions (b, n, a) that were decided beforehand."""

    def __init__(self, actions: torch.Tensor) -> None:
        super().__init__()
        self.actions, self.config, self.step = actions, PixioRobotConfig(device="cpu"), 0

    def reset(self) -> None:
        self.step = 0

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.step += 1
        return self.actions[:, self.step - 1]


def test_lerobot_counts_the_successes_of_demonstrations_played_again(checkpoint: Path) -> None:
    demos = list(DemoStore.open(checkpoint.parent / "demos"))[:2]
    assert all(demo.success for demo in demos)
    actions = torch.zeros(3, 15, 4)  # the third does nothing
    for row, demo in enumerate(demos):
        actions[row, : len(demo.actions)] = torch.from_numpy(demo.actions)
    found = played_by_lerobot(Replay(actions), [*(demo.seed for demo in demos), demos[0].seed])
    ends = [len(demo.actions) - 1 for demo in demos] + [14]
    assert [int(done.int().argmax()) for done in found["done"]] == ends
    assert [bool(success[: end + 1].any()) for success, end in zip(found["success"], ends, strict=True)] == [1, 1, 0]
    for row, demo in enumerate(demos):
        assert found["reward"][row, : ends[row] + 1].tolist() == demo.rewards.tolist()


@pytest.mark.parametrize(("terminated", "truncated"), [(False, False), (True, False), (False, True)])
def test_the_last_step_decides_on_success(monkeypatch: pytest.MonkeyPatch, terminated: bool, truncated: bool) -> None:
    """As in `evaluate`; lerobot would count a success that the policy undid before the episode's end."""
    env = _LeRobotEnv(PLAIN, "reach", "reach the ball")
    observation, _ = env.env.reset(seed=0)
    monkeypatch.setattr(env.env, "step", lambda _: (observation, 0.0, terminated, truncated, {"success": True}))
    assert env.step(None)[4]["is_success"] == (terminated or truncated)


def test_the_environment_tells_what_its_demonstrations_do(checkpoint: Path) -> None:
    env = environment()
    assert env.fps == 20
    assert env.features["pixels/hand"].shape == (32, 32, 3)
    assert env.features_map["pixels/hand"] == "observation.images.hand"
    spec = load_policy(checkpoint / "model").spec
    assert env.features["agent_pos"].shape == (spec.state_dim,)
    assert env.features["action"].shape == (spec.action_dim,)
    with pytest.raises(UserError, match="Did you mean 'tabletop_reach'"):
        PixioRobotEnv(task="tabletop_reac")
    with pytest.raises(UserError, match="image_siz"):
        PixioRobotEnv(task="tabletop_reach", settings=["image_siz=32"])


def test_policies_are_told_the_task_that_demonstrations_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `evaluate` tells it, and as `data export` writes it for LeRobot's policies."""
    monkeypatch.setattr(Dot, "metadata", Dot.metadata | {"instruction": "push the dot"})
    settings = ["task=gymnasium:painted:painted/Dot-v0", "make={width: 24}"]  # of no other test
    env = PixioRobotEnv(settings=settings).create_envs(1)["pixio_robot"][0]
    assert env.call("task_description") == ("push the dot",)
    env.close()


def observation(checkpoint: Path) -> dict[str, torch.Tensor]:
    spec = load_policy(checkpoint / "model").spec
    images = {f"observation.images.{name}": torch.rand(1, 3, 32, 32) for name in spec.cameras}
    return images | {"observation.state": torch.rand(1, spec.state_dim)}


def test_on_a_robot_where_nothing_is_known_beforehand(checkpoint: Path) -> None:
    policy = _load_pretrained_policy(config(checkpoint))  # as lerobot-rollout opens it
    seen = observation(checkpoint)
    assert policy.select_action(seen).shape == (1, 4)
    del seen["observation.images.hand"]
    with pytest.raises(UserError, match=r"no feature observation\.images\.hand for the policy's camera 'hand', only"):
        policy.select_action(seen)


def test_features_of_other_names(checkpoint: Path) -> None:
    seen = observation(checkpoint)
    renamed = {key.replace("images.hand", "wrist"): value for key, value in seen.items()}
    renamed["observation.arm"], renamed["observation.gripper"] = renamed.pop("observation.state").split([3, 2], 1)
    names = {"cameras": {"hand": "observation.wrist"}, "state": ["observation.arm", "observation.gripper"]}
    actions = [
        _load_pretrained_policy(config(checkpoint, **how)).select_action(batch)
        for how, batch in (({}, seen), (names, renamed))
    ]
    assert torch.equal(*actions)


def test_features_of_the_names_that_an_import_gives_other_cameras(checkpoint: Path) -> None:
    """As PushT's `observation.image` is imported as the camera `image`."""
    seen = observation(checkpoint)
    features = {key: PolicyFeature(FeatureType.VISUAL, tuple(value.shape[1:])) for key, value in seen.items()}
    moved = "observation.images.hand", "observation.hand"
    for of in (seen, features):
        of[moved[1]] = of.pop(moved[0])
    policy: Any = _load_pretrained_policy(config(checkpoint, input_features=features))
    assert policy.select_action(seen).shape == (1, 4)


def test_chunks_for_those_who_ask_for_them(checkpoint: Path, tmp_path: Path) -> None:
    seen = observation(checkpoint)
    looking_back: Any = _load_pretrained_policy(config(checkpoint))
    with pytest.raises(UserError, match="needs 2 frames"):
        looking_back.predict_action_chunk(seen)
    other = looking_back.policy
    blind = BCConfig(conditioning=ConditioningConfig(cameras=[]), observation_steps=1, horizon=6)
    save_policy(tmp_path / "bc", build_policy("bc", blind, other.spec, other.statistics, None))
    policy = _load_pretrained_policy(config(tmp_path / "bc"))
    chunk = policy.predict_action_chunk(seen)
    assert chunk.shape == (1, 6, 4)
    assert torch.equal(chunk[:, 0], policy.select_action(seen))


def test_chunks_begin_with_the_action_of_the_same_noise_seed(checkpoint: Path, tmp_path: Path) -> None:
    seen, other = observation(checkpoint), load_policy(checkpoint / "model")
    blind = FlowConfig(conditioning=ConditioningConfig(cameras=[]), observation_steps=1, horizon=6)
    save_policy(tmp_path / "flow", build_policy("flow", blind, other.spec, other.statistics, None))
    chunks = []
    for seed in (0, 1):
        chunking, stepping = (_load_pretrained_policy(config(tmp_path / "flow", noise_seed=seed)) for _ in range(2))
        chunks.append(chunking.predict_action_chunk(seen))
        assert torch.equal(chunks[-1][:, 0], stepping.select_action(seen))
        assert not torch.allclose(chunking.predict_action_chunk(seen), chunks[-1])  # every call draws anew
    assert not torch.allclose(*chunks)


RED, BLUE = "push the red block", "push the blue block"


@pytest.fixture
def two_tasks(checkpoint: Path, tmp_path: Path) -> Path:
    """A policy that is told one of two tasks."""
    other = load_policy(checkpoint / "model")
    config = BCConfig(conditioning=ConditioningConfig(cameras=[], goal_dim=2), observation_steps=1, horizon=6)
    torch.manual_seed(0)
    policy = build_policy("bc", config, other.spec, other.statistics, None)
    policy.goals = {RED: [1.0, 0.0], BLUE: [0.0, 1.0]}
    save_policy(tmp_path / "two", policy, extra={"train_seeds": [4]})
    return tmp_path / "two"


@pytest.mark.parametrize("method", ["select_action", "predict_action_chunk"])
def test_each_row_does_the_task_that_lerobot_names(two_tasks: Path, checkpoint: Path, method: str) -> None:
    one = observation(checkpoint)
    two = {key: torch.cat([value, value]) for key, value in one.items()}

    def acted(seen: dict[str, Any], text: Any, **settings: Any) -> torch.Tensor:
        policy = _load_pretrained_policy(config(two_tasks, **settings))
        return getattr(policy, method)({**seen, "task": text})

    red, blue = (acted(one, "", task=task)[0] for task in (RED, BLUE))
    assert not torch.allclose(red, blue)
    both = acted(two, [RED, BLUE])
    torch.testing.assert_close(both[0], red)
    torch.testing.assert_close(both[1], blue)
    # --policy.task is for texts that the policy does not know, and for none.
    torch.testing.assert_close(acted(two, ["", "PushT-v0"], task=BLUE)[1], blue)
    torch.testing.assert_close(acted(one, BLUE, task=BLUE)[0], blue)
    with pytest.raises(UserError, match=f"LeRobot's task is '{BLUE}', and --policy.task='{RED}'"):
        acted(one, [BLUE], task=RED)
    with pytest.raises(UserError, match=r"LeRobot's, 'PushT-v0', is none that it knows: set --policy.task= to one of"):
        acted(one, ["PushT-v0"])
    with pytest.raises(UserError, match=r"LeRobot gives none: set --policy.task= to one of"):
        acted(one, None)
    with pytest.raises(UserError, match="observations of 2 episodes came with 1 tasks"):
        acted(two, [RED])
    with pytest.raises(UserError, match=r"Unknown task .--policy.task. 'push'"):
        acted(one, "", task="push")


def test_a_row_whose_task_changes_begins_anew(two_tasks: Path, checkpoint: Path) -> None:
    seen = observation(checkpoint)
    policy: Any = _load_pretrained_policy(config(two_tasks))
    first = policy.select_action({**seen, "task": RED})
    assert torch.equal(policy.select_action({**seen, "task": BLUE}), load_first(two_tasks, seen, BLUE))
    assert torch.equal(policy.select_action({**seen, "task": RED}), first)


def test_another_number_of_rows_begins_anew(two_tasks: Path, checkpoint: Path) -> None:
    policy: Any = _load_pretrained_policy(config(two_tasks))
    one = observation(checkpoint)
    two = {key: torch.cat([value, value]) for key, value in observation(checkpoint).items()}
    assert torch.equal(policy.select_action({**one, "task": RED}), load_first(two_tasks, one, RED))
    for row, action in enumerate(policy.select_action({**two, "task": [RED, BLUE]})):
        alone = {key: value[row : row + 1] for key, value in two.items()}
        assert torch.equal(action[None], load_first(two_tasks, alone, [RED, BLUE][row]))
    assert torch.equal(policy.select_action({**one, "task": BLUE}), load_first(two_tasks, one, BLUE))


def load_first(checkpoint: Path, seen: dict[str, Any], task: str) -> torch.Tensor:
    policy: Any = _load_pretrained_policy(config(checkpoint, task=task))
    return policy.select_action(seen)


def test_images_are_from_0_to_1_or_uint8(checkpoint: Path) -> None:
    seen = observation(checkpoint)
    hand = "observation.images.hand"
    pixels = (seen[hand] * 255).round().byte()
    seen[hand] = pixels / 255

    def acted(images: torch.Tensor) -> torch.Tensor:
        policy: Any = _load_pretrained_policy(config(checkpoint))
        return policy.select_action({**seen, hand: images})

    assert torch.equal(acted(pixels), acted(pixels / 255))
    assert torch.equal(acted(pixels), acted((pixels / 255).double()))
    white = torch.ones(1, 3, 32, 32)
    assert torch.equal(acted(white * 1.05), acted(white))
    assert torch.equal(acted(white * 0 - 0.05), acted(white * 0))
    assert torch.equal(acted((pixels - 0.4) / 255), acted(pixels))
    for wrong in (pixels.float(), pixels / 127.5 - 1, torch.full_like(seen[hand], torch.nan)):
        with pytest.raises(
            UserError, match=r"observation\.images\.hand ranges from .* give floating-point images from"
        ):
            acted(wrong)
    with pytest.raises(UserError, match=r"hand has dtype torch\.int64"):
        acted(pixels.long())


def test_only_what_the_policy_uses_is_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    other = load_policy(checkpoint / "model")
    conditioning = ConditioningConfig(cameras=["hand"], use_state=False)
    seeing = BCConfig(conditioning=conditioning, observation_steps=1, horizon=6)
    save_policy(tmp_path / "bc", build_policy("bc", seeing, other.spec, other.statistics, other.encoders[0]))
    policy: Any = _load_pretrained_policy(config(tmp_path / "bc"))
    hand = {"observation.images.hand": observation(checkpoint)["observation.images.hand"]}
    assert policy.select_action(hand).shape == (1, 4)


def test_a_state_in_other_units_is_warned_of_once(checkpoint: Path) -> None:
    policy: Any = _load_pretrained_policy(config(checkpoint))
    seen = observation(checkpoint)
    seen["observation.state"] = torch.full_like(seen["observation.state"], 90)
    with pytest.warns(UserWarning, match=r"is 90, in the demonstrations .* Is it in the same units"):
        policy.select_action(seen)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        policy.select_action(seen)


def test_a_tensor_may_be_filled_again(checkpoint: Path) -> None:
    """As a camera's driver does; the policy looks back over two frames."""
    fresh, reused = (_load_pretrained_policy(config(checkpoint)) for _ in range(2))
    buffer = {key: (value * 255).byte() if "image" in key else value for key, value in observation(checkpoint).items()}
    for _ in range(2 * fresh.policy.config.executed):
        for key, value in observation(checkpoint).items():
            buffer[key].copy_(value * 255 if "image" in key else value)
        expected = fresh.select_action({key: value.clone() for key, value in buffer.items()})
        assert torch.equal(reused.select_action(buffer), expected)


@pytest.mark.parametrize("method", ["select_action", "predict_action_chunk"])
def test_only_numbers_come_in_and_go_out(two_tasks: Path, checkpoint: Path, method: str) -> None:
    """A robot may do anything if it is told to go to NaN."""
    policy: Any = _load_pretrained_policy(config(two_tasks, task=RED))
    seen = observation(checkpoint)
    seen["observation.state"][0, 1] = torch.nan
    with pytest.raises(
        UserError, match=rf"state contains a non-finite value: {re.escape(policy.policy.spec.state_names[1])}"
    ):
        getattr(policy, method)(seen)
    next(policy.parameters()).data.fill_(torch.nan)
    with pytest.raises(UserError, match=r"returned a non-finite action.*: its training has probably diverged"):
        getattr(policy, method)(observation(checkpoint))


def test_a_saved_policy_opens_without_its_origin(two_tasks: Path, checkpoint: Path, tmp_path: Path) -> None:
    seen = observation(checkpoint)
    saved = tmp_path / "saved"
    policy: Any = _load_pretrained_policy(config(two_tasks, task=BLUE, execute=3))
    expected = policy.select_action(seen)
    policy.save_pretrained(saved)
    policy.save_pretrained(saved)
    with pytest.raises(UserError, match="lerobot's commands can only run them"):
        policy.save_pretrained(saved, state_dict={})
    assert read_policy_config(saved / "model")["extra"] == {"train_seeds": [4]}
    two_tasks.rename(tmp_path / "gone")
    # As --policy.path is opened by lerobot-eval and lerobot-rollout.
    again = PreTrainedConfig.from_pretrained(saved, cli_overrides=["--device=cpu"])
    again.pretrained_path = saved
    opened: Any = make_policy(again, env_cfg=environment())
    assert opened.config.task == BLUE
    before, _ = make_pre_post_processors(again, str(saved))
    assert torch.equal(opened.select_action(before(dict(seen))), expected)
    assert torch.equal(type(policy).from_pretrained(saved).select_action(seen), expected)
    assert load_policy(saved).config.executed == 3
    with pytest.raises(UserError, match=r"no policy directory .*nowhere"):
        type(policy).from_pretrained(tmp_path / "nowhere", config=config(""))
    with pytest.raises(UserError, match="holds a policy of type act, not pixio_robot"):
        type(policy).from_pretrained(saved, config=ACTConfig())


def test_a_saved_policy_is_described_as_it_was(checkpoint: Path, tmp_path: Path) -> None:
    policy: Any = _load_pretrained_policy(config(checkpoint))
    policy.save_pretrained(tmp_path)
    assert read_policy_config(tmp_path / "model") == read_policy_config(checkpoint / "model")


def feature(*shape: int, kind: FeatureType = FeatureType.VISUAL) -> PolicyFeature:
    return PolicyFeature(kind, shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation.images.hand": None}, "no feature observation.images.hand for the policy's camera 'hand'"),
        ({"observation.images.hand": feature(3, 64, 64)}, r"but the policy's camera 'hand' needs \(3, 32"),
        ({"observation.state": None}, "no feature observation.state for the policy's state"),
        ({"observation.state": feature(9, kind=FeatureType.STATE)}, "hold 9 numbers, but the policy's state"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint: Path, changes: dict[str, Any], message: str) -> None:
    features = {**opened(checkpoint).config.input_features, **changes}
    features = {key: value for key, value in features.items() if value is not None}
    with pytest.raises(UserError, match=message):
        opened(checkpoint, input_features=features)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint": ""}, "--policy.checkpoint=DIR is required"),
        ({"checkpoint": "nowhere"}, "no policy directory nowhere"),
        ({"cameras": {"side": "x"}}, "Valid choices: front, hand"),
        ({"execute": 99}, "execute"),
        ({"output_features": {"action": feature(9, kind=FeatureType.ACTION)}}, r"action has shape \(9,\) here"),
    ],
)
def test_mistakes(checkpoint: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _load_pretrained_policy(dataclasses.replace(config(checkpoint), **settings))


def test_lerobot_does_not_train_it(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="trained by `pixio-robot train`"):
        config(checkpoint).get_optimizer_preset()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lerobot_s_commands(checkpoint: Path, tmp_path: Path) -> None:
    plugin = "discover_packages_path=pixio_robot.lerobot_plugin"
    env = [f"--env.{plugin}", "--env.type=pixio_robot", "--env.task=tabletop_reach", "--env.settings=[image_size=32]"]
    ours = [f"--policy.{plugin}", "--policy.type=pixio_robot", f"--policy.checkpoint={checkpoint}"]
    evaluation = ["--eval.n_episodes=4", "--eval.batch_size=2", "--seed=70", f"--output_dir={tmp_path}/lerobot"]
    run("lerobot-eval", *ours, *env, *evaluation, "--policy.device=cpu")
    theirs = json.loads((tmp_path / "lerobot" / "eval_info.json").read_text())
    assert theirs["overall"]["n_episodes"] == 4
    assert (tmp_path / "lerobot" / "videos").is_dir()

    # The other way round: a policy of lerobot's, trained on what we export and evaluated in our environment.
    demos = checkpoint.parent / "demos"
    run("pixio-robot", "data", "export", str(demos), f"out={tmp_path}/export", "format=lerobot")
    act = ["--policy.type=act", "--policy.chunk_size=4", "--policy.n_action_steps=4", "--policy.dim_model=16"]
    act += ["--policy.n_heads=2", "--policy.dim_feedforward=16", "--policy.pretrained_backbone_weights=null"]
    act += ["--policy.device=cpu", "--policy.push_to_hub=false"]
    data = ["--dataset.repo_id=local/reach", f"--dataset.root={tmp_path}/export", "--dataset.use_imagenet_stats=false"]
    loop = ["--steps=1", "--env_eval_freq=1", "--batch_size=2", "--num_workers=0", "--save_checkpoint=false"]
    said = run("lerobot-train", *act, *data, *env, *loop, *evaluation[:2], f"--output_dir={tmp_path}/act")
    assert "'n_episodes': 4" in said
