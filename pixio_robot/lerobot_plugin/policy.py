"""`--policy.type=pixio_robot`: a policy trained by `pixio-robot train` as a LeRobot policy (lerobot 0.6)."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from lerobot.processor.factory import make_default_pre_post_processors
from torch import Tensor

from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.interop.lerobot.features import ACTION, STATE
from pixio_robot.lerobot_plugin.feature_map import FeatureMap
from pixio_robot.observation_checks import check_actions
from pixio_robot.state_range import StateRangeMonitor
from pixio_robot.types import DemoSpec, Observation
from pixio_robot.vision.weights.formats import MODEL
from policies.acting import ActingConfig, apply_acting_config
from policies.chunking import ChunkedActor, get_call_seed, make_chunked_actor
from policies.persistence import load_policy, read_policy_config, save_policy

NOT_TRAINABLE = "Policies of type pixio_robot are trained by `pixio-robot train`; lerobot's commands can only run them."


@PreTrainedConfig.register_subclass("pixio_robot")
@dataclasses.dataclass
class PixioRobotConfig(PreTrainedConfig):
    """Which policy to run, and how it acts: the settings of `pixio-robot evaluate`; null keeps the trained value."""

    checkpoint: str = ""
    """Output directory of `pixio-robot train`; empty: the policy inside --policy.path."""
    cameras: dict[str, str] = dataclasses.field(default_factory=dict)
    """Policy camera -> LeRobot feature, for cameras whose feature does not have the name that `data import` uses."""
    state: list[str] = dataclasses.field(default_factory=lambda: [STATE])
    """LeRobot features that form the policy's state, in order, as in `data import state=`."""
    task: str = ""
    """Task to do, for a policy trained on several tasks, where LeRobot names none of them."""
    execute: int | None = None
    ensemble_weight: float | None = None
    inference_steps: int | None = None
    noise_scale: float | None = None
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
        raise UserError(NOT_TRAINABLE)

    def get_scheduler_preset(self) -> Any:
        raise UserError(NOT_TRAINABLE)

    def validate_features(self) -> None:
        """Nothing to do here: PixioRobotPolicy checks the features when it is created."""


def make_pixio_robot_pre_post_processors(config: PixioRobotConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """LeRobot's default pipelines, which do not normalise here."""
    del dataset_stats
    return make_default_pre_post_processors(config)


class PixioRobotPolicy(PreTrainedPolicy):
    """Receding-horizon execution of action chunks, separately for every row of a batch.

    Observations are LeRobot's: images float32 (b, 3, h, w) from 0 to 1, vectors float32 (b, n). Actions are (b, a), in
    the units of the demonstrations. Each row is an episode with its own noise; `reset` starts new episodes, and so does
    another task in a row.
    """

    config_class = PixioRobotConfig  # pyright: ignore[reportAssignmentType]
    name = "pixio_robot"  # pyright: ignore[reportAssignmentType]
    config: PixioRobotConfig

    def __init__(self, config: PixioRobotConfig, **_: Any):
        """Raises UserError if there is no policy, or if it does not match the features in `config`."""
        super().__init__(config)
        if not config.checkpoint:
            raise UserError(
                "--policy.checkpoint=DIR is required: the output directory of `pixio-robot train`; or "
                "--policy.path=DIR: one that save_pretrained wrote."
            )
        directory = policy_directory(config.checkpoint)
        self.policy = load_policy(directory)
        self._description = read_policy_config(directory)
        names = [field.name for field in dataclasses.fields(ActingConfig)]
        apply_acting_config(self.policy, ActingConfig(**{name: getattr(config, name) for name in names}))
        spec = self.policy.spec.restricted_to(self.policy.cameras, self.policy.config.reads_state)
        self._features = FeatureMap.of(config, spec)
        if config.input_features:  # otherwise checked with the first observation
            self._features.check({key: tuple(feature.shape) for key, feature in config.input_features.items()})
        self._check_actions(spec)
        if config.task and self.policy.goals and config.task not in self.policy.goals:
            raise unknown_name("task (--policy.task)", config.task, self.policy.goals)
        self._actor: ChunkedActor | None = None
        self._tasks: list[str | None] = []
        """The task of each row; None for a policy that is not told the task."""
        self._episodes = 0
        self._watch = StateRangeMonitor.of(spec.state_names, self.policy.state_range)

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: Any, *, config: Any = None, **_: Any) -> PixioRobotPolicy:
        """Open --policy.checkpoint, or else the policy in a local directory written by `save_pretrained`. Raises
        UserError if there is none."""
        if config is None:
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path)
        if not isinstance(config, PixioRobotConfig):
            raise UserError(f"{pretrained_name_or_path} holds a policy of type {config.type}, not pixio_robot.")
        if not config.checkpoint and pretrained_name_or_path is not None:
            config.checkpoint = str(pretrained_name_or_path)
        return cls(config).to(config.device).eval()

    def _save_pretrained(self, save_directory: Path, state_dict: Any = None) -> None:
        """Write LeRobot's config and processors, and the policy in the folder `model` as `pixio-robot train` does, so
        that pixio-robot's own commands open the directory too."""
        if state_dict is not None:
            raise UserError(NOT_TRAINABLE)
        config = copy.copy(self.config)
        config.checkpoint = ""
        config._save_pretrained(save_directory)
        for processor in make_pixio_robot_pre_post_processors(config):
            processor.save_pretrained(save_directory)
        encoder = self._description["encoder"]
        source = None if encoder is None else encoder.get("source")
        extra = self._description.get("extra")
        save_policy(save_directory / MODEL, self.policy, encoder_source=source, extra=extra)

    def reset(self) -> None:
        self._actor = None

    def select_action(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """The next action of each row, (b, a). Raises UserError for an observation that does not match the policy."""
        rows = self._features.batch_size(batch)
        tasks = self._row_tasks(batch, rows)
        if self._actor is None or rows != len(self._tasks):
            device = self.config.device or "cpu"
            self._actor = make_chunked_actor(self.policy, rows, device, noise_seed=self.config.noise_seed)
            begun = range(rows)
        else:
            begun = [row for row in range(rows) if tasks[row] != self._tasks[row]]
        for row in begun:
            task = tasks[row]
            self._actor.reset(row, self._episodes, None if task is None else self.policy.goals[task])
            self._episodes += 1
        self._tasks = tasks
        with_images = any(self._actor.needs_images(row) for row in range(rows))
        frames = list(self._features.to_frames(batch, with_images))
        for frame in frames:
            if self._watch is not None and (words := self._watch.check(frame.state)):
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
        images, state = self._features.to_arrays(batch, True)
        numbers = range(self._episodes, self._episodes + len(state))
        seeds = [get_call_seed(number, 0, self.config.noise_seed) for number in numbers]
        self._episodes += len(state)
        goals = [self.policy.goals[task] for task in self._row_tasks(batch, len(state)) if task is not None]
        observation = Observation(
            {camera: torch.from_numpy(pixels[:, None]) for camera, pixels in images.items()},
            torch.from_numpy(state[:, None]),
            goal=torch.tensor(goals) if goals else None,
        )
        with torch.inference_mode():
            actions = self.policy.act(observation.to(torch.device(self.config.device or "cpu")), seeds)
        check_actions(actions.cpu().numpy())
        return actions

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        raise UserError(NOT_TRAINABLE)

    def get_optim_params(self) -> dict[str, Any]:
        raise UserError(NOT_TRAINABLE)

    def _check_actions(self, spec: DemoSpec) -> None:
        feature = (self.config.output_features or {}).get(ACTION)
        if feature is not None and tuple(feature.shape) != (spec.action_dim,):
            raise UserError(
                f"{ACTION} has shape {tuple(feature.shape)} here, but the policy outputs {spec.action_dim} numbers: "
                f"{', '.join(spec.action_names)}."
            )

    def _row_tasks(self, batch: Mapping[str, Any], rows: int) -> list[str | None]:
        """The task of each row: LeRobot's text for it if that is a task of the policy, else --policy.task. None for a
        policy that is not told the task."""
        if not self.policy.goals:
            return [None] * rows
        texts = batch.get("task") or ""
        texts = [texts] * rows if isinstance(texts, str) else list(texts)
        if len(texts) != rows:
            raise UserError(f"The observations of {rows} episodes came with {len(texts)} tasks.")
        return [self._resolve_task(text) for text in texts]

    def _resolve_task(self, text: str) -> str:
        goals, chosen = self.policy.goals, self.config.task
        if text in goals:
            if chosen not in ("", text):
                raise UserError(
                    f"LeRobot's task is {text!r}, and --policy.task={chosen!r}; this policy knows both: leave out "
                    "--policy.task to do LeRobot's, or set them to the same."
                )
            return text
        if chosen:
            return chosen
        given = f"LeRobot's, {text!r}, is none that it knows" if text else "LeRobot gives none"
        raise UserError(
            f"This policy needs a task, and {given}: set --policy.task= to one of {', '.join(map(repr, goals))}."
        )
