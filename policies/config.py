"""Settings that all policies share, and settings of shared networks; each method adds its own."""

from __future__ import annotations

import dataclasses
import math

from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of
from pixio_robot.receding_horizon import check_execute
from pixio_robot.vision.config import PoolingConfig
from policies.normalisation import NORMALISATIONS
from policies.relative_poses import ABSOLUTE, POSE_REPRS, RELATIVE

FUSIONS = ("concat", "difference")
DENOISERS = ("unet", "mlp", "transformer")


def check_setting(condition: bool, sentence: str) -> None:
    """Raise UserError with `sentence` unless the condition holds."""
    if not condition:
        raise UserError(sentence)


@dataclasses.dataclass(kw_only=True)
class ConditioningConfig:
    """The observation a policy is conditioned on. Without cameras it uses the state alone and needs no encoder."""

    cameras: list[str] = dataclasses.field(default_factory=list)
    """Cameras of the demonstrations to use; empty: `train` uses all of them if there is an encoder."""
    pooling: PoolingConfig = dataclasses.field(default_factory=PoolingConfig)
    """How the features of a frame are pooled to one vector; each camera has its own pooling."""
    use_state: bool = True
    """Also condition on the robot's state."""
    state_normalisation: str = one_of("min_max", NORMALISATIONS)
    """How each state dimension is normalised, using the statistics of the demonstrations."""
    state_min_std: float = number(0.0, at_least=0)
    """state_normalisation=mean_std: divide by at least this, in the unit of each dimension (ACT: 0.01)."""
    obs_pose_repr: str = one_of(ABSOLUTE, POSE_REPRS)
    """Gripper poses in the state: `absolute`, or `relative` to the gripper's pose at the newest frame, as in UMI: the
    policy then sees how the gripper moved in the last `observation_steps` frames, but not where it is."""
    standardise: bool = True
    """Standardise the encoder's features to zero mean and about unit variance, per position and channel; fitted before
    training."""
    joint_pooling: bool = False
    """Pool the tokens of all cameras with one attention pooling, with camera embeddings, instead of one pooling per
    camera; uses `queries` and `width` of `pooling`."""
    fusion: str = one_of("concat", FUSIONS)
    """How frames are combined: `concat`, or `difference` (differences between consecutive frames, and the newest
    frame)."""
    share_encoder: bool = True
    """Use one encoder for all cameras; false gives each camera its own copy."""
    crop_shape: list[int] | None = number(None, at_least=1)
    """Crop images to this height and width [px]: at random positions in training, at the centre otherwise."""
    random_shift: int = number(0, at_least=0)
    """Maximum random shift of training images [px], repeating edge pixels; no effect on cached features."""
    color_jitter: list[float] | None = number(None, at_least=0)
    """Ranges of brightness, contrast, saturation and hue jitter of training images, as in torchvision's ColorJitter."""
    feature_noise: float = number(0.0, at_least=0)
    """Standard deviation of Gaussian noise added to the standardised features in training, also to cached ones: to each
    feature, and to each channel as a whole. With 1.0, policies on a frozen encoder are less sensitive to the light, and
    somewhat less successful in that of the demonstrations (docs/results.md)."""
    goal_dim: int = number(0, at_least=0)
    """Length of the goal vector: an instruction embedding or one-hot task index. 0: not goal-conditioned."""
    goal_width: int = number(32, at_least=1)
    """Dimension to which the goal is projected by a learned linear layer."""

    def __post_init__(self) -> None:
        check_fields(self, "policy.conditioning.")
        check_setting(
            self.obs_pose_repr == ABSOLUTE or self.use_state,
            f"obs_pose_repr = {self.obs_pose_repr} needs use_state = true: otherwise the policy sees no poses.",
        )
        check_setting(
            len(set(self.cameras)) == len(self.cameras), f"cameras = {list(self.cameras)} contains duplicates."
        )
        check_setting(
            not self.joint_pooling or self.pooling.name == "attention",
            f"joint_pooling uses attention: set pooling.name to attention, not {self.pooling.name}.",
        )
        check_setting(
            self.crop_shape is None or len(self.crop_shape) == 2,
            f"crop_shape = {self.crop_shape} must be a height and a width in pixels, such as [76, 76].",
        )
        check_setting(
            self.standardise or not self.feature_noise,
            f"feature_noise = {self.feature_noise} is relative to standardised features: it needs standardise = true.",
        )
        jitter = [0.0] * 4 if self.color_jitter is None else self.color_jitter
        check_setting(
            len(jitter) == 4 and jitter[-1] <= 0.5,
            f"color_jitter = {self.color_jitter} must be four ranges, for brightness, contrast, saturation and hue (at "
            "most 0.5), such as [0.3, 0.4, 0.5, 0.08].",
        )

    @property
    def changes_images(self) -> bool:
        """Whether images are modified before the encoder, so that features cached from whole images cannot be used."""
        return self.random_shift > 0 or self.color_jitter is not None or self.crop_shape is not None


@dataclasses.dataclass(kw_only=True)
class PolicyConfig:
    """Settings that all chunk policies share."""

    conditioning: ConditioningConfig = dataclasses.field(default_factory=ConditioningConfig)
    observation_steps: int = number(1, at_least=1)
    """Length of the observation history in frames, including the newest."""
    horizon: int = number(8, at_least=1)
    """Length of a predicted action chunk. Its first action is for the step of the newest frame, unless `past_actions`
    is set."""
    past_actions: int = number(0, at_least=0)
    """Number of actions at the start of the chunk that belong to steps before the newest frame: they are learned but
    not executed. Diffusion policy starts its chunks at the oldest frame: observation_steps - 1."""
    execute: int | None = None
    """Actions to execute from each chunk before predicting again; null: the first half of the actions that are not
    past, rounded up."""
    ensemble_weight: float | None = number(None, at_least=0)
    """Temporal ensembling (ACT, Zhao et al. 2023, who use .01 with execute=1): average all predictions for a step; a
    prediction made i calls after the oldest has weight exp(-ensemble_weight * i). A dimension with only two values,
    such as a gripper, takes the one nearer to the average. null: use the newest prediction."""
    learn_padding: bool = False
    """Also learn the padding (repeated actions) beyond both ends of an episode, as diffusion policy does, so that the
    policy holds still when done; chunks then end in fewer than `execute` padded actions. False masks padding in the
    loss."""
    action_normalisation: str = one_of("min_max", NORMALISATIONS)
    """How each action dimension is normalised, using the statistics of the demonstrations."""
    action_min_std: float = number(0.0, at_least=0)
    """action_normalisation=mean_std: divide by at least this, in the unit of each dimension (ACT: 0.01)."""
    action_pose_repr: str = one_of(ABSOLUTE, POSE_REPRS)
    """Absolute gripper poses among the actions: predicted as they are (`absolute`), or `relative` to the gripper's pose
    at the newest frame, as in UMI (Chi et al., RSS 2024). The policy returns absolute poses either way. Other actions
    (deltas, joints, grippers) are not affected. `relative` needs position and rotation of the gripper in the state."""

    def __post_init__(self) -> None:
        check_fields(self, "policy.")
        check_setting(
            self.past_actions < self.horizon,
            f"past_actions = {self.past_actions} must be between 0 and {self.horizon - 1}, below the horizon.",
        )
        check_execute(self.executed, self.horizon - self.past_actions)

    @property
    def reads_state(self) -> bool:
        """Whether the policy needs the state: as an input, or to know where relative actions start."""
        return self.conditioning.use_state or self.action_pose_repr == RELATIVE

    @property
    def executed(self) -> int:
        """Number of actions executed from each chunk."""
        return math.ceil((self.horizon - self.past_actions) / 2) if self.execute is None else self.execute

    @property
    def max_padding(self) -> int | None:
        """Maximum number of padded actions at the end of a training chunk; None: any number, since they are masked."""
        return self.executed - 1 if self.learn_padding else None


@dataclasses.dataclass(kw_only=True)
class DenoiserConfig:
    """`unet` has one level per width and halves the time axis between levels; `mlp` has one block per width;
    `transformer` has one layer per width.

    The published recipe is unet, widths [512, 1024, 2048], kernel 5, groups 8, step_dim 128 (Chi et al., IJRR);
    the default is small enough for two CPU cores.
    """

    name: str = one_of("mlp", DENOISERS)
    """Network architecture."""
    widths: list[int] = number([256, 256, 256], at_least=1)
    """Width of each level (unet), block (mlp) or layer (transformer)."""
    kernel: int = number(5, at_least=1)
    """unet: kernel size of the convolutions over time; odd."""
    groups: int = number(8, at_least=1)
    """unet: number of groups of the group normalisation; must divide every width."""
    step_dim: int = number(64, at_least=2)
    """Dimension of the embedding of the diffusion step (unet, mlp) and of the stride (shortcut); even."""
    heads: int = number(4, at_least=1)
    """transformer: number of attention heads; must divide half the width."""
    dropout: float = number(0.3, at_least=0, below=1)
    """transformer: dropout probability."""

    def __post_init__(self) -> None:
        check_fields(self, "policy.denoiser.")
        check_setting(len(self.widths) > 0, "policy.denoiser.widths is empty; give one for each level, block or layer.")
        check_setting(self.step_dim % 2 == 0, f"step_dim = {self.step_dim} must be even.")
        if self.name == "unet":
            check_setting(self.kernel % 2 == 1, f"kernel = {self.kernel} must be odd.")
            check_setting(
                all(width % self.groups == 0 for width in self.widths),
                f"groups = {self.groups} must divide every one of widths = {list(self.widths)}.",
            )
        else:
            check_setting(
                len(set(self.widths)) == 1, f"widths = {list(self.widths)} must all be equal for {self.name}."
            )
        if self.name == "transformer":
            check_setting(
                self.widths[0] % (2 * self.heads) == 0,
                f"heads = {self.heads} must divide half of widths = {list(self.widths)}.",
            )
