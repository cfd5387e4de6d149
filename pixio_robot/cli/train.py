"""`pixio-robot train`: train a policy on demonstrations, with a frozen or trainable encoder."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from envs.spec import make_env_spec
from pixio_robot.cli.clipped_actions import clipped_actions_note
from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.config.policy_group import policy_origin, register_policies
from pixio_robot.cli.policy_training.data_settings import DataSettings
from pixio_robot.cli.policy_training.data_split import DemoSource
from pixio_robot.cli.policy_training.labels import policy_label
from pixio_robot.cli.policy_training.new_policy import NewPolicy, build_new_policy
from pixio_robot.cli.policy_training.training_history import SEEDS, TrainingHistory, read_training_history
from pixio_robot.cli.policy_training.trials import TrialsCommand, open_trials, trials_summary
from pixio_robot.cli.settings import StageSettings
from pixio_robot.cli.stages.training_stage import run_training
from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import check_disjoint
from pixio_robot.evaluation.scenes import other_scene_note
from pixio_robot.fields import number, one_of
from pixio_robot.json_values import to_json_value
from pixio_robot.training.imitate import ImitateConfig, imitate
from pixio_robot.training.run_record import FitResult
from pixio_robot.vision.adapt import AdaptConfig
from pixio_robot.vision.build import EncoderKind, EncoderSource
from policies.acting import apply_acting_config
from policies.config import PolicyConfig
from policies.registry import get_policy_name_from_config

if TYPE_CHECKING:
    import torch

    from pixio_robot.cli.policy_training.training_data import Demonstrations
    from pixio_robot.data.features.cache import FeatureCache
    from pixio_robot.training.trials import Trials
    from pixio_robot.types import DemoSpec
    from policies.base import ChunkPolicy

PREPARE_WINDOWS = 512
"""Enough windows for a stable mean and standard deviation of every feature at every position."""
PREPARE_BATCH = 64
FEATURES_DTYPES = ("float32", "bfloat16")


@dataclass(kw_only=True)
class TrainCommand(DataSettings, ImitateConfig, StageSettings):
    """Train a policy by imitation on one demonstration store, or on a weighted mixture of several."""

    out: str = MISSING
    """Output directory: `model/` (the policy), metrics, checkpoints."""
    label: str = ""
    """Display name of the policy in reports; empty: derived from encoder and adaptation."""
    policy: PolicyConfig = MISSING
    encoder: EncoderSource = field(default_factory=EncoderSource)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    cached_views: int = number(0, at_least=0)
    """Number of augmented versions of every frame to encode once and cache, for a frozen encoder with random crops or
    shifts; each training window uses one of them. 0: run the encoder on freshly augmented images."""
    features_dir: str = ""
    """Directory for the cached features of a frozen encoder, if the stores cannot be written; empty: in each store."""
    features_dtype: str = one_of("float32", FEATURES_DTYPES)
    """Precision in which the features to cache are computed. `bfloat16` takes half the time on a CPU with instructions
    for it (avx512_bf16 in /proc/cpuinfo); on other CPUs it may be slower. The policy acts in float32, from which such
    features differ by about 1 % (docs/design.md)."""
    initial_policy: str | None = None
    """Trained policy of the same shape to start from, such as one trained on the frozen encoder before fine-tuning it,
    as an untrained head distorts the features (Kumar et al. 2022, arXiv 2202.10054). Its training episodes are not
    held out."""
    trials: TrialsCommand = field(default_factory=TrialsCommand)
    seed: int = 0
    """Seed of the initial weights, the split, the order of windows and all noise, but not of the encoder
    (`encoder.seed`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.goals is not None and not self.tell_task:
            raise UserError("goals= conditions the policy on the task: leave it out with tell_task=false.")


def _label(command: TrainCommand) -> str:
    return command.label or policy_label(command.encoder, command.adapt.mode)


def _train(command: TrainCommand) -> FitResult:
    import torch

    from pixio_robot.cli.policy_training.training_data import open_demonstrations, sample_windows
    from pixio_robot.training.device import pick_device
    from pixio_robot.training.distributed.processes import current_processes
    from policies.persistence import save_policy

    device, processes, seed = pick_device(command.device), current_processes(), command.loop.seed
    history = read_training_history(command.initial_policy)
    cameras = [] if command.encoder.kind is EncoderKind.NONE else command.policy.conditioning.cameras or None
    data = open_demonstrations(command, command.validation_share, seed, history.episodes or (), history.goals, cameras)
    for note in _data_warnings(command, data, history) if processes.is_main else ():
        print(f"train: {note}", flush=True)
    learned = history.extra(data.learned, data.seeds)
    torch.manual_seed(seed)
    new = build_new_policy(command, data, device)
    # Created before features are cached and training starts, so that invalid rollout settings fail at once.
    trials = _open_trials(command, new.policy, data.spec, learned[SEEDS]) if command.trials.every else None
    features = _cache_features(command, data.sources, new, device)
    random_views = new.views is not None and new.views.count > 0
    train_batches, validation_batches = data.streams(
        new.policy, features, batch_size=command.batch_size, seed=seed, random_views=random_views
    )
    windows = []
    if command.initial_policy is None:
        windows = sample_windows(train_batches, PREPARE_WINDOWS, PREPARE_BATCH, seed)
    extra = _describe_policy(command)

    def save(directory: Path, trained: Any) -> None:
        source = {"kind": command.encoder.kind.value, "path": command.encoder.path}
        save_policy(directory, trained, encoder_source=source, extra=extra | learned)

    with trials or contextlib.nullcontext():
        result = imitate(
            new.policy,
            train_batches,
            validation_batches,
            command,
            command.out,
            save,
            settings=_recorded_settings(command, data) | {"extra": extra | {SEEDS: learned[SEEDS]}},
            layer_decay=command.adapt.layer_decay,
            hook_factories=[] if trials is None else [trials.make_hook],
            weights=new.weights,
            prepare_on=windows,
        )
        if trials is not None and processes.is_main and not result.interrupted:
            _finish_trials(trials, command, result)
    return result


def _data_warnings(command: TrainCommand, data: Demonstrations, history: TrainingHistory) -> Iterator[str]:
    """What to know before training."""
    from pixio_robot.cli.policy_training.data_warnings import data_warnings, untrained_tasks_warning

    if history.episodes is None and (command.validation_share or command.selects_validation):
        yield (
            f"initial_policy={command.initial_policy} does not record its training episodes; if some of them are held "
            "out now, validation_loss is too optimistic"
        )
    if command.selects_episodes:
        kept = sum(len(source.training) for source in data.sources)
        held_out = sum(len(source.held_out) for source in data.sources)
        yield f"{kept} episodes to train on, {held_out} held out"
    if data.goals and (note := untrained_tasks_warning(data.sources)):
        yield note
    yield from data_warnings(data.sources, command.policy)
    if command.trials.every:
        if note := other_scene_note(data.spec, make_env_spec(command.trials.env)):
            yield f"rollouts during training are in {note}"
        actions = data.statistics.actions
        if note := clipped_actions_note(data.spec.action_names, actions.minimum, actions.maximum, command.trials.env):
            yield f"rollouts during training: {note}"


def _describe_policy(command: TrainCommand) -> dict[str, Any]:
    """What an evaluation says about the policy."""
    has_encoder = command.encoder.kind is not EncoderKind.NONE
    return {
        "label": _label(command),
        "encoder": command.encoder.kind.value,
        "adaptation": command.adapt.mode.value if has_encoder else "",
        "seed": command.loop.seed,
    }


def _recorded_settings(command: TrainCommand, data: Demonstrations) -> dict[str, Any]:
    """What determines the result besides the settings of `imitate`."""
    settings = {"policy": to_json_value(command.policy), "data": command.data, "data_weights": command.data_weights}
    settings |= {"goals": data.goals, "cached_views": command.cached_views, "features_dtype": command.features_dtype}
    method = policy_origin(get_policy_name_from_config(command.policy))
    # Policies of different packages may have the same settings.
    return settings | ({"method": method} if method else {})


def _finish_trials(trials: Trials, command: TrainCommand, result: FitResult) -> None:
    """Wait for the last rollouts, and log them."""
    from pixio_robot.training.monitoring.loggers import MetricLoggers

    with MetricLoggers(Path(command.out), result.steps, command.loop.wandb) as log:
        done = trials.finish(lambda numbers: log.write(result.steps, numbers))
    print(trials_summary(done))


def _open_trials(command: TrainCommand, policy: ChunkPolicy, spec: DemoSpec, train_seeds: Sequence[int]) -> Trials:
    """Rollouts during training. Raises UserError if the policy does not support their settings."""
    try:
        apply_acting_config(copy.copy(policy), command.trials)
    except UserError as error:
        raise UserError(f"The settings in trials do not fit the policy: {error}") from error
    first = command.trials.first_seed
    check_disjoint(train_seeds, range(first, first + command.trials.episodes), "Set trials.first_seed= above them.")
    spec = spec.restricted_to(command.policy.conditioning.cameras, command.policy.reads_state)
    return open_trials(command.trials, command.out, spec, list(policy.goals))


def _cache_features(
    command: TrainCommand, sources: Sequence[DemoSource], new: NewPolicy, device: torch.device
) -> list[FeatureCache] | None:
    """Features of every source, encoded by the first process, kept in `features_dir` or in the stores, and held in
    memory once per machine; None if the encoder runs in every step. Random views are needed only to train on."""
    import torch

    from pixio_robot.data.features.cache import DEFAULT_RAM_BYTES, FeatureFiles, encode_features, open_features
    from pixio_robot.data.shared_memory import make_shared_allocator
    from pixio_robot.training.distributed.processes import current_processes

    encoder, views = new.encoder, new.views
    if encoder is None or views is None:
        return None

    def encoded() -> list[FeatureFiles]:
        return [
            encode_features(
                source.store,
                encoder,
                command.policy.conditioning.cameras,
                views=views if source.trainable else replace(views, count=0),
                device=device,
                dtype=getattr(torch, command.features_dtype),
                directory=Path(command.features_dir) if command.features_dir else None,
            )
            for source in sources
        ]

    processes = current_processes()
    allocate, ram_bytes = make_shared_allocator(processes.all_gather), DEFAULT_RAM_BYTES // len(sources)
    return [open_features(one, ram_bytes=ram_bytes, allocate=allocate) for one in processes.main_process_first(encoded)]


def _check_encoder(path: str) -> None:
    """Raise UserError if there is no Pixio encoder, as by default before `pretrain`."""
    if Path(path).exists():
        return
    from pixio_robot.vision.weights.formats import is_hub_name

    if not is_hub_name(path):
        raise UserError(
            f"There is no encoder at {path}: `pixio-robot pretrain` trains one. Or set encoder.path= to another (a "
            "directory, a .pth file, a hub name), encoder=resnet18 (trained from scratch) or encoder=none (no images)."
        )


def _run(command: TrainCommand) -> int:
    inputs: dict[str, str | list[str]] = {"data": command.stores, "validation_data": command.validation_data}
    if command.encoder.path is not None:
        if command.encoder.kind is EncoderKind.PIXIO:
            _check_encoder(command.encoder.path)
        inputs["encoder.path"] = command.encoder.path
    for setting, path in (("initial_policy", command.initial_policy), ("goals", command.goals)):
        if path is not None:
            inputs[setting] = path
    name = get_policy_name_from_config(command.policy)
    if method := policy_origin(name):
        inputs["policy"] = method

    def describe_result(result: FitResult) -> str:
        return f"train: {_label(command)} ({name}): {result.steps} steps in {result.seconds:.0f} s -> {command.out}"

    return run_training("train", command, lambda: _train(command), describe_result, inputs=inputs)


def main(arguments: list[str]) -> int:
    register_policies("train", arguments)
    return run_command_line("train", TrainCommand, _run, arguments)
