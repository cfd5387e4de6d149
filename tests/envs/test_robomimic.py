"""robomimic files against robosuite itself: readings, pictures, replays, and settings of older versions."""

import copy
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from envs.config import Controller, EnvConfig
from envs.robomimic.env_args import translate_env_args
from envs.robomimic.model import LocalModel, compile_model, localise_model, upgrade_names
from envs.robomimic.observables import build_observables
from envs.robomimic.recorded_scene import StateRenderer
from envs.robomimic.replay import Replay
from envs.simulator_imports import load_robosuite
from envs.spec import make_env_spec
from pixio_robot.cli.main import main
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.interop.robomimic.env_args import env_args_from_spec

pytestmark = pytest.mark.sim

STEPS, SIZE = 8, 48
SHOWN = 2
"""Of so many steps robosuite's own pictures are kept: they are slow."""
KEYS = (
    *("robot0_eef_pos", "robot0_eef_quat", "robot0_eef_quat_site", "robot0_gripper_qpos", "robot0_gripper_qvel"),
    *("robot0_joint_pos", "robot0_joint_pos_cos", "robot0_joint_pos_sin", "robot0_joint_vel"),
)
CAMERAS = ("agentview", "robot0_eye_in_hand")


@dataclasses.dataclass
class Recording:
    """One demonstration of Lift as robosuite's recorder and robomimic's extraction script make it."""

    env_args: dict[str, Any]
    model_file: str
    states: np.ndarray
    actions: np.ndarray
    observations: dict[str, np.ndarray]
    base: np.ndarray
    """Place of the robot's base [m]."""

    def write(self, path: Path, env_args: dict[str, Any] | None = None, model_file: str = "") -> Path:
        """As demo_2 and demo_10, without observations."""
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps(env_args or self.env_args)
            data.attrs["total"] = 2 * STEPS
            for name in ("demo_10", "demo_2"):
                group = data.create_group(name)
                group.attrs["model_file"] = model_file or self.model_file
                group.attrs["num_samples"] = STEPS
                group["states"], group["actions"] = self.states, self.actions
        return path


@pytest.fixture(scope="module")
def recording(begin_recording: Callable) -> Recording:
    robosuite = load_robosuite()
    controller = robosuite.load_composite_controller_config(robot="Panda")
    kwargs = {"robots": ["Panda"], "controller_configs": controller, "control_freq": 20}
    env = robosuite.make(
        "Lift",
        **copy.deepcopy(kwargs),
        has_renderer=False,
        has_offscreen_renderer=True,
        use_camera_obs=False,
        ignore_done=True,
    )
    xml, _ = begin_recording(env)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 7))
    states = []
    for action in actions:
        states.append(env.sim.get_state().flatten())
        env.step(action)
    seen: dict[str, list[np.ndarray]] = {}
    for step, state in enumerate(states):
        env.sim.set_state_from_flattened(state)
        env.sim.forward()
        for key, value in env._get_observations(force_update=True).items():
            seen.setdefault(key, []).append(np.array(value))
        for camera in CAMERAS if step < SHOWN else ():
            # robosuite's pictures stand on their heads.
            picture = env.sim.render(width=SIZE, height=SIZE, camera_name=camera)[::-1]
            seen.setdefault(f"{camera}_image", []).append(picture)
    base = env.sim.data.get_site_xpos("robot0_right_center").copy()
    env.close()
    return Recording(
        env_args={"env_name": "Lift", "type": 1, "env_version": robosuite.__version__, "env_kwargs": kwargs},
        model_file=xml,
        states=np.array(states),
        actions=actions,
        observations={key: np.stack(values) for key, values in seen.items() if key in KEYS or key.endswith("_image")},
        base=base,
    )


def as_version_1_4(recording: Recording) -> tuple[dict[str, Any], str]:
    """The same recording's env_args and model_file with the words that robosuite 1.4 would have used."""
    arm = recording.env_args["env_kwargs"]["controller_configs"]["body_parts"]["right"]
    old = {key: value for key, value in arm.items() if key not in ("input_type", "input_ref_frame", "gripper")}
    old |= {"control_delta": True, "damping": old.pop("damping_ratio")}
    kwargs = {"robots": "Panda", "controller_configs": old, "control_freq": 20, "mount_types": "default"}
    kwargs |= {"camera_depths": False, "use_camera_obs": True, "gripper_visualization": True}
    xml = recording.model_file.replace("gripper0_right_", "gripper0_").replace("fixed_mount0_", "mount0_")
    xml = re.sub(r'<site name="robot0_right_center"[^>]*>', "", xml).replace("/bases/meshes", "/mounts/meshes")
    xml = re.sub(r'file="[^"]*?/robosuite/', 'file="/somewhere/else/robosuite/', xml)
    return {"env_name": "Lift", "type": 1, "env_version": "1.4.1", "env_kwargs": kwargs}, xml


def test_readings_are_robosuites_own_observations(recording: Recording) -> None:
    scene = StateRenderer(SIZE, "full")
    found = scene.observe(recording.model_file, recording.states, KEYS, [])
    for key in KEYS:
        # robosuite turns matrices into quaternions in single precision.
        atol = 1e-6 if key == "robot0_eef_quat_site" else 1e-12
        np.testing.assert_allclose(found[key], recording.observations[key], atol=atol, rtol=0, err_msg=key)


def test_pictures_show_what_robosuite_shows(recording: Recording) -> None:
    scene = StateRenderer(SIZE, "full")
    found = scene.observe(recording.model_file, recording.states[:SHOWN], [], CAMERAS)
    cameras = scene.cameras(recording.model_file, CAMERAS)
    scene.close()
    for camera in CAMERAS:
        ours, theirs = found[f"{camera}_image"], recording.observations[f"{camera}_image"]
        assert ours.shape == (SHOWN, SIZE, SIZE, 3)
        # Here they are equal; another driver may round a pixel differently.
        assert np.abs(ours.astype(int) - theirs).mean() < 0.2, camera
        assert np.abs(ours[:, ::-1].astype(int) - theirs).mean() > 5
    assert cameras["agentview"].mounted_on == "world"
    assert cameras["robot0_eye_in_hand"].mounted_on == "robot0_right_hand"


def test_the_cameras_place_projects_points_where_they_are_seen(recording: Recording) -> None:
    """The red cube lies where intrinsics and extrinsics say it is."""
    scene = StateRenderer(SIZE, "full")
    picture = scene.observe(recording.model_file, recording.states[:1], [], ["agentview"])["agentview_image"][0]
    camera = scene.cameras(recording.model_file, ["agentview"])["agentview"]
    scene.close()
    import mujoco

    model = compile_model(localise_model(recording.model_file))
    data = mujoco.MjData(model)  # type: ignore[attr-defined]
    data.qpos[:] = recording.states[0, 1 : 1 + model.nq]
    mujoco.mj_forward(model, data)  # type: ignore[attr-defined]
    assert camera.extrinsics is not None
    assert camera.intrinsics is not None
    x, y, z, _ = np.linalg.inv(np.array(camera.extrinsics)) @ [*data.body("cube_main").xpos, 1]
    fx, fy, cx, cy = camera.intrinsics
    expected = np.array([fx * x / z + cx, fy * y / z + cy])
    red = picture[..., 0].astype(int) - picture[..., 1:].max(-1)
    rows, columns = np.nonzero(red > 60)
    seen = np.array([columns.mean(), rows.mean()]) + 0.5
    np.testing.assert_allclose(seen, expected, atol=1.0)


def test_replay_reproduces_every_bit(recording: Recording) -> None:
    replay = Replay(recording.env_args)
    error = replay.run(recording.model_file, recording.states, recording.actions)
    assert (error.first_step, error.position, error.hand_m) == (None, 0.0, 0.0)
    assert not error.success
    # Twice the same, and other actions are noticed.
    assert replay.run(recording.model_file, recording.states, recording.actions) == error
    wrong = replay.run(recording.model_file, recording.states, -recording.actions)
    assert wrong.first_step == 1
    assert wrong.joint.startswith("robot0_joint")
    assert wrong.hand_m > 0.01
    with pytest.raises(UserError, match="expects 7"):
        replay.run(recording.model_file, recording.states, recording.actions[:, :6])
    with pytest.raises(UserError, match=r"1 \+ \d+ \+ \d+ numbers per step"):
        replay.run(recording.model_file, recording.states[:, :5], recording.actions)
    replay.close()


@pytest.mark.parametrize("version", ["1.4", "1.5"])
def test_absolute_poses_behind_env_args_that_say_delta_are_replayed_as_such(version: str, recording: Recording) -> None:
    """Commanded to where the gripper was one step later, the arm follows the recording. Poses are in the frame of the
    file's controllers: the world's up to robosuite 1.4, that of the robot's base since."""
    env_args, model_file, origin = recording.env_args, recording.model_file, recording.base
    if version == "1.4":
        (env_args, model_file), origin = as_version_1_4(recording), np.zeros(3)
    seen = recording.observations
    turned = Rotation.from_quat(seen["robot0_eef_quat_site"][1:]).as_rotvec()
    poses = np.concatenate([seen["robot0_eef_pos"][1:] - origin, turned, recording.actions[:-1, 6:]], axis=1)
    strayed = {}
    for absolute in (True, False):
        replay = Replay(env_args, absolute)
        strayed[absolute] = replay.run(model_file, recording.states[:-1], poses).hand_m
        replay.close()
    assert strayed[True] < 0.03 < strayed[False]


def test_a_file_of_robosuite_1_4_is_replayed_in_1_5(recording: Recording) -> None:
    env_args, model_file = as_version_1_4(recording)
    replay = Replay(env_args)
    assert replay.task.unsupported_keywords == ("gripper_visualization",)
    assert replay.task.arguments["lite_physics"] is False
    error = replay.run(model_file, recording.states, recording.actions)
    # Goals are kept in the world instead of the base, which rounds differently.
    assert error.hand_m < 1e-6
    assert error.position < 1e-5
    replay.close()


def test_old_models_are_shown_as_they_are(recording: Recording) -> None:
    _, model_file = as_version_1_4(recording)
    scene = StateRenderer(SIZE, "full")
    old = scene.observe(model_file, recording.states[:2], KEYS, ["agentview"])
    new = scene.observe(recording.model_file, recording.states[:2], KEYS, ["agentview"])
    scene.close()
    for key in (*KEYS, "agentview_image"):
        np.testing.assert_array_equal(old[key], new[key])
    assert upgrade_names(upgrade_names(model_file)) == upgrade_names(model_file)


def test_visual_meshes_that_are_gone_have_stand_ins(recording: Recording) -> None:
    """robosuite 1.3 drew each link of Panda from one mesh, and MuJoCo wrote options that it refuses today."""
    before_1_4 = re.sub(r"obj_meshes/(link\d)_vis/[^/\"]*\.obj", r"meshes/\1_vis.stl", recording.model_file)
    before_1_4 = before_1_4.replace("<option ", '<option apirate="100" collision="all" ')
    scene = StateRenderer(SIZE, "full")
    (picture,) = scene.observe(before_1_4, recording.states[:1], [], ["frontview"])["frontview_image"]
    assert len(scene.notes()) == 1
    assert "link0_vis.stl, link1_vis.stl" in scene.notes()[0]
    (today,) = scene.observe(recording.model_file, recording.states[:1], [], ["frontview"])["frontview_image"]
    scene.close()
    # The same outline in other colours.
    assert 0 < np.abs(picture.astype(int) - today).mean() < 12


def test_controllers_are_translated(recording: Recording) -> None:
    env_args, _ = as_version_1_4(recording)
    arm = env_args["env_kwargs"]["controller_configs"]

    def right(**changed: Any) -> dict[str, Any]:
        kwargs = env_args["env_kwargs"] | {"controller_configs": arm | changed}
        return translate_env_args(env_args | {"env_kwargs": kwargs}).arguments["controller_configs"]["body_parts"][
            "right"
        ]

    delta = right()
    assert (delta["input_type"], delta["input_ref_frame"], delta["damping_ratio"]) == ("delta", "world", 1)
    assert "control_delta" not in delta
    assert right(control_delta=False)["input_type"] == "absolute"
    assert right(type="JOINT_POSITION")["type"] == "JOINT_POSITION"
    for changed, message in (
        ({"type": "IK_POSE"}, "'IK_POSE', which has no counterpart"),
        ({"position_limits": [0, 1]}, "position_limits"),
    ):
        with pytest.raises(UserError, match=message):
            right(**changed)
    with pytest.raises(UserError, match="Did you mean 'Lift'"):
        translate_env_args(env_args | {"env_name": "Lft"})
    with pytest.raises(UserError, match="lack a robosuite task"):
        translate_env_args({"env_name": "Lift", "env_kwargs": {}})
    with pytest.raises(UserError, match="Did you mean 'Panda'"):
        translate_env_args(env_args | {"env_kwargs": env_args["env_kwargs"] | {"robots": "Pand"}})


@pytest.mark.parametrize("controller", list(Controller))
def test_exports_describe_our_controllers_as_robosuite_builds_them(controller: Controller) -> None:
    spec = make_env_spec(EnvConfig(controller=controller))
    env_args, notes = env_args_from_spec(spec)
    assert not any("lack the settings" in note for note in notes)
    replay = Replay(env_args)
    assert replay.task.unsupported_keywords == ()
    arm = replay._env.robots[0].part_controllers["right"]
    assert replay._env.action_dim == spec.action_dim
    kind, way = spec.controller.split()
    assert (arm.name, arm.input_type) == (kind, way)
    replay.close()


def test_a_strangers_model_reaches_no_files_but_the_assets_of_simulators(recording: Recording, tmp_path: Path) -> None:
    picture, up = tmp_path / "secret.png", "/.." * 12
    Image.new("RGB", (8, 8)).save(picture)
    package = tmp_path / "simulator"
    (package / "assets").mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(picture, package / "assets" / "wood.png")

    def with_texture(attributes: str) -> str:
        return (
            f"<mujoco><asset><texture name='t' {attributes}/></asset><worldbody><geom size='1'/></worldbody></mujoco>"
        )

    for hostile, message in (
        (with_texture(f"type='2d' file='{picture}'"), "secret.png, which is not in a Python package"),
        (with_texture(f"type='cube' fileup='{picture}'"), "secret.png, which is not in a Python package"),
        (with_texture(f"type='2d' file='/x/robosuite{up}{picture}'"), "secret.png, which is not in a Python package"),
        (f"<mujoco><include file='{picture}'/></mujoco>", "an element <include>"),
        ("<mujoco><worldbody><replicate count='9'><geom size='1'/></replicate></worldbody></mujoco>", "<replicate>"),
        (f"<mujoco><worldbody>{'<body>' * 5000}{'</body>' * 5000}</worldbody></mujoco>", "nested too deeply"),
    ):
        with pytest.raises(UserError, match=message):
            localise_model(hostile)
    compile_model(localise_model(with_texture(f"type='2d' file='{package}/assets/wood.png'")))
    compile_model(localise_model(recording.model_file))


def test_what_the_model_lacks_is_named(recording: Recording) -> None:
    scene = StateRenderer(SIZE, "full")
    with pytest.raises(UserError, match="Did you mean 'agentview'"):
        scene.cameras(recording.model_file, ["agentvie"])
    model = compile_model(localise_model(recording.model_file))
    for key, message in (
        ("robot0_eef_ps", "Did you mean 'robot0_eef_pos'"),
        ("robot1_eef_pos", "no gripper1_right_grip_site"),
        ("robot0_left_eef_quat", "no robot0_left_hand"),
        ("robot1_joint_pos", r"no joint robot1_\*"),
    ):
        with pytest.raises(UserError, match=message):
            build_observables(model, [key])
    for broken, message in (
        (recording.model_file.replace("link0.stl", "link9.stl"), r"panda/meshes/link9\.stl, which this version"),
        (recording.model_file.replace("/robosuite/", "/mimicgen/"), "not part of robosuite"),
        ("<mujoco", "is not valid XML"),
    ):
        with pytest.raises(UserError, match=message):
            localise_model(broken)
    with pytest.raises(UserError, match="cannot compile"):
        compile_model(LocalModel("<mujoco><worldbody><geom/></worldbody></mujoco>", ()))
    with pytest.raises(UserError, match="Did you mean 'full'"):
        StateRenderer(SIZE, "ful")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """`pixio-robot data WORDS` in an empty folder: (exit code, what was printed)."""
    monkeypatch.chdir(tmp_path)

    def call(words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pixio-robot", "data", *words.split()])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_a_file_without_observations_becomes_a_store(run, recording: Recording) -> None:
    recording.write(Path("demo.hdf5"))
    words = f"import demo.hdf5 format=robomimic cameras=agentview image_size={SIZE} render_quality=fast success=all"
    code, text = run(f"{words} out=s")
    assert code == 0, text
    for note in ("rendered from the recorded states: agentview", "computed from the recorded states: robot0_eef_pos"):
        assert note in text
    store = DemoStore.open("s")
    assert [store.info(number)["demo"] for number in range(2)] == ["demo_2", "demo_10"]
    assert (store.spec.render_quality, store.spec.controller, store.spec.control_hz) == ("fast", "OSC_POSE delta", 20)
    assert store.spec.action_names[0] == "eef_delta_pos.x [0.05 m]"
    np.testing.assert_array_equal(store.actions(0), recording.actions.astype(np.float32))
    seen = recording.observations
    state = np.concatenate([seen[f"robot0_{key}"] for key in ("eef_pos", "eef_quat", "gripper_qpos")], 1)
    np.testing.assert_allclose(store.state(1), state, atol=1e-6)
    difference = np.abs(store.images(0, "agentview", 0, SHOWN).astype(int) - seen["agentview_image"])
    assert difference.mean() < 12  # fast: no shadows

    assert run(f"{words} out=t".replace("=agentview", "=agentvie"))[0] == 2
    code, text = run("import demo.hdf5 format=robomimic out=t")
    assert code == 2
    assert "set success=all" in text
    assert sorted(path.name for path in Path().iterdir()) == ["demo.hdf5", "s"]


def test_the_command_tells_how_far_a_replay_strays(run, recording: Recording) -> None:
    recording.write(Path("demo.hdf5"))
    code, text = run("replay demo.hdf5 demos=1")
    assert code == 0, text
    assert "demo_2: 8 steps, gripper off by at most 0 mm, joints 0, exact; not solved at the end" in text
    old, model_file = as_version_1_4(recording)
    dataclasses.replace(recording, actions=-recording.actions).write(Path("old.hdf5"), old, model_file)
    code, text = run("replay old.hdf5 demos=1")
    assert code == 1
    assert "unknown to the installed robosuite: gripper_visualization" in text
    assert "differs from step 1 on; not solved at the end  <- more than 5 mm" in text
    with h5py.File("bare.hdf5", "w") as file:
        file.create_group("data/demo_0")["actions"] = recording.actions
    assert run("replay bare.hdf5")[0] == 2
