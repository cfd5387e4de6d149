"""`pixio-robot train`: a policy learns from demonstrations, on a frozen or a trained encoder."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from pixio_robot.cli.compose import run
from pixio_robot.cli.learned import SEEDS, learned_by
from pixio_robot.cli.policy_choices import origin, register_policies
from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.cli.settings import StageSettings
from pixio_robot.cli.training_stage import run_training
from pixio_robot.cli.trials import TrialsCommand, open_trials, words_of_trials
from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import check_disjoint
from pixio_robot.training.imitate import ImitateConfig, encoders_of, imitate
from pixio_robot.training.record import FitResult
from pixio_robot.vision.adapt import Adaptation, AdaptConfig, adapt
from pixio_robot.vision.build import EncoderKind, EncoderSource, build_encoder
from pixio_robot.vision.checkpointing import WEIGHTS, read_weights
from pixio_robot.vision.initial import Weights, fill, under
from pixio_robot.vision.later import empty, encoder_for_later
from pixio_robot.vision.lora import BASE, has_adapters, without_adapters
from policies.acting import act_as
from policies.config import PolicyConfig
from policies.registry import build_policy, name_of_config

WINDOWS_TO_PREPARE = 512
"""Enough for a stable mean and deviation of every feature at every position."""
PREPARE_BATCH = 64

LABELS = {
    EncoderKind.NONE: "No vision",
    EncoderKind.RESNET: "ResNet from scratch",
    EncoderKind.RESNET18: "ResNet18 from scratch",
    EncoderKind.PIXIO: "Pixio",
    EncoderKind.RANDOM: "random encoder",
    EncoderKind.TIMM: "encoder of timm",
    EncoderKind.TRANSFORMERS: "encoder of transformers",
}
HOW = {
    Adaptation.FROZEN: "frozen",
    Adaptation.FULL: "fine-tuned",
    Adaptation.LAST_K: "last blocks trained",
    Adaptation.LORA: "LoRA",
}


@dataclass(kw_only=True)
class TrainCommand(ImitateConfig, StageSettings):
    """A policy learns from demonstrations: one store, or several that share it by weight."""

    data: Any = MISSING
    """Demonstration store, or a list of several: one policy for the tasks of all."""
    data_weights: list[float] | None = None
    """Share of each store in a batch, in any scale; null: by its number of windows."""
    goals: str | None = None
    """File of what is wanted in each task (.json or .safetensors, task -> numbers), such as embeddings of
    instructions. null: with several tasks a learned embedding of each."""
    out: str = MISSING
    """Run directory: `model/` (the policy), metrics, checkpoints."""
    label: str = ""
    """The policy's name for people, in reports; empty: from encoder and adaptation."""
    policy: PolicyConfig = MISSING
    encoder: EncoderSource = field(default_factory=EncoderSource)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    cached_views: int = 0
    """For a frozen encoder where the policy crops or shifts images: random versions of every frame, encoded once; each
    window is shown in one of them. 0: the encoder runs in every step, on images augmented anew."""
    initial_policy: str | None = None
    """A trained policy of the same shape whose weights to begin from, such as one on the frozen encoder, which a
    fresh head could spoil (Kumar et al. 2022, arXiv 2202.10054). Episodes that it has learned are not held out here."""
    trials: TrialsCommand = field(default_factory=TrialsCommand)
    seed: int = 0
    """Of the initial weights, the split, the order of windows and all noise; not of the encoder (`encoder.seed`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cached_views < 0:
            raise UserError(f"cached_views={self.cached_views} must not be negative.")

    @property
    def stores(self) -> list[str]:
        stores = [self.data] if isinstance(self.data, str) else list(self.data)
        if not stores or not all(isinstance(store, str) for store in stores):
            raise UserError(f"data={self.data} must be a demonstration store, or a list of some.")
        return stores


def _label(command: TrainCommand) -> str:
    if command.label:
        return command.label
    kind, mode = command.encoder.kind, command.adapt.mode
    what = LABELS[kind]
    scratch = kind in (EncoderKind.RESNET, EncoderKind.RESNET18) and mode is Adaptation.FULL
    text = what if kind is EncoderKind.NONE or scratch else f"{HOW[mode]} {what}"
    return text[0].upper() + text[1:]


def _train(command: TrainCommand) -> FitResult:
    import torch

    from pixio_robot.cli.learning_data import open_demonstrations, some_windows
    from pixio_robot.data.features import DEFAULT_RAM_BYTES, Encoded, encode_features, open_features
    from pixio_robot.data.shared_memory import shared_room
    from pixio_robot.training.device import pick_device
    from pixio_robot.training.distributed import current
    from pixio_robot.training.sinks import MetricsLog
    from policies.persistence import config_to_json, save_policy

    device, processes = pick_device(command.device), current()
    seed = command.loop.seed
    before = learned_by(command.initial_policy)
    if before.episodes is None and command.validation_share and processes.first:
        print(
            f"train: initial_policy={command.initial_policy} does not say which episodes it has learned, as policies "
            "of earlier versions; where some are held out now, validation_loss flatters"
        )
    data = open_demonstrations(
        command.stores,
        weights=command.data_weights,
        goals=command.goals,
        validation_share=command.validation_share,
        seed=seed,
        learned=before.episodes or (),
    )
    learned = before.extra(data.marks, data.seeds)
    torch.manual_seed(seed)
    views = _views(command, command.encoder.kind is not EncoderKind.NONE)
    # Where each process is to have a part of the policy, none has all of the encoder before: unless it encodes all
    # frames first.
    later = None
    if command.loop.parallel == "fsdp" and processes.count > 1 and views is None:
        later = encoder_for_later(command.encoder)
    encoder = build_encoder(command.encoder) if later is None else later.encoder
    conditioning = command.policy.conditioning
    if encoder is None:
        conditioning.cameras = []
    elif not conditioning.cameras:
        conditioning.cameras = sorted(data.spec.cameras)
    if encoder is not None:
        adapt(encoder, command.adapt)
    if conditioning.goal_dim not in (0, goal_dim := len(next(iter(data.goals.values()), []))):
        raise UserError(f"policy.conditioning.goal_dim={conditioning.goal_dim}, but the goals have {goal_dim} numbers.")
    conditioning.goal_dim = goal_dim
    name = name_of_config(command.policy)
    policy = build_policy(name, command.policy, data.spec, data.statistics, encoder)
    policy.goals = data.goals
    weights = None if later is None else _of_encoders(policy, later.weights)
    if command.initial_policy is not None:
        weights = _weights_of(command.initial_policy, policy)
    if later is None:  # before its encoder's features are cached
        fill(policy.to(device), weights or ())
        weights = None
    else:
        for part in policy.conditioning.encoders:
            empty(part)
    # Before features are cached and a step is taken: what the rollouts would refuse is refused at once.
    trials = None
    if command.trials.every:
        try:
            act_as(copy.copy(policy), command.trials)
        except UserError as error:
            raise UserError(f"trials cannot be played so: {error}") from error
        first = command.trials.first_seed
        check_disjoint(
            learned[SEEDS], range(first, first + command.trials.episodes), "Set trials.first_seed= beyond them."
        )
        trials = open_trials(
            command.trials, command.out, data.spec.read_by(conditioning.cameras, conditioning.use_state)
        )

    features = None
    if views is not None and encoder is not None:

        def encoded() -> list[Encoded]:
            return [
                encode_features(store, encoder, conditioning.cameras, views=views, device=device)
                for store in data.stores
            ]

        room, ram_bytes = shared_room(processes.gather), DEFAULT_RAM_BYTES // len(data.stores)
        features = [open_features(one, ram_bytes=ram_bytes, room=room) for one in processes.after_first(encoded)]

    train_batches, validation_batches = data.streams(
        policy,
        features,
        batch_size=command.batch_size,
        seed=seed,
        random_views=views is not None and views.count > 0,
    )
    windows = []
    if command.initial_policy is None:
        windows = some_windows(train_batches, WINDOWS_TO_PREPARE, PREPARE_BATCH, seed)

    extra: dict[str, Any] = {
        "label": _label(command),
        "encoder": command.encoder.kind.value,
        "adaptation": command.adapt.mode.value if encoder is not None else "",
        "seed": seed,
        SEEDS: learned[SEEDS],
    }
    source = {"kind": command.encoder.kind.value, "path": command.encoder.path}
    settings = {"policy": config_to_json(command.policy), "data": command.data, "extra": extra}
    settings |= {"data_weights": command.data_weights, "goals": data.goals, "cached_views": command.cached_views}
    if method := origin(name):  # among policies of packages, the fields of two may be the same
        settings["method"] = method

    def save(directory: Path, trained: Any) -> None:
        trained.goals = data.goals
        save_policy(directory, trained, encoder_source=source, extra=extra | learned)

    with trials or contextlib.nullcontext():
        result = imitate(
            policy,
            train_batches,
            validation_batches,
            command,
            command.out,
            save,
            settings=settings,
            layer_decay=command.adapt.layer_decay,
            looks=[] if trials is None else [lambda save: trials.look(save, processes.first)],
            weights=weights,
            prepare_on=windows,
        )
        if trials is not None and processes.first and not result.interrupted:
            with MetricsLog(Path(command.out), result.steps, command.loop.wandb) as log:
                done = trials.finish(lambda numbers: log.write(result.steps, numbers))
            print(words_of_trials(done))
    return result


def _views(command: TrainCommand, sees: bool) -> Any:
    """Which versions of every frame are encoded once; None where the encoder runs in every step."""
    from pixio_robot.data.feature_views import Views

    conditioning = command.policy.conditioning
    if not sees or command.adapt.mode is not Adaptation.FROZEN:
        if command.cached_views:
            raise UserError("cached_views are of a frozen encoder: set adapt.mode=FROZEN, or cached_views=0.")
        return None
    if conditioning.changes_images and not command.cached_views:
        return None
    if conditioning.color_jitter is not None:
        raise UserError("Cached views are crops and shifts; colours cannot change in them: leave color_jitter out.")
    crop = conditioning.crop_shape
    return Views(
        count=command.cached_views,
        crop=None if crop is None else (crop[0], crop[1]),
        shift=conditioning.random_shift,
        seed=command.loop.seed,
    )


def _weights_of(path: str, policy: Any) -> Weights:
    """Those of a trained policy, standardisation of features included, under the names that `policy` has for them."""
    theirs = read_weights(policy_directory(path) / WEIGHTS)
    mine = policy.state_dict()
    wanted = without_adapters(mine) if has_adapters(policy) else mine
    different = sorted(wanted.keys() ^ theirs.keys()) or [n for n in wanted if wanted[n].shape != theirs[n].shape]
    if different:
        raise UserError(
            f"initial_policy={path} has another shape than the policy to train: {', '.join(different[:3])} differ."
        )
    return _named_in(policy, theirs.items())


def _of_encoders(policy: Any, weights: Callable[[], Weights]) -> Weights:
    """The same for each of the policy's encoders, under the names that `policy` has for them."""
    names = [name for name, _ in encoders_of(policy)]
    return _named_in(policy, (pair for name in names for pair in under(f"{name}.", weights())))


def _named_in(policy: Any, weights: Weights) -> Weights:
    """Adapters change the names of what they stand beside."""
    names = {name.replace(BASE, "."): name for name in policy.state_dict()}
    return ((names[name], tensor) for name, tensor in weights)


def _run(command: TrainCommand) -> int:
    inputs = command.stores
    if command.encoder.kind is EncoderKind.PIXIO and command.encoder.path is not None:
        inputs.append(command.encoder.path)
    for path in (command.initial_policy, command.goals):
        if path is not None:
            inputs.append(path)
    name = name_of_config(command.policy)
    inputs += origin(name)

    def words(result: FitResult) -> str:
        return f"train: {_label(command)} ({name}): {result.steps} steps in {result.seconds:.0f} s -> {command.out}"

    return run_training("train", command, lambda: _train(command), words, inputs=inputs)


def main(arguments: list[str]) -> int:
    register_policies("train", arguments)
    return run("train", TrainCommand, _run, arguments)
