"""The values that cross between rooms, and the protocols that tie them together.

Axis names: b batch, t time, h height, w width, k class tokens, d feature width, s state, a action.
Nothing here imports a simulator, a policy or a trainer, and no room needs another room's classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pixio_robot.machine import to_device

if TYPE_CHECKING:  # a simulator's worker process needs these values, but not the seconds and megabytes of torch
    import numpy as np
    import torch
    from torch import Tensor


UNKNOWN = "unknown"
"""Of text in a DemoSpec: whoever made the demonstrations did not say."""
OF_THE_TASK = "of the task"
"""Of robot and controller in the DemoSpec of somebody else's environment, which names neither."""
SEVERAL = " + "
"""Joins in a DemoSpec what several stores call otherwise, such as the tasks that one policy learned."""
UNSEEDED = "episodes do not follow from their seeds"
"""In `source` of an environment that says so of itself: episodes of the same seed are no pairs there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """One camera stream: RGB, uint8, (height, width) pixels, origin at the top left."""

    height: int
    width: int
    fov_y_degrees: float | None = None
    intrinsics: Sequence[float] | None = None
    """fx, fy, cx, cy in pixels of this stream, where known."""
    extrinsics: Sequence[Sequence[float]] | None = None
    """Pose of the camera (OpenCV axes: x right, y down, z forward) as a homogeneous 4 x 4 matrix in metres, relative
    to `mounted_on`, where known."""
    mounted_on: str | None = None
    """The frame that carries the camera: `world`, or the name of a moving link."""

    def __post_init__(self) -> None:
        # JSON has lists only; as tuples, a spec that was read again equals the one that was written.
        if self.intrinsics is not None:
            object.__setattr__(self, "intrinsics", tuple(map(float, self.intrinsics)))
        if self.extrinsics is not None:
            object.__setattr__(self, "extrinsics", tuple(tuple(map(float, row)) for row in self.extrinsics))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoSpec:
    """What a demonstration, an environment or a policy means by its numbers.

    Two things with equal specs (`differences` empty) can be plugged into each other.
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
    """`full`, `fast` (either after `ray traced, ` where MuJoCo Warp drew) or `unknown`; part of the contract,
    because it changes the images."""
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

    def read_by(self, cameras: Sequence[str], state: bool) -> DemoSpec:
        """The same without what a policy does not look at: other cameras, and the state if it does not feel it."""
        return dataclasses.replace(
            self,
            cameras={name: self.cameras[name] for name in cameras},
            state_names=self.state_names if state else (),
        )

    def unknown(self) -> list[str]:
        """The fields that the origin of imported demonstrations left open, which nobody can compare."""
        return [name for name in ("robot", "controller", "render_quality") if getattr(self, name) == UNKNOWN]

    def differences(self, other: DemoSpec) -> list[str]:
        """Every field that keeps a policy made for `self` from running on `other`, as text.

        Names of source and licence, the simulator's version, and where a camera is known to stand do not matter for
        that; nor does what is `unknown` of `self`. `other` may have more cameras than `self`, and a state where `self`
        has none.
        """
        found = []
        for field in ("task", "robot", "controller", "control_hz", "render_quality"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine not in (theirs, UNKNOWN):
                found.append(f"{field}: {mine!r} against {theirs!r}")
        for field in ("state_names", "action_names"):
            mine, theirs = list(getattr(self, field)), list(getattr(other, field))
            if mine != theirs and not (field == "state_names" and not mine):
                found.append(f"{field}: {mine} against {theirs}")
        for name, camera in self.cameras.items():
            if name not in other.cameras:
                found.append(f"cameras: {name!r} is missing, there are {sorted(other.cameras)}")
                continue
            theirs = other.cameras[name]
            if (camera.height, camera.width) != (theirs.height, theirs.width):
                found.append(
                    f"camera {name!r}: {camera.height}x{camera.width} against {theirs.height}x{theirs.width} pixels"
                )
        return found


@dataclasses.dataclass(kw_only=True)
class Episode:
    """One demonstration of n steps: what was seen before each action, and the action.

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
    """What a simulator knows of n frames of one camera.

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
    """What an encoder says of b frames: class tokens (b, k, d) and a patch map (b, h, w, d)."""

    cls: Tensor
    patches: Tensor
    crop: tuple[int, int] | None = None
    """Of cached features: height and width [px] of the part of every image that they are of; None: the whole."""

    def map(self, function: Any) -> Features:
        return Features(function(self.cls), function(self.patches), self.crop)


@dataclasses.dataclass
class Observation:
    """b observation windows of t frames.

    images[camera] uint8 (b, t, h, w, 3) or, where features are cached, features[camera] whose
    tensors have the leading axes (b, t); state float32 (b, t, s) in physical units; goal float32 (b, g), what is
    wanted (the embedding of an instruction or of a task), for policies that are told.
    """

    images: Mapping[str, Tensor]
    state: Tensor
    features: Mapping[str, Features] = dataclasses.field(default_factory=dict)
    goal: Tensor | None = None

    def to(self, device: torch.device) -> Observation:
        return Observation(
            {name: to_device(value, device) for name, value in self.images.items()},
            to_device(self.state, device),
            {name: value.map(lambda tensor: to_device(tensor, device)) for name, value in self.features.items()},
            None if self.goal is None else to_device(self.goal, device),
        )


@dataclasses.dataclass
class Batch:
    """Training windows: what is seen, then the actions (b, horizon, a) and which of them are padding."""

    observation: Observation
    actions: Tensor
    is_pad: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(
            self.observation.to(device),
            to_device(self.actions, device),
            to_device(self.is_pad, device),
        )


@dataclasses.dataclass
class Frame:
    """What one environment shows at one step: images[camera] uint8 (h, w, 3), state float32 (s,).

    `images` is empty when nobody asked for them: rendering is the expensive part of a step.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray


@dataclasses.dataclass
class StepResult:
    frame: Frame
    reward: float
    success: bool
    done: bool
    """The episode is over: success or the horizon."""


@dataclasses.dataclass(kw_only=True)
class EpisodeResult:
    """One evaluated episode, one line of `episodes.jsonl`."""

    seed: int
    success: bool
    steps: int
    episode_return: float
    first_success: int | None = None
    """Steps until the task was first solved; an episode that goes on may fail all the same. None: never, or a result
    of before this was noted."""
    restarts: int = 0
    """How often a worker died under this episode and it was run again from its seed."""
    video: str | None = None
    highest_reward: float | None = None
    """Of all its steps, which is what diffusion_policy scores Push-T by. None in results of before this was noted."""


@runtime_checkable
class Encoder(Protocol):
    """Pixels to features. It owns its resize and its mean/std: nobody else normalises pixels.

    A concrete encoder is a `torch.nn.Module`; calling it takes images uint8 (b, h, w, 3).
    """

    feature_dim: int

    def __call__(self, images: Tensor) -> Features: ...

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patch map for images of that many pixels."""
        ...

    def fingerprint(self) -> str:
        """A hash of weights and preprocessing: equal fingerprints give equal features."""
        ...


@runtime_checkable
class Policy(Protocol):
    """A policy owns the normalisation of actions and state both ways. It is a `torch.nn.Module`."""

    spec: DemoSpec
    observation_steps: int
    horizon: int
    cameras: Sequence[str]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar to minimise, and named detached scalars to log."""
        ...

    def act(self, observation: Observation, seeds: Sequence[int] | None = None) -> Tensor:
        """Actions (b, horizon, a) in physical units; row i draws its noise from seeds[i]."""
        ...


@runtime_checkable
class Actor(Protocol):
    """Closes the loop over many environments at once: history in, one action a step out."""

    def reset(self, slot: int, seed: int) -> None:
        """A new episode begins in this slot."""
        ...

    def needs_images(self, slot: int) -> bool:
        """Whether the frame after the coming step (or reset) will be looked at."""
        ...

    def act(self, frames: Mapping[int, Frame]) -> dict[int, np.ndarray]:
        """One action (a,) for every slot given; called once per step with all running slots."""
        ...


@runtime_checkable
class EnvPool(Protocol):
    """`num_slots` environments in worker processes, stepped together.

    A worker that dies or hangs is started again; its slots come back in `lost` and must be reset.
    """

    spec: DemoSpec
    num_slots: int

    def reset(self, seeds: Mapping[int, int], render: Mapping[int, bool]) -> tuple[dict[int, Frame], set[int]]:
        """Start the episode of that seed in each slot: (frames, lost slots)."""
        ...

    def step(
        self, actions: Mapping[int, np.ndarray], render: Mapping[int, bool]
    ) -> tuple[dict[int, StepResult], set[int]]:
        """One control step in each slot given: (results, lost slots)."""
        ...

    def close(self) -> None: ...
