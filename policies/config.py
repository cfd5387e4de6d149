"""What can be set about every policy, and about the networks that several share; the rest lies with each method."""

from __future__ import annotations

import dataclasses
import math

from pixio_robot.choice import one_of
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.receding_horizon import check_execute
from pixio_robot.vision.config import PoolingConfig
from policies.normalisation import NORMALISATIONS

FUSIONS = ("concat", "difference")
DENOISERS = ("unet", "mlp", "transformer")


def require(condition: bool, sentence: str) -> None:
    """Raises UserError where a setting cannot be so."""
    if not condition:
        raise UserError(sentence)


def require_name(kind: str, name: str, valid: tuple[str, ...]) -> None:
    """Raises UserError where a name is none of the valid ones."""
    if name not in valid:
        raise unknown_name(kind, name, valid)


@dataclasses.dataclass(kw_only=True)
class ConditioningConfig:
    """What a policy sees. Without cameras it is blind, and needs no encoder."""

    cameras: list[str] = dataclasses.field(default_factory=list)
    """Of those in the demonstrations; empty: `train` takes all of them where there is an encoder."""
    pooling: PoolingConfig = dataclasses.field(default_factory=PoolingConfig)
    """How the features of one frame become one vector; each camera has its own."""
    use_state: bool = True
    """See the robot's state too."""
    state_normalisation: str = one_of("min_max", NORMALISATIONS)
    """How each number of the state is brought to a common scale, by the statistics of the demonstrations."""
    standardise: bool = True
    """Centre every feature at every position and scale it to unit spread, as fitted by `prepare` before training."""
    joint_pooling: bool = False
    """One attention pooling over the tokens of all cameras, with camera embeddings, in place of one pooling each;
    of `pooling` it takes `queries` and `width`."""
    fusion: str = one_of("concat", FUSIONS)
    """How frames become one vector: `concat`, or `difference`: changes between neighbours, then the newest frame."""
    share_encoder: bool = True
    """One encoder for all cameras; false gives each camera a copy of its own."""
    crop_shape: list[int] | None = None
    """Height and width [px] of the part of an image that is seen: at random while training, else the middle."""
    random_shift: int = 0
    """Pixels by which training images are moved at random, edges repeated; no effect on cached features."""
    color_jitter: list[float] | None = None
    """Ranges of brightness, contrast, saturation and hue in training images, as torchvision's ColorJitter."""
    goal_dim: int = 0
    """Numbers that say what is wanted: the length of an instruction's embedding, or the number of tasks (one-hot).
    0: the policy is not told."""
    goal_width: int = 32
    """Numbers that the goal becomes, by a learned linear map, beside the others that are seen."""

    def __post_init__(self) -> None:
        require_name("normalisation", self.state_normalisation, NORMALISATIONS)
        require(self.random_shift >= 0, f"random_shift = {self.random_shift} pixels must not be negative.")
        require(len(set(self.cameras)) == len(self.cameras), f"cameras = {list(self.cameras)} names one twice.")
        require_name("fusion", self.fusion, FUSIONS)
        require(
            self.goal_dim >= 0 and self.goal_width >= 1,
            f"goal_dim = {self.goal_dim} must not be negative, and goal_width = {self.goal_width} at least 1.",
        )
        require(
            not self.joint_pooling or self.pooling.name == "attention",
            f"joint_pooling pools by attention: set pooling.name to attention, not {self.pooling.name}.",
        )
        require(
            self.crop_shape is None or (len(self.crop_shape) == 2 and min(self.crop_shape) >= 1),
            f"crop_shape = {self.crop_shape} must be a height and a width in pixels, such as [76, 76].",
        )
        jitter = [0.0] * 4 if self.color_jitter is None else self.color_jitter
        require(
            len(jitter) == 4 and min(jitter) >= 0 and jitter[-1] <= 0.5,
            f"color_jitter = {self.color_jitter} must be four ranges, brightness, contrast, saturation and hue (at "
            "most .5), such as [0.3, 0.4, 0.5, 0.08].",
        )

    @property
    def changes_images(self) -> bool:
        """Whether the encoder sees anything but the whole image, so that features of it cannot stand in."""
        return self.random_shift > 0 or self.color_jitter is not None or self.crop_shape is not None


@dataclasses.dataclass(kw_only=True)
class PolicyConfig:
    """What every chunk policy has."""

    conditioning: ConditioningConfig = dataclasses.field(default_factory=ConditioningConfig)
    observation_steps: int = 1
    """Frames looked at, the newest and those before it."""
    horizon: int = 8
    """Actions predicted at once; the first belongs to the step of the newest frame, but for `past_actions`."""
    past_actions: int = 0
    """Actions of the chunk that belong to steps before the newest frame: learned, but not carried out. Diffusion policy
    begins its chunks at the oldest frame: observation_steps - 1."""
    execute: int | None = None
    """Actions of each chunk that are carried out before the policy looks again; null: the first half of those that are
    not past, rounded up."""
    ensemble_weight: float | None = None
    """Temporal ensembling (ACT, Zhao et al. 2023; they use .01 with execute=1): average all predictions for a step, one
    that is i calls newer than the oldest weighted by exp(-weight i). null: follow the newest."""
    learn_padding: bool = False
    """Learn the repeated actions beyond either end of an episode too, as diffusion policy does: hold still when done,
    from chunks that end in fewer than `execute` repeated ones. False leaves repeated actions out of the loss."""
    action_normalisation: str = one_of("min_max", NORMALISATIONS)
    """How each number of an action is brought to a common scale, by the statistics of the demonstrations."""

    def __post_init__(self) -> None:
        require(self.observation_steps >= 1, f"observation_steps = {self.observation_steps} must be at least 1.")
        require(self.horizon >= 1, f"horizon = {self.horizon} must be at least 1.")
        require(
            0 <= self.past_actions < self.horizon,
            f"past_actions = {self.past_actions} must lie in 0..{self.horizon - 1}, below the horizon.",
        )
        check_execute(self.executed, self.horizon - self.past_actions)
        weight = self.ensemble_weight
        require(
            weight is None or (math.isfinite(weight) and weight >= 0),
            f"ensemble_weight = {weight} must be a number from 0 on, or null for no ensembling.",
        )
        require_name("normalisation", self.action_normalisation, NORMALISATIONS)

    @property
    def executed(self) -> int:
        """Actions of each chunk that are carried out."""
        return math.ceil((self.horizon - self.past_actions) / 2) if self.execute is None else self.execute

    @property
    def max_padding(self) -> int | None:
        """Repeated actions that a chunk to learn from may end in; None: any number, as they do not count."""
        return self.executed - 1 if self.learn_padding else None


@dataclasses.dataclass(kw_only=True)
class DenoiserConfig:
    """`unet` has one level per width and halves the time axis between levels; `mlp` has one block per width;
    `transformer` has one layer per width.

    The published recipe is unet, widths [512, 1024, 2048], kernel 5, groups 8, step_dim 128 (Chi et al., IJRR);
    the default is for two CPU cores.
    """

    name: str = one_of("mlp", DENOISERS)
    """Kind of network."""
    widths: list[int] = dataclasses.field(default_factory=lambda: [256, 256, 256])
    """One number for each level (unet), block (mlp) or layer (transformer)."""
    kernel: int = 5
    """Of the convolutions over time (unet); odd."""
    groups: int = 8
    """Of the group normalisation (unet); divides every width."""
    step_dim: int = 64
    """Width of the embedding of the diffusion step; even."""
    heads: int = 4
    """Of the attention (transformer); divides the width."""
    dropout: float = 0.3
    """Of attention and layers (transformer)."""

    def __post_init__(self) -> None:
        require_name("denoiser", self.name, DENOISERS)
        require(bool(self.widths) and min(self.widths) >= 1, f"widths = {list(self.widths)} needs positive numbers.")
        require(self.step_dim >= 2 and self.step_dim % 2 == 0, f"step_dim = {self.step_dim} must be even and positive.")
        if self.name == "unet":
            require(self.kernel >= 1 and self.kernel % 2 == 1, f"kernel = {self.kernel} must be odd and positive.")
            require(
                self.groups >= 1 and all(width % self.groups == 0 for width in self.widths),
                f"groups = {self.groups} must divide every one of widths = {list(self.widths)}.",
            )
        else:
            require(len(set(self.widths)) == 1, f"widths = {list(self.widths)} must all be equal for {self.name}.")
        if self.name == "transformer":
            require(
                self.heads >= 1 and self.widths[0] % (2 * self.heads) == 0,
                f"heads = {self.heads} must divide half of widths = {list(self.widths)}.",
            )
            require(0 <= self.dropout < 1, f"dropout = {self.dropout} must lie in [0, 1).")
