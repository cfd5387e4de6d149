"""Poses relative to the gripper's: what a policy learns does not depend on where it is, and what it does does."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch._subclasses.fake_tensor import FakeTensorMode

from pixio_robot.cli.evaluation_target import finished_policy
from pixio_robot.data.actions.pose_columns import find_pose_columns
from pixio_robot.data.actions.rotations import ROTATION_SIZES, matrices_from_rotations, rotations_from_matrices
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.loading import DemoWindows
from pixio_robot.data.stats import Range, Statistics, compute_mixture_statistics, compute_range
from pixio_robot.errors import UserError
from pixio_robot.types import Batch, DemoSpec, Episode, Frame, Observation
from policies.chunking import ChunkedActor
from policies.config import ConditioningConfig
from policies.persistence import load_policy, save_policy
from policies.registry import build_policy, get_policy_entry
from policies.relative_poses import RelativePoses
from policies.relative_statistics import with_relative_poses

FORMS = sorted(ROTATION_SIZES)
AXES = {
    "pos": ("xyz", "m"),
    "axis_angle": ("xyz", "rad"),
    "rot_axis_angle": ("xyz", "rad"),
    "quat": ("xyzw", "1"),
    "quat_site": ("xyzw", "1"),
    "quat_wxyz": ("wxyz", "1"),
    "rot6d": (("xx", "xy", "xz", "yx", "yy", "yz"), "1"),
    "rot6d_rows": (("xx", "xy", "xz", "yx", "yy", "yz"), "1"),
    "matrix": ([a + b for a in "xyz" for b in "xyz"], "1"),
}


def columns(what: str, arm: str = "") -> tuple[str, ...]:
    axes, unit = AXES[what]
    return tuple(f"{arm}eef_{what}.{axis} [{unit}]" for axis in axes)


def spec_of(actions: tuple[str, ...], state: tuple[str, ...], **others) -> DemoSpec:
    known = {"task": "t", "robot": "r", "simulator": "s", "simulator_version": "", "controller": "pose absolute"}
    return DemoSpec(
        **known | {"control_hz": 10.0, "cameras": {}, "state_names": state, "action_names": actions} | others
    )


def one_arm(form: str = "axis_angle", of_state: str = "rot6d", **others) -> DemoSpec:
    delta = tuple(f"eef_delta_pos.{axis} [0.05 m]" for axis in "xyz")
    actions = (*columns("pos"), *columns(form), "gripper", *delta)
    return spec_of(actions, ("joint", *columns("pos"), *columns(of_state)), **others)


@dataclasses.dataclass
class Motion:
    """Poses of one arm over n steps: positions (n, 3) and rotations (n, 3, 3)."""

    place: np.ndarray
    turn: np.ndarray

    @classmethod
    def random(cls, seed: int, n: int = 6) -> "Motion":
        """A gripper that points down, as most do: its rotations are by nearly half a turn."""
        rng = np.random.default_rng(seed)
        down = Rotation.from_euler("zx", [rng.uniform(0, 1.5), np.pi])
        turn = Rotation.from_rotvec(rng.normal(size=(n, 3)) * 0.3) * down
        return cls(rng.normal(size=(n, 3)), turn.as_matrix())

    def moved(self, place: np.ndarray, turn: np.ndarray) -> "Motion":
        return Motion(self.place @ turn.T + place, turn @ self.turn)

    def written(self, names: tuple[str, ...], arm: str = "", fill: float = 0.25) -> np.ndarray:
        """(n, columns) of the absolute poses of this arm; other columns hold `fill`."""
        found = np.full((len(self.place), len(names)), float(fill))
        for block in find_pose_columns(names):
            if block.arm == arm and not block.delta:
                values = block.write(self.place if block.is_position else self.turn)
                if block.form == "axis_angle":  # as our experts write it, without a flip at half a turn
                    other = values - 2 * np.pi * values / np.linalg.norm(values, axis=1, keepdims=True)
                    values = np.where(values[:, :1] + values[:, 1:2] < 0, other, values)
                found[:, block.first : block.stop] = values
        return found


def same(names: tuple[str, ...], one: torch.Tensor, other: torch.Tensor) -> None:
    """The same poses, in whichever way a rotation is written, and the same other columns; each (..., columns)."""
    one, other = (each.flatten(0, -2).double().numpy().copy() for each in (one, other))
    for block in find_pose_columns(names):
        if not block.delta:
            np.testing.assert_allclose(block.read(one), block.read(other), atol=5e-6, err_msg=block.stem)
            one[:, block.first : block.stop] = other[:, block.first : block.stop] = 0
    np.testing.assert_array_equal(one, other)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array).float()[None] for array in arrays]


def of_actions(spec: DemoSpec, absolute: np.ndarray) -> RelativePoses:
    mean = absolute.reshape(-1, absolute.shape[-1]).mean(0)
    return RelativePoses.of_actions(spec, statistics_of(absolute[None, :1], absolute, mean).actions)


def statistics_of(state: np.ndarray, actions: np.ndarray, mean: np.ndarray | None = None) -> Statistics:
    def span(values: np.ndarray) -> Range:
        rows = values.reshape(-1, values.shape[-1])
        return compute_range([rows], len(rows))

    of_actions = span(actions)
    return Statistics(span(state), of_actions if mean is None else dataclasses.replace(of_actions, mean=mean))


@pytest.mark.parametrize(
    "of_state", ["rot6d", "quat", "quat_site", "quat_wxyz", "rot_axis_angle", "matrix", "rot6d_rows"]
)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_pose_in_the_grippers_frame_and_comes_back(form, of_state):
    spec = one_arm(form, of_state)
    now, later = Motion.random(0, 1), Motion.random(1)
    actions, newest = later.written(spec.action_names), now.written(spec.state_names)
    poses = of_actions(spec, actions)
    actions_bna, newest_bs = tensors(actions)[0], torch.from_numpy(newest).float()
    relative_bna = poses.to_frame(actions_bna, newest_bs)
    back = now.turn[0].T
    expected = Motion((later.place - now.place) @ back.T, back @ later.turn).written(spec.action_names)
    np.testing.assert_allclose(relative_bna[0, :, :3], expected[:, :3], atol=2e-6)
    np.testing.assert_allclose(
        matrices_from_rotations(relative_bna[0, :, 3 : 3 + ROTATION_SIZES[form]].numpy(), form),
        back @ later.turn,
        atol=3e-6,
    )
    assert torch.equal(relative_bna[..., -4:], actions_bna[..., -4:])  # gripper and deltas
    same(spec.action_names, poses.from_frame(relative_bna, newest_bs), actions_bna)


@pytest.mark.parametrize("form", FORMS)
def test_moving_and_turning_the_whole_episode_changes_nothing(form):
    spec = one_arm(form)
    away = np.array([0.5, -2.0, 1.0]), Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix()
    found = []
    for motion in (Motion.random(3), Motion.random(3).moved(*away)):
        actions, newest = motion.written(spec.action_names), motion.written(spec.state_names)[2:3]
        relative = of_actions(spec, actions).to_frame(tensors(actions)[0], torch.from_numpy(newest).float())
        found.append(relative)
    torch.testing.assert_close(*found, atol=5e-6, rtol=0)
    # The pose itself is the origin of its frame.
    step = found[0][0, 2]
    np.testing.assert_allclose(step[:3], 0, atol=1e-6)
    np.testing.assert_allclose(step[3 : 3 + ROTATION_SIZES[form]], rotations_from_matrices(np.eye(3), form), atol=1e-6)


def test_each_arm_has_its_own_frame():
    arms = ("robot0_", "robot1_")
    names = tuple(name for arm in arms for what in ("pos", "axis_angle") for name in columns(what, arm))
    states = tuple(name for arm in reversed(arms) for what in ("pos", "quat") for name in columns(what, arm))
    spec = spec_of(names, states)
    away = np.array([0.5, -2.0, 1.0]), Rotation.from_euler("z", 0.7).as_matrix()

    def relative(second: Motion) -> torch.Tensor:
        first = Motion.random(1)
        actions = first.written(names, "robot0_", 0) + second.written(names, "robot1_", 0)
        state = first.written(states, "robot0_", 0) + second.written(states, "robot1_", 0)
        poses = of_actions(spec, actions)
        newest_bs = torch.from_numpy(state[:1]).float()
        found = poses.to_frame(tensors(actions)[0], newest_bs)
        same(names, poses.from_frame(found, newest_bs), tensors(actions)[0])
        return found

    torch.testing.assert_close(relative(Motion.random(2)), relative(Motion.random(2).moved(*away)), atol=5e-6, rtol=0)


def test_columns_in_other_units_are_read_in_them():
    names = tuple(f"eef_pos.{axis} [0.001 m]" for axis in "xyz")
    spec = spec_of(names, (*columns("pos"), *columns("quat")))
    newest_bs = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]])
    actions_bna = torch.tensor([[[1010.0, 2000.0, 3000.0]]])
    poses = of_actions(spec, actions_bna.numpy())
    relative_bna = poses.to_frame(actions_bna, newest_bs)
    torch.testing.assert_close(relative_bna, torch.tensor([[[10.0, 0.0, 0.0]]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(poses.from_frame(relative_bna, newest_bs), actions_bna, atol=1e-3, rtol=0)


POSE = (*columns("pos"), *columns("axis_angle"))
FINGERS = ("gripper [m]",)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (spec_of(POSE, columns("pos")), "state lacks the pose of the gripper as one of eef_rot6d, eef_quat"),
        (
            spec_of(columns("pos"), (*columns("quat"), *FINGERS)),
            "state lacks the pose of the gripper as one of eef_pos",
        ),
        (spec_of(columns("pos"), columns("pos")), "state lacks the pose of the gripper as one of eef_rot6d"),
        (spec_of((*POSE, *columns("pos", "b_")), POSE), "state lacks the pose of the b_gripper"),
        (spec_of((*columns("pos"), "rot.x", "rot.y"), POSE), "look like a pose but have unknown names: rot.x, rot.y"),
        (spec_of(("a", "b"), POSE), "names no action eef_pos.x"),
        (
            spec_of(tuple(f"eef_delta_pos.{axis} [m]" for axis in "xyz"), POSE),
            "The actions are no absolute poses: eef_delta_pos.x",
        ),
        (spec_of(POSE, POSE, controller="OSC_POSE absolute in the base's frame"), "not poses in the world frame"),
        (
            spec_of(POSE, (*columns("pos"), *columns("quat")), simulator="robosuite"),
            "eef_quat is that of the hand, which is rotated relative to the controlled point",
        ),
    ],
)
def test_what_is_missing_is_named(spec, words):
    with pytest.raises(UserError, match=words):
        of_actions(spec, np.zeros((1, spec.action_dim)))


def test_mistakes_in_settings_are_named(small_config):
    with pytest.raises(UserError, match=r"Unknown .*action_pose_repr 'rel'\. Did you mean 'relative'"):
        small_config("bc", ConditioningConfig(), action_pose_repr="rel")
    with pytest.raises(UserError, match="obs_pose_repr = relative needs use_state"):
        ConditioningConfig(obs_pose_repr="relative", use_state=False)
    with pytest.raises(
        UserError, match=r"obs_pose_repr = relative does not work with these demonstrations\. The state has no"
    ):
        RelativePoses.of_state(spec_of(POSE, ("joint",)))
    motion, spec = Motion.random(0), one_arm()
    statistics = statistics_of(motion.written(spec.state_names), motion.written(spec.action_names))
    for settings in ({"action_pose_repr": "relative"}, {"conditioning": ConditioningConfig(obs_pose_repr="relative")}):
        config = small_config("bc", settings.pop("conditioning", ConditioningConfig()), **settings)
        with pytest.raises(UserError, match="with_relative_poses"):
            build_policy("bc", config, spec, statistics, None)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DemoStore:
    """Four episodes of a gripper that points down."""
    spec = one_arm()
    store = DemoStore.create(tmp_path_factory.mktemp("demos") / "demos", spec)
    for seed in range(4):
        motion, n = Motion.random(seed, 12 + seed), 12 + seed
        store.append(
            Episode(
                images={},
                state=motion.written(spec.state_names, fill=0.1 * seed).astype(np.float32),
                actions=motion.written(spec.action_names, fill=seed % 2).astype(np.float32),
                rewards=np.zeros(n, np.float32),
                success=True,
                seed=seed,
            )
        )
    return store


CHOSEN = [0, 1, 3]


def made(store: DemoStore, small_config, name: str = "bc", frames: str = "absolute", **options):
    config = small_config(name, ConditioningConfig(obs_pose_repr=frames), **{"action_pose_repr": "relative"} | options)
    chosen = [(store, CHOSEN)]
    statistics = with_relative_poses(compute_mixture_statistics(chosen), config, store.spec, chosen)
    torch.manual_seed(0)
    return build_policy(name, config, store.spec, statistics, None)


def windows_of(policy, store: DemoStore) -> Batch:
    windows = DemoWindows.of_policy(policy, store, episodes=CHOSEN)
    return windows.gather(np.arange(len(windows)))


@pytest.mark.parametrize("learn_padding", [False, True])
def test_statistics_are_over_what_the_windows_hold(store, small_config, learn_padding, monkeypatch):
    monkeypatch.setattr("policies.relative_statistics._WINDOWS_PER_BATCH", 5)
    policy = made(store, small_config, frames="relative", past_actions=1, learn_padding=learn_padding)
    batch = windows_of(policy, store)
    newest_bs = batch.observation.state[:, -1]
    relative_bna = policy.relative_actions.to_frame(batch.actions, newest_bs)
    rows = relative_bna[~batch.ignored].double().numpy()
    assert batch.ignored.any() != learn_padding
    assert (policy.real_share(batch).item() == 1) == learn_padding
    of = policy.statistics.relative_actions
    for found, expected in [
        (of.minimum, rows.min(0)),
        (of.maximum, rows.max(0)),
        (of.mean, rows.mean(0)),
        (of.std, rows.std(0)),
        (of.q01, np.quantile(rows, 0.01, axis=0)),
    ]:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    # The state of the newest frame is the origin, and the joint stays as it is.
    state_bts = policy.conditioning.relative_state.to_frame(batch.observation.state, newest_bs)
    np.testing.assert_allclose(policy.statistics.relative_state.minimum, state_bts.amin((0, 1)), atol=1e-6)
    np.testing.assert_allclose(state_bts[:, -1, 1:4], 0, atol=1e-6)
    assert torch.equal(state_bts[..., 0], batch.observation.state[..., 0])
    # And those of absolute poses stay, for the branch of their rotations and the watch over the state.
    assert policy.statistics.actions.mean[2] == pytest.approx(
        compute_mixture_statistics([(store, CHOSEN)]).actions.mean[2]
    )


@pytest.mark.parametrize("frames", ["absolute", "relative"])
@pytest.mark.parametrize("name", ["bc", "diffusion", "act", "bc_rnn"])
def test_it_learns_acts_and_opens_again(store, small_config, name, frames, tmp_path):
    options = {"action_normalisation": "min_max"}
    policy = made(store, small_config, name, frames, **options)
    batch = windows_of(policy, store)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        torch.manual_seed(1)
        optimiser.zero_grad()
        loss, _ = policy.loss(batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    policy.eval()
    seeds = list(range(len(batch.actions)))
    actions = policy.act(batch.observation, seeds)
    assert actions.shape == batch.actions.shape
    assert not actions.requires_grad
    # Absolute poses come out; seen from the gripper, they are in the range of the demonstrations.
    seen = policy.relative_actions.to_frame(actions, batch.observation.state[:, -1])
    of = policy.statistics.relative_actions
    assert (seen[..., :3].double().numpy() >= of.minimum[:3] - 1e-4).all()
    assert (seen[..., :3].double().numpy() <= of.maximum[:3] + 1e-4).all()
    save_policy(tmp_path / "policy", policy)
    again = load_policy(tmp_path / "policy")
    assert again.config == policy.config
    assert torch.equal(again.act(batch.observation, seeds), actions)


def test_the_right_chunk_has_no_loss_and_is_acted(store, small_config, monkeypatch):
    """Both start from the newest frame of several."""
    policy = made(store, small_config)
    batch = windows_of(policy, store)
    newest_bs = batch.observation.state[:, -1]
    assert (newest_bs != batch.observation.state[:, 0]).any()
    right = policy.actions(policy.relative_actions.to_frame(batch.actions, newest_bs))
    monkeypatch.setattr(policy, "sample", lambda seen, seeds: right)
    assert policy.loss(batch)[0].item() == pytest.approx(0, abs=1e-5)
    acted = policy.relative_actions.to_frame(policy.act(batch.observation), newest_bs)
    torch.testing.assert_close(policy.actions(acted), right, atol=1e-3, rtol=0)


def test_seen_from_the_gripper_alone_the_whole_scene_may_move(store, small_config):
    policy = made(store, small_config, "diffusion", "relative").eval()
    spec = store.spec
    motion = Motion.random(7, 2)
    away = np.array([0.5, -2.0, 1.0]), Rotation.from_euler("z", 0.6).as_matrix()
    here, there = (
        policy.act(Observation({}, tensors(each.written(spec.state_names))[0]), [3])[0].double().numpy()
        for each in (motion, motion.moved(*away))
    )
    np.testing.assert_allclose(there[:, :3], here[:, :3] @ away[1].T + away[0], atol=1e-4)
    turns = [Rotation.from_rotvec(each[:, 3:6]) for each in (here, there)]
    assert ((Rotation.from_matrix(away[1]) * turns[0]) * turns[1].inv()).magnitude().max() < 1e-3
    np.testing.assert_allclose(there[:, 6:], here[:, 6:], atol=1e-4)


def test_predictions_of_several_chunks_are_averaged_as_absolute_poses(store, small_config, monkeypatch):
    """The first action of each chunk is the gripper's pose; it moves between the chunks, and points down."""
    policy = made(store, small_config, observation_steps=1, horizon=2, ensemble_weight=0.0, execute=1)
    still = np.zeros(store.spec.action_dim)
    still[6:] = 0.5
    normalised = policy.actions(torch.from_numpy(still).float()).expand(1, 2, -1)
    monkeypatch.setattr(policy, "sample", lambda seen, seeds: normalised)
    monkeypatch.setattr(policy.actions, "how", "none")  # not clamped
    actor = ChunkedActor(policy, 1, batch_size=1, ensemble_weight=0.0)
    actor.reset(0, 0)
    places = np.array([[0.0, 0.0, 1.0], [0.2, 0.0, 1.0]])
    # On both sides of half a turn, where the shorter axis-angle flips.
    yaw = Rotation.from_euler("z", 0.7)
    turns = [(yaw * Rotation.from_euler("x", np.pi + slight)).as_matrix() for slight in (-0.05, 0.05)]
    frames = Motion(places, np.stack(turns)).written(store.spec.state_names).astype(np.float32)
    actions = [actor.act({0: Frame({}, frame)})[0] for frame in frames]
    np.testing.assert_allclose(actions[0][:3], places[0], atol=1e-5)
    np.testing.assert_allclose(actions[1][:3], places.mean(0), atol=1e-5)
    middle = Rotation.from_rotvec(actions[1][3:6]) * (yaw * Rotation.from_euler("x", np.pi)).inv()
    assert middle.magnitude() < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_it_waits_for_no_value_and_is_one_graph(form):
    spec = one_arm(form)
    motion = Motion.random(0)
    actions_bna, state_bts = tensors(motion.written(spec.action_names), motion.written(spec.state_names))
    poses = of_actions(spec, motion.written(spec.action_names))

    def there_and_back(actions_bna: torch.Tensor, newest_bs: torch.Tensor) -> torch.Tensor:
        return poses.from_frame(poses.to_frame(actions_bna, newest_bs), newest_bs)

    compiled = torch.compile(there_and_back, backend="eager", fullgraph=True)
    same(spec.action_names, compiled(actions_bna, state_bts[:, 0]), actions_bna)
    shapes = actions_bna.shape, state_bts[:, 0].shape
    with FakeTensorMode():
        fakes = [torch.empty(shape, device="cuda:0") for shape in shapes]
        assert there_and_back(*fakes).device.type == "cuda"


@pytest.mark.parametrize("name", ["bc", "diffusion"])
def test_everything_a_policy_computes_lies_on_its_device(store, small_config, name):
    policy = made(store, small_config, name, "relative")
    batch = windows_of(policy, store)
    with FakeTensorMode(), torch.no_grad():

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda:0")

        policy._apply(fake)
        there = batch.map(fake)
        assert policy.loss(there)[0].device.type == "cuda"
        assert policy.eval().act(there.observation, range(len(batch.actions))).device.type == "cuda"


@pytest.mark.parametrize("name", ["bc", "diffusion"])
def test_poses_keep_their_precision_in_bfloat16(store, small_config, name):
    """A network's output is rounded, but not the pose that it is added to."""
    policy = made(store, small_config, name, "relative").eval()
    observation = windows_of(policy, store).observation
    far = observation.state.clone()
    far[..., 1:4] += 100.0
    seeds = range(len(far))
    with torch.autocast("cpu", torch.bfloat16):
        here = policy.act(observation, seeds)
        there = policy.act(Observation({}, far), seeds)
    assert there.dtype == torch.float32
    torch.testing.assert_close(there[..., :3] - 100.0, here[..., :3], atol=2e-3, rtol=0)


def test_a_policy_that_does_not_see_the_state_still_asks_for_it(world, encoder, tmp_path):
    """Otherwise it would act where the state has other columns, and take the wrong ones for the gripper's pose."""
    spec = dataclasses.replace(one_arm(), cameras=world.spec.cameras)
    motion = Motion.random(0)
    statistics = statistics_of(motion.written(spec.state_names), motion.written(spec.action_names))
    for choice, names in (("relative", spec.state_names), ("absolute", ())):
        conditioning = ConditioningConfig(cameras=["front"], use_state=False)
        config = get_policy_entry("bc").config(conditioning=conditioning, action_pose_repr=choice)
        complete = dataclasses.replace(statistics, relative_actions=statistics.actions)
        save_policy(tmp_path / choice, build_policy("bc", config, spec, complete, encoder))
        assert finished_policy(str(tmp_path / choice), "x").spec.state_names == names
        assert (load_policy(tmp_path / choice).state_range is not None) == (choice == "relative")
