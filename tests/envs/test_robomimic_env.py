"""The environment of a robomimic file against the file: one that robosuite itself recorded, with a solved Lift."""

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs.config import EnvConfig
from envs.experts.random_play import RandomPlay
from envs.experts.registry import make_expert
from envs.pool.worker_pool import make_pool
from envs.registry import make_env
from envs.robomimic.env import RobomimicEnv
from envs.robomimic.task import clip_limits, load_recorded_env
from envs.simulator_imports import load_robosuite
from envs.spec import action_bounds, make_env_spec, max_episode_steps
from pixio_robot.data.demos.editing.convert_actions import convert_actions
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.interop.robomimic import ImportConfig, import_demos

pytestmark = pytest.mark.sim

SIZE = 24
SHOWN = 3
"""Later images are those of the last of these steps."""
CAMERAS = ("agentview", "robot0_eye_in_hand")


@dataclasses.dataclass
class Solved:
    """A robomimic file with one demonstration, and what it holds. `actions_abs` are where the gripper went, seen from
    the robot's `base`, as in the controller of the file."""

    file: Path
    model_file: str
    states: np.ndarray
    actions: np.ndarray
    successes: list[bool]
    base: np.ndarray


def seen(env: Any) -> Any:
    """What the expert asks for, of robosuite's environment."""
    data = env.sim.data
    grip, cube = env.robots[0].eef_site_id["right"], env.cube_body_id
    poses = {
        "eef_pos": data.site_xpos[grip].copy(),
        "eef_mat": data.site_xmat[grip].reshape(3, 3).copy(),
        "cube_pos": data.body_xpos[cube].copy(),
        "cube_mat": data.body_xmat[cube].reshape(3, 3).copy(),
    }
    return types.SimpleNamespace(config=EnvConfig(), privileged=lambda: poses)


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory, begin_recording: Callable) -> Solved:
    robosuite = load_robosuite()
    # robosuite places the cube by it: at another place, the success may fall one step later.
    np.random.seed(0)  # noqa: NPY002
    kwargs = {"robots": ["Panda"], "control_freq": 20, "reward_shaping": False, "camera_heights": SIZE}
    kwargs |= {"controller_configs": robosuite.load_composite_controller_config(robot="Panda")}
    hidden = {"has_renderer": False, "use_camera_obs": False, "ignore_done": True, "hard_reset": False}
    env = robosuite.make("Lift", **json.loads(json.dumps(kwargs)), **hidden, has_offscreen_renderer=True)
    model_file, _ = begin_recording(env)
    expert = make_expert(EnvConfig())
    expert.reset(seen(env), np.random.default_rng(0))
    states, actions, rewards, successes, places = [], [], [], [], []
    while not (successes and successes[-1]) and len(states) < 80:
        states.append(env.sim.get_state().flatten())
        actions.append(expert.act(seen(env)).astype(np.float64))
        rewards.append(env.step(actions[-1])[1])
        successes.append(bool(env._check_success()))
        places.append(seen(env).privileged()["eef_pos"])
    base = env.sim.data.get_site_xpos("robot0_right_center").copy()
    observations: dict[str, list[np.ndarray]] = {}
    for step, state in enumerate(states):  # as robomimic's script works observations out afterwards
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        found = dict(env._get_observations(force_update=True))
        if step < SHOWN:  # rendering is most of the time
            images = {
                f"{name}_image": env.sim.render(width=SIZE, height=SIZE, camera_name=name)[::-1] for name in CAMERAS
            }
        found |= images
        found["object"] = found.pop("object-state")
        for key, value in found.items():
            if key.startswith("robot0_") or key.endswith("_image") or key == "object":
                observations.setdefault(key, []).append(np.array(value))
    env.close()
    file = tmp_path_factory.mktemp("robomimic") / "lift.hdf5"
    with h5py.File(file, "w") as opened:
        data = opened.create_group("data")
        env_args = {"env_name": "Lift", "type": 1, "env_version": robosuite.__version__, "env_kwargs": kwargs}
        data.attrs["env_args"], data.attrs["total"] = json.dumps(env_args), len(states)
        demo = data.create_group("demo_0")
        demo.attrs["model_file"], demo.attrs["num_samples"] = model_file, len(states)
        demo["states"], demo["actions"], demo["rewards"] = np.stack(states), np.stack(actions), np.array(rewards)
        turn = [np.pi, 0.0, 0.0]
        demo["actions_abs"] = [
            [*(place - base), *turn, action[6]] for place, action in zip(places, actions, strict=True)
        ]
        for key, values in observations.items():
            demo[f"obs/{key}"] = np.stack(values)
    return Solved(file, model_file, np.stack(states), np.stack(actions), successes, base)


@pytest.fixture(scope="module")
def store(solved: Solved) -> DemoStore:
    """Imported with the settings that a user would leave as they are."""
    out = solved.file.with_name("store")
    import_demos(solved.file, out, ImportConfig())
    return DemoStore.open(out)


@pytest.fixture(scope="module")
def env(store: DemoStore):
    made = make_env(EnvConfig(task=f"robomimic:{store.path}"))
    assert isinstance(made, RobomimicEnv)
    yield made
    made.close()


def test_its_spec_is_the_stores(env: RobomimicEnv, store: DemoStore) -> None:
    assert store.spec.differences(env.spec) == env.spec.differences(store.spec) == []
    assert env.spec.cameras == store.spec.cameras
    assert (env.spec.task, env.spec.robot, env.spec.render_quality) == ("Lift", "Panda", "unknown")
    assert tuple(env.spec.cameras) == CAMERAS
    assert env.config.image_size == SIZE
    low, high = action_bounds(env.config)
    assert (low == -1).all()
    assert (high == 1).all()


def test_a_recorded_episode_is_played_again_as_it_was(env: RobomimicEnv, store: DemoStore, solved: Solved) -> None:
    """Observations, states and success, to the last bit: pictures may differ in a grey level on another driver."""
    env.reset(0, render=False)
    env.load_model(solved.model_file)
    frame = env.reset_to(solved.states[0])
    images = {name: store.images(0, name) for name in CAMERAS}
    for step, action in enumerate(solved.actions):
        np.testing.assert_array_equal(env.get_state(), solved.states[step])
        if step == 0:
            np.testing.assert_array_equal(frame.state, store.state(0)[0])
        # While it runs, robosuite shows what was one physics step (2 ms) before the state.
        np.testing.assert_allclose(frame.state, store.state(0)[step], atol=5e-3)
        if frame.images:
            for name in CAMERAS:
                difference = np.abs(frame.images[name].astype(int) - images[name][step])
                assert difference.mean() < (0.2 if step == 0 else 3), (name, step)
        result = env.step(action, render=step < SHOWN - 1)
        frame = result.frame
        assert result.success == solved.successes[step]
    assert result.done
    assert result.reward == store.rewards(0)[-1] > 0
    with pytest.raises(ValueError, match="over"):
        env.step(solved.actions[0])


def test_an_episode_depends_on_its_seed_alone(env: RobomimicEnv) -> None:
    first = env.reset(5)
    after = env.step(np.ones(7))
    env.reset(6, render=False)
    again = env.reset(5)
    np.testing.assert_array_equal(first.state, again.state)
    for name in CAMERAS:
        np.testing.assert_array_equal(first.images[name], again.images[name])
    np.testing.assert_array_equal(after.frame.state, env.step(np.ones(7)).frame.state)
    assert not np.array_equal(env.reset(6).images["agentview"], first.images["agentview"])


def test_workers_play_it_from_any_directory(
    store: DemoStore, env: RobomimicEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.path.parent)
    config = EnvConfig(task="robomimic:store", cameras=["robot0_eye_in_hand"], horizon=2)
    monkeypatch.chdir("/")
    with make_pool(config, 1, 1) as pool:
        frames, lost = pool.reset({0: 5}, {0: True})
        assert not lost
        np.testing.assert_array_equal(frames[0].state, env.reset(5, render=False).state)
        assert frames[0].images["robot0_eye_in_hand"].shape == (SIZE, SIZE, 3)
        assert not pool.step({0: np.zeros(7)}, {0: False})[0][0].done
        assert pool.step({0: np.zeros(7)}, {0: False})[0][0].done


@pytest.mark.parametrize("overwritten", [False, True], ids=["actions_abs", "diffusion_policy's image_abs.hdf5"])
def test_state_of_any_key_and_poses_seen_from_the_base(overwritten: bool, solved: Solved, tmp_path: Path) -> None:
    """Low-dimensional policies are given `object`; others act by poses, which the file's controller does not."""
    keys = ["object", "robot0_joint_pos", "robot0_eef_pos"]
    file, config = solved.file, ImportConfig(state=keys, cameras=["agentview"], actions="actions_abs")
    if overwritten:
        file = tmp_path / "image_abs.hdf5"
        shutil.copy(solved.file, file)
        with h5py.File(file, "a") as opened:
            del opened["data/demo_0/actions"]
            opened.move("data/demo_0/actions_abs", "data/demo_0/actions")
        config = dataclasses.replace(config, actions="actions", absolute=True)
    import_demos(file, tmp_path / "s", config)
    store = DemoStore.open(tmp_path / "s")
    env = make_env(EnvConfig(task=f"robomimic:{tmp_path / 's'}", cameras=[]))
    assert env.spec.controller == store.spec.controller == "OSC_POSE absolute in the base's frame"
    assert action_bounds(env.config)[1].tolist() == [2.0] * 3 + [np.pi] * 3 + [1.0]
    env.reset(0, render=False)
    env.load_model(solved.model_file)  # type: ignore[attr-defined]
    frame = env.reset_to(solved.states[0], render=False)
    np.testing.assert_array_equal(frame.state, store.state(0)[0])
    place = frame.state[-3:] + np.array((0.05, -0.06, 0.04))
    turn = Rotation.from_matrix(env.privileged()["eef_mat"]).as_rotvec()
    for _ in range(20):
        frame = env.step(np.array([*(place - solved.base), *turn, -1]), render=False).frame
    np.testing.assert_allclose(frame.state[-3:], place, atol=0.01)
    env.close()


def test_absolute_joint_targets_arrive_as_they_are(tmp_path: Path) -> None:
    """Panda's joints turn beyond 1 rad, which is where deltas end, and beyond pi."""
    arm = {"type": "JOINT_POSITION", "input_type": "absolute", "input_max": 1, "input_min": -1, "kp": 50}
    arm |= {"output_max": 0.05, "output_min": -0.05, "damping_ratio": 1, "impedance_mode": "fixed"}
    arm |= {"kp_limits": [0, 300], "damping_ratio_limits": [0, 10], "interpolation": None, "ramp_ratio": 0.2}
    controller = {"type": "BASIC", "body_parts": {"right": arm | {"gripper": {"type": "GRIP"}}}}
    kwargs = {"robots": ["Panda"], "control_freq": 20, "controller_configs": controller}
    with h5py.File(tmp_path / "joints.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": kwargs})
        demo = data.create_group("demo_0")
        demo["actions"], demo["rewards"], demo["obs/robot0_joint_pos"] = np.zeros((2, 8)), np.zeros(2), np.zeros((2, 7))
    import_demos(tmp_path / "joints.hdf5", tmp_path / "s", ImportConfig(state=["robot0_joint_pos"]))
    env = make_env(EnvConfig(task=f"robomimic:{tmp_path / 's'}"))
    assert env.spec.action_names[0] == "joint1 [rad]"
    assert np.isfinite(action_bounds(env.config)).all()  # for random actions
    start = env.reset(0).state
    assert np.abs(start).max() > 2
    for _ in range(20):
        frame = env.step(np.array([*start, -1])).frame
    np.testing.assert_allclose(frame.state, start, atol=0.01)
    env.close()


def test_what_is_unknown_is_not_clipped() -> None:
    names = ["eef_pos.x [m]", "eef_axis_angle.x [rad]", "joint1 [rad]", "gripper [-1 opens, 1 closes]", "action.7"]
    # Rotation vectors of `data actions` do not jump, so their angles may exceed pi.
    assert clip_limits(names).tolist() == [2.0, 2 * np.pi, np.inf, np.inf, np.inf]


@pytest.mark.parametrize("changes", [{"to": "absolute", "rotation": "rot6d_rows"}, {"to": "delta", "rotation": "quat"}])
def test_actions_in_another_form_play_as_the_recorded_ones(
    changes: dict[str, str], solved: Solved, tmp_path: Path
) -> None:
    """As diffusion_policy's robomimic recipe has them. Deltas are in 1 cm, too, where the controller takes 5 cm."""
    keys = ["robot0_eef_pos", "robot0_eef_quat_site"]
    import_demos(solved.file, tmp_path / "s", ImportConfig(state=keys, cameras=["agentview"]))
    source = DemoStore.open(tmp_path / "s")
    absolute = convert_actions(source.spec, to="absolute")
    edit = convert_actions(source.spec, to="absolute", rotation="rot6d_rows")
    episode = edit.change(source.episode(0))
    if changes["to"] == "delta":
        edit = convert_actions(absolute.spec, scale_position=0.01, **changes)
        episode = edit.change(absolute.change(source.episode(0)))
    DemoStore.create(tmp_path / "other", edit.spec).append(episode)
    env = make_env(EnvConfig(task=f"robomimic:{tmp_path / 'other'}", cameras=[]))
    assert env.spec.action_names == edit.spec.action_names
    assert action_bounds(env.config)[1].shape == (edit.spec.action_dim,)
    env.reset(0, render=False)
    env.load_model(solved.model_file)  # type: ignore[attr-defined]
    env.reset_to(solved.states[0], render=False)
    for action, success in zip(episode.actions, solved.successes, strict=True):
        result = env.step(action, render=False)
        assert result.success == success
        if result.done:
            break
    assert result.success
    env.close()


def test_what_does_not_fit_is_named(store: DemoStore, solved: Solved, tmp_path: Path) -> None:
    task = f"robomimic:{store.path}"
    for wrong in ({"image_size": 64}, {"control_hz": 10}, {"start_spread": 0.1}, {"robot": "Sawyer"}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))} .*leave it out"):
            EnvConfig(task=task, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Did you mean 'agentview'"):
        EnvConfig(task=task, cameras=["agentvie"])
    with pytest.raises(UserError, match=r"data import .*lift\.hdf5 format=robomimic"):
        EnvConfig(task=f"robomimic:{solved.file}")
    with pytest.raises(UserError, match="nowhere"):
        EnvConfig(task="robomimic:nowhere")
    ours = DemoStore.create(tmp_path / "ours", make_env_spec(EnvConfig(image_size=16)))
    with pytest.raises(UserError, match="imported from a robomimic file"):
        EnvConfig(task=f"robomimic:{ours.path}")
    with pytest.raises(UserError, match="Random play"):
        RandomPlay().reset(types.SimpleNamespace(config=EnvConfig(task=task)), np.random.default_rng(0))  # type: ignore[arg-type]
    import_demos(
        solved.file, tmp_path / "named", ImportConfig(cameras=["agentview"], state_names=[f"s{i}" for i in range(9)])
    )
    with pytest.raises(UserError, match="'s0'"):
        make_env(EnvConfig(task=f"robomimic:{tmp_path / 'named'}"))


def test_episodes_of_two_environments_are_refused(store: DemoStore, tmp_path: Path) -> None:
    both = DemoStore.create(tmp_path / "both", store.spec)
    episode = store.episode(0)
    both.append(episode)
    env_args = load_recorded_env(f"robomimic:{store.path}").env_args
    both.append(dataclasses.replace(episode, info={"env_args": {**env_args, "env_name": "Stack"}}))
    with pytest.raises(UserError, match="episodes 0 and 1 were recorded in different"):
        EnvConfig(task=f"robomimic:{both.path}")


def test_a_worker_that_is_sent_the_configuration_reads_one_episode(store: DemoStore, tmp_path: Path) -> None:
    long = DemoStore.create(tmp_path / "long", store.spec)
    for _ in range(2):
        long.append(store.episode(0))
    sent = pickle.dumps(EnvConfig(task=f"robomimic:{long.path}"))
    shutil.rmtree(long.episode_path(1))
    (long.episode_path(1)).mkdir()  # no other process could read it now
    code = f"import pickle; from envs.spec import make_env_spec; print(make_env_spec(pickle.loads({sent!r})).task)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["Lift"]


def test_two_arms_of_robosuite_1_4_are_built_too(tmp_path: Path) -> None:
    """robomimic's Transport, in the words of its own files."""
    arm = {"type": "OSC_POSE", "control_delta": True, "damping": 1, "kp": 150, "impedance_mode": "fixed"}
    arm |= {
        "input_max": 1,
        "input_min": -1,
        "output_max": [0.05] * 3 + [0.5] * 3,
        "output_min": [-0.05] * 3 + [-0.5] * 3,
    }
    arm |= {"uncouple_pos_ori": True, "kp_limits": [0, 300], "damping_limits": [0, 10], "position_limits": None}
    kwargs = {"robots": ["Panda", "Panda"], "env_configuration": "single-arm-opposed", "controller_configs": [arm, arm]}
    env_args = {"env_name": "TwoArmTransport", "env_version": "1.4.1", "type": 1, "env_kwargs": kwargs}
    with h5py.File(tmp_path / "transport.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env_args)
        demo = data.create_group("demo_0")
        demo["actions"], demo["rewards"] = np.zeros((2, 14)), np.zeros(2)
        for arm_number in (0, 1):
            for key, width in (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2)):
                demo[f"obs/robot{arm_number}_{key}"] = np.zeros((2, width))
        demo["obs/object"] = np.zeros((2, 41))
        demo["obs/shouldercamera0_image"] = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    import_demos(tmp_path / "transport.hdf5", tmp_path / "s", ImportConfig(state=["object", "robot1_eef_pos"]))
    env = make_env(EnvConfig(task=f"robomimic:{tmp_path / 's'}"))
    assert (max_episode_steps(env.config), env.spec.action_dim, env.spec.robot) == (700, 14, "Panda + Panda")
    env.reset(0)
    result = env.step(np.ones(14))
    assert result.frame.state.shape == (44,)
    assert result.frame.images["shouldercamera0"].std() > 5
    assert not result.success
    env.close()
