"""`--policy.type=pixio_robot`: a policy trained by `pixio-robot train` as a LeRobot policy (lerobot 0.6)."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from lerobot.processor.factory import make_default_pre_post_processors
from torch import Tensor

from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.lerobot_meaning import ACTION, STATE
from pixio_robot.lerobot_plugin.feature_map import FeatureMap
from pixio_robot.state_watch import StateWatch
from pixio_robot.types import DemoSpec, Observation
from policies.acting import ActingConfig, act_as
from policies.chunking import ChunkedActor, chunked_actor
from policies.persistence import load_policy

TRAINED_HERE = "Policies of type pixio_robot are trained by `pixio-robot train`; lerobot's commands can only run them."


@PreTrainedConfig.register_subclass("pixio_robot")
@dataclasses.dataclass
class PixioRobotConfig(PreTrainedConfig):
    """Which policy to run, and how it acts: the settings of `pixio-robot evaluate`; null keeps the trained value."""

    checkpoint: str = ""
    """Output directory of `pixio-robot train`."""
    cameras: dict[str, str] = dataclasses.field(default_factory=dict)
    """Policy camera -> LeRobot feature, for cameras whose feature does not have the name that `data import` uses."""
    state: list[str] = dataclasses.field(default_factory=lambda: [STATE])
    """LeRobot features that form the policy's state, in order, as in `data import state=`."""
    task: str = ""
    """Task to do, for a policy trained on several tasks."""
    execute: int | None = None
    ensemble_weight: float | None = None
    inference_steps: int | None = None
    noise_seed: int = 0

    normalization_mapping: dict[str, NormalizationMode] = dataclasses.field(
        default_factory=lambda: {kind.value: NormalizationMode.IDENTITY for kind in FeatureType}
    )
    """Identity: the policy does its own normalisation."""

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> Any:
        raise UserError(TRAINED_HERE)

    def get_scheduler_preset(self) -> Any:
        raise UserError(TRAINED_HERE)

    def validate_features(self) -> None:
        """Nothing to do here: PixioRobotPolicy checks the features when it is created."""


def make_pixio_robot_pre_post_processors(config: PixioRobotConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """LeRobot's default pipelines, which do not normalise here."""
    del dataset_stats
    return make_default_pre_post_processors(config)


class PixioRobotPolicy(PreTrainedPolicy):
    """Receding-horizon execution of action chunks, separately for every row of a batch.

    Observations are LeRobot's: images float32 (b, 3, h, w) from 0 to 1, vectors float32 (b, n). Actions are (b, a), in
    the units of the demonstrations. Each row is an episode with its own noise; `reset` starts new episodes.
    """

    config_class = PixioRobotConfig  # pyright: ignore[reportAssignmentType]
    name = "pixio_robot"  # pyright: ignore[reportAssignmentType]
    config: PixioRobotConfig

    def __init__(self, config: PixioRobotConfig, **_: Any):
        """Raises UserError if there is no policy, or if it does not match the features in `config`."""
        super().__init__(config)
        if not config.checkpoint:
            raise UserError("--policy.checkpoint=DIR is required: the output directory of `pixio-robot train`.")
        self.policy = load_policy(policy_directory(config.checkpoint))
        names = [field.name for field in dataclasses.fields(ActingConfig)]
        act_as(self.policy, ActingConfig(**{name: getattr(config, name) for name in names}))
        spec = self.policy.spec.read_by(self.policy.cameras, self.policy.config.reads_state)
        self._features = FeatureMap.of(config, spec)
        if config.input_features:  # otherwise checked with the first observation
            self._features.check({key: tuple(feature.shape) for key, feature in config.input_features.items()})
        self._check_actions(spec)
        self._goal = self._wanted(config.task)
        self._actor: ChunkedActor | None = None
        self._rows = self._episodes = 0
        self._watch = StateWatch.of(spec.state_names, self.policy.state_range)

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: Any, *, config: Any = None, **_: Any) -> PixioRobotPolicy:
        """LeRobot's loader for its own saved policies. Raises UserError if asked to load a path that way."""
        if pretrained_name_or_path is not None or not isinstance(config, PixioRobotConfig):
            raise UserError(f"Use --policy.type=pixio_robot --policy.checkpoint={pretrained_name_or_path or 'DIR'}.")
        return cls(config).to(config.device).eval()

    def reset(self) -> None:
        self._actor = None

    def select_action(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """The next action of each row, (b, a). Raises UserError for an observation that does not match the policy."""
        rows = self._features.rows(batch)
        if self._actor is None or rows != self._rows:
            self._begin(rows)
        assert self._actor is not None
        looks = any(self._actor.needs_images(row) for row in range(rows))
        frames = list(self._features.frames(batch, looks))
        for frame in frames:
            if self._watch is not None and (words := self._watch.words(frame.state)):
                warnings.warn(words, stacklevel=2)
        actions = self._actor.act(dict(enumerate(frames)))
        return torch.from_numpy(np.stack([actions[row] for row in range(rows)])).to(self.config.device)

    def predict_action_chunk(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """Action chunks (b, horizon, a). Raises UserError for a policy that needs several frames: only one is given."""
        steps = self.policy.observation_steps
        if steps > 1:
            raise UserError(
                f"The policy needs {steps} frames, but LeRobot's chunked inference provides one: use the mode that "
                "requests one action per step (--inference.type=sync)."
            )
        images, state = self._features.arrays(batch, True)
        seeds = range(self._episodes, self._episodes + len(state))
        self._episodes += len(state)
        goal = None if self._goal is None else torch.tensor(self._goal).expand(len(state), -1)
        observation = Observation(
            {camera: torch.from_numpy(pixels[:, None]) for camera, pixels in images.items()},
            torch.from_numpy(state[:, None]),
            goal=goal,
        )
        with torch.inference_mode():
            return self.policy.act(observation.to(torch.device(self.config.device or "cpu")), list(seeds))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        raise UserError(TRAINED_HERE)

    def get_optim_params(self) -> dict[str, Any]:
        raise UserError(TRAINED_HERE)

    def _begin(self, rows: int) -> None:
        device = self.config.device or "cpu"
        self._actor = chunked_actor(self.policy, rows, device, self._goal, self.config.noise_seed)
        for row in range(rows):
            self._actor.reset(row, self._episodes + row)
        self._rows = rows
        self._episodes += rows

    def _check_actions(self, spec: DemoSpec) -> None:
        feature = (self.config.output_features or {}).get(ACTION)
        if feature is not None and tuple(feature.shape) != (spec.action_dim,):
            raise UserError(
                f"{ACTION} has shape {tuple(feature.shape)} here, but the policy outputs {spec.action_dim} numbers: "
                f"{', '.join(spec.action_names)}."
            )

    def _wanted(self, task: str) -> Sequence[float] | None:
        goals = self.policy.goals
        if goals and not task:
            raise UserError(f"This policy needs a task: set --policy.task= to one of {', '.join(map(repr, goals))}.")
        if goals and task not in goals:
            raise unknown_name("task (--policy.task)", task, goals)
        return goals.get(task)
