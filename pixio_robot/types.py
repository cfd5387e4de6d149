"""Shared data types and protocols: the interface between the packages.

Axis names: b batch, t time, h height, w width, k class tokens, d feature width, s state, a action.
Nothing here imports a simulator, a policy or a trainer, so that packages depend on these types and not on each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pixio_robot.machine import to_device

if TYPE_CHECKING:  # simulator workers need these types, but not the import time and memory of torch
    import numpy as np
    import torch
    from torch import Tensor, nn


UNKNOWN = "unknown"
"""Value of a DemoSpec text field that the source of the demonstrations did not specify."""
OF_THE_TASK = "of the task"
"""Value of DemoSpec.robot and .controller for third-party environments, which name neither."""
SEVERAL = " + "
"""Separator in a DemoSpec for values that differ between stores, such as the tasks of a multi-task policy."""
SIMULATED = "simulated: "
"""Precedes, in `source`, the scene of demonstrations that one of our environments recorded from a seed."""
UNSEEDED = "episodes do not follow from their seeds"
"""Part of `source` that marks an environment that is not reproducible from seeds: equal seeds give no paired
episodes."""


HORIZON = ", horizon "
"""Precedes, in `source`, the longest episode in control steps, if it is not the task's own."""


def join_several(values: Iterable[str]) -> str:
    """The distinct values as one DemoSpec text, without empty ones."""
    return SEVERAL.join(dict.fromkeys(value for value in values if value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """One camera stream: RGB, uint8, (height, width) pixels, origin at the top left."""

    height: int
    width: int
    fov_y_degrees: float | None = None
    intrinsics: Sequence[float] | None = None
    """fx, fy, cx, cy in pixels of this stream; None if unknown."""
    extrinsics: Sequence[Sequence[float]] | None = None
    """Pose of the camera (OpenCV axes: x right, y down, z forward) as a homogeneous 4 x 4 matrix in metres, relative
    to `mounted_on`; None if unknown."""
    mounted_on: str | None = None
    """Reference frame that the camera is fixed to: `world`, or the name of a moving link."""

    def __post_init__(self) -> None:
        # JSON only has lists; converting to tuples makes a spec equal to its JSON round trip.
        if self.intrinsics is not None:
            object.__setattr__(self, "intrinsics", tuple(map(float, self.intrinsics)))
        if self.extrinsics is not None:
            object.__setattr__(self, "extrinsics", tuple(tuple(map(float, row)) for row in self.extrinsics))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoSpec:
    """Meaning of the observations and actions of a demonstration, an environment or a policy.

    Specs without `differences` are compatible: a policy can run in that environment.
    """

    task: str
    robot: str
    simulator: str
    simulator_version: str
    controller: str
    control_hz: float
    cameras: Mapping[str, CameraSpec]
    state_names: Sequence[str]
    """One name per state dimension, unit in square brackets: `eef_pos.x [m]`."""
    action_names: Sequence[str]
    render_quality: str = "full"
    """`full`, `fast` (either prefixed with `ray traced, ` if rendered by MuJoCo Warp) or `unknown`; part of the
    spec because it changes the images."""
    source: str = ""
    licence: str = ""

    @property
    def state_dim(self) -> int:
        return len(self.state_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    def to_json(self) -> dict[str, Any]:
        value = dataclasses.asdict(self)
        return value | {"state_names": list(self.state_names), "action_names": list(self.action_names)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DemoSpec:
        cameras = {name: CameraSpec(**camera) for name, camera in value["cameras"].items()}
        return cls(
            **dict(value)
            | {
                "cameras": cameras,
                "state_names": tuple(value["state_names"]),
                "action_names": tuple(value["action_names"]),
            }
        )

    def restricted_to(self, cameras: Sequence[str], state: bool) -> DemoSpec:
        """A copy restricted to what a policy uses: only these cameras, and no state unless `state`."""
        return dataclasses.replace(
            self,
            cameras={name: self.cameras[name] for name in cameras},
            state_names=self.state_names if state else (),
        )

    def unknown_fields(self) -> list[str]:
        """The fields that the source of imported demonstrations did not specify, which cannot be compared."""
        return [name for name in ("robot", "controller", "render_quality") if getattr(self, name) == UNKNOWN]

    def differences(self, other: DemoSpec) -> list[str]:
        """Describe every field that prevents a policy made for `self` from running on `other`.

        Ignored are source, licence, simulator, its version, camera calibration, capitals of the robot's name (LeRobot's
        `panda`), and fields that are `unknown` in `self`. `other` may have more cameras than `self`, and a state where
        `self` has none.
        """
        differences = []
        for field in ("task", "robot", "controller", "control_hz", "render_quality"):
            value, other_value = getattr(self, field), getattr(other, field)
            if field == "robot" and value.casefold() == other_value.casefold():
                continue
            if value not in (other_value, UNKNOWN):
                differences.append(f"{field}: {value!r} against {other_value!r}")
        for field in ("state_names", "action_names"):
            names, other_names = list(getattr(self, field)), list(getattr(other, field))
            if names != other_names and not (field == "state_names" and not names):
                differences.append(f"{field}: {_describe_differing_names(names, other_names)}")
        for name, camera in self.cameras.items():
            if name not in other.cameras:
                differences.append(f"cameras: {name!r} is missing, there are {sorted(other.cameras)}")
                continue
            other_camera = other.cameras[name]
            if (camera.height, camera.width) != (other_camera.height, other_camera.width):
                differences.append(
                    f"camera {name!r}: {camera.height}x{camera.width} against "
                    f"{other_camera.height}x{other_camera.width} pixels"
                )
        return differences


def _describe_differing_names(names: Sequence[str], others: Sequence[str]) -> str:
    """Describe how two lists of names differ, without the names that they share: the lists of a humanoid are long."""
    missing, unexpected = [name for name in names if name not in others], [name for name in others if name not in names]
    groups = (("missing", missing), ("unexpected", unexpected))
    parts = [f"{what} {', '.join(group)}" for what, group in groups if group]
    return ", ".join(parts) or f"{list(names)} against {list(others)}, in another order"


@dataclasses.dataclass(kw_only=True)
class Episode:
    """One demonstration of n steps: the observation before each action, and the action.

    images[camera] uint8 (n, h, w, 3), state float32 (n, s), actions float32 (n, a), rewards float32 (n,).
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    success: bool
    seed: int
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.actions)


@dataclasses.dataclass(kw_only=True)
class GroundTruth:
    """Simulator ground truth for n frames of one camera.

    images uint8 (n, h, w, 3); depth float32 (n, h, w), metres along the camera's axis; classes int32 (n, h, w), indices
    into `class_names`; positions[name] float32 (n, 3), metres in the world; camera_axes float32 (n, 3, 3), the camera's
    rotation in the world; contact bool (n,), whether the robot touches an object; episode int64 (n,), its seed.
    """

    images: np.ndarray
    depth: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    positions: Mapping[str, np.ndarray]
    camera_axes: np.ndarray
    contact: np.ndarray
    episode: np.ndarray


@dataclasses.dataclass
class Features:
    """Encoder output for b frames: class tokens (b, k, d) and a patch map (b, h, w, d)."""

    cls: Tensor
    patches: Tensor
    crop: tuple[int, int] | None = None
    """Cached features: height and width [px] of the image crop that was encoded; None: the whole image."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Features:
        return Features(function(self.cls), function(self.patches), self.crop)


@dataclasses.dataclass
class Observation:
    """b observation windows of t frames.

    images[camera] uint8 (b, t, h, w, 3) or, where features are cached, features[camera] whose tensors have the
    leading axes (b, t); state float32 (b, t, s) in physical units; goal float32 (b, g), the embedding of an
    instruction or task, for goal-conditioned policies.
    """

    images: Mapping[str, Tensor]
    state: Tensor
    features: Mapping[str, Features] = dataclasses.field(default_factory=dict)
    goal: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Observation:
        return Observation(
            {name: function(value) for name, value in self.images.items()},
            function(self.state),
            {name: value.map(function) for name, value in self.features.items()},
            None if self.goal is None else function(self.goal),
        )

    def to(self, device: torch.device | str) -> Observation:
        return self.map(lambda tensor: to_device(tensor, device))


@dataclasses.dataclass
class Batch:
    """Training windows: observations, actions (b, horizon, a), and which actions the loss ignores, bool (b, horizon):
    padding past an episode's end, unless it is learned, and reactions to what cannot be foreseen (`data.windows`)."""

    observation: Observation
    actions: Tensor
    ignored: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(self.observation.map(function), function(self.actions), function(self.ignored))

    def to(self, device: torch.device | str) -> Batch:
        return self.map(lambda tensor: to_device(tensor, device))


@dataclasses.dataclass
class Frame:
    """Observation of one environment at one step: images[camera] uint8 (h, w, 3), state float32 (s,).

    `images` is empty when no images were requested: rendering is the expensive part of a step.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray


@dataclasses.dataclass
class StepResult:
    frame: Frame
    reward: float
    success: bool
    done: bool
    """The episode is over: the task ended it, as most do at a success, or the horizon is reached."""


@dataclasses.dataclass(kw_only=True)
class EpisodeResult:
    """One evaluated episode, one line of `episodes.jsonl`."""

    seed: int
    success: bool
    steps: int
    episode_return: float
    highest_reward: float
    """Maximum reward over all steps, the Push-T score of diffusion_policy."""
    first_success: int | None = None
    """Steps until the task was first solved; an episode that continues may still fail. None: never solved."""
    restarts: int = 0
    """How often the episode was restarted from its seed because its worker died."""
    video: str | None = None


@runtime_checkable
class Encoder(Protocol):
    """Maps images to features. It does its own resizing and mean/std normalisation; no other code normalises pixels.

    A concrete encoder is a `torch.nn.Module`; calling it takes images uint8 (b, h, w, 3).
    """

    feature_dim: int

    def __call__(self, images: Tensor) -> Features: ...

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patch map for images of this size in pixels."""
        ...

    def fingerprint(self) -> str:
        """A hash of weights and preprocessing: equal fingerprints give equal features."""
        ...


@runtime_checkable
class Policy(Protocol):
    """A policy normalises state and actions, and unnormalises its output, itself. It is a `torch.nn.Module`."""

    spec: DemoSpec
    observation_steps: int
    horizon: int
    cameras: Sequence[str]

    def act(self, observation: Observation, seeds: Sequence[int] | None = None) -> Tensor:
        """Actions (b, horizon, a) in physical units; row i draws its noise from seeds[i]."""
        ...


@runtime_checkable
class TrainablePolicy(Policy, Protocol):
    """What training needs of a policy besides."""

    goals: Mapping[str, Sequence[float]]
    """What the policy is told of each task (`Observation.goal`); empty if it is told nothing."""

    @property
    def encoders(self) -> Sequence[nn.Module]:
        """The image encoders among its modules: none, one for all cameras, or one for each."""
        ...

    def prepare(self, observations: Iterable[Observation]) -> None:
        """Fit what is not learned by gradients, before training, on a few hundred windows."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar to minimise, and named detached scalars to log."""
        ...

    def real_share(self, batch: Batch) -> Tensor:
        """The share of the batch's action steps over which `loss` averages; training weights batches by it."""
        ...


@runtime_checkable
class Actor(Protocol):
    """Closed-loop control of many environments at once: takes frames, returns one action per step."""

    def reset(self, slot: int, seed: int) -> None:
        """A new episode begins in this slot."""
        ...

    def needs_images(self, slot: int) -> bool:
        """Whether the images of the frame after the next step (or reset) will be used."""
        ...

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        """One action (a,) for every slot given; called once per step with all running slots."""
        ...


@runtime_checkable
class EnvPool(Protocol):
    """`num_slots` environments in worker processes, stepped together.

    A worker that dies or hangs is restarted; its slots are returned in `lost` and must be reset.
    """

    spec: DemoSpec
    num_slots: int

    def reset(self, seeds: Mapping[int, int], render: Mapping[int, bool]) -> tuple[dict[int, Frame], set[int]]:
        """Start an episode with the given seed in each slot: (frames, lost slots)."""
        ...

    def step(
        self, actions: Mapping[int, np.ndarray], render: Mapping[int, bool]
    ) -> tuple[dict[int, StepResult], set[int]]:
        """One control step in each slot given: (results, lost slots)."""
        ...

    def close(self) -> None: ...
