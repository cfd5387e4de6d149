"""`pixio-robot train`: a policy learns from demonstrations, on a frozen or a trained encoder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from pixio_robot.cli.compose import run
from pixio_robot.cli.policy_directory import policy_directory
from pixio_robot.cli.stages import run_stage
from pixio_robot.errors import UserError
from pixio_robot.training.imitate import ImitateConfig, imitate
from pixio_robot.vision.adapt import Adaptation, AdaptConfig, adapt
from pixio_robot.vision.build import EncoderKind, EncoderSource, build_encoder
from policies.config import PolicyConfig
from policies.registry import POLICIES, build_policy

WINDOWS_TO_PREPARE = 512
"""Enough for a stable mean and deviation of every feature at every position."""
PREPARE_BATCH = 64

DEFAULT_LABELS = {EncoderKind.NONE: "No vision", EncoderKind.RESNET: "ResNet from scratch"}


@dataclass(kw_only=True)
class TrainCommand(ImitateConfig):
    """Behaviour cloning or diffusion policy on a demonstration store."""

    data: str = MISSING
    """Demonstration store."""
    out: str = MISSING
    """Run directory: `model/` (the policy), metrics, checkpoints."""
    label: str = ""
    """The policy's name for people, in reports; empty: from encoder and adaptation."""
    policy: PolicyConfig = MISSING
    encoder: EncoderSource = field(default_factory=EncoderSource)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    initial_policy: str | None = None
    """A trained policy of the same shape whose weights to begin from: fine-tuning starts best from a head that
    was trained on the frozen encoder (Kumar et al. 2022, arXiv 2202.10054)."""
    run: str = "runs/default"
    overwrite: bool = False


def _register_policy_schemas() -> None:
    store = ConfigStore.instance()
    for name, entry in POLICIES.items():
        store.store(group="policy", name=f"{name}_schema", node=entry.config)


def _policy_name(config: PolicyConfig) -> str:
    return next(name for name, entry in POLICIES.items() if entry.config is type(config))


def _label(command: TrainCommand) -> str:
    if command.label:
        return command.label
    kind = command.encoder.kind
    if kind in DEFAULT_LABELS:
        return DEFAULT_LABELS[kind]
    how = {Adaptation.FROZEN: "frozen", Adaptation.FULL: "fine-tuned", Adaptation.LAST_K: "last blocks trained"}
    what = {EncoderKind.PIXIO: "Pixio", EncoderKind.RANDOM: "random encoder"}
    text = f"{how[command.adapt.mode]} {what[kind]}"
    return text[0].upper() + text[1:]


def _train(command: TrainCommand) -> bool:
    import torch

    from pixio_robot.data.demos import DemoStore
    from pixio_robot.data.features import cache_features
    from pixio_robot.data.loading import DemoBatches
    from pixio_robot.data.stats import compute_statistics
    from pixio_robot.data.windows import split_episodes
    from pixio_robot.training.device import pick_device
    from policies.persistence import load_policy, save_policy

    device = pick_device(command.device)
    store = DemoStore.open(command.data)
    if len(store) == 0:
        raise UserError(f"{command.data} holds no episode yet; `pixio-robot collect` records some.")
    training, validation = split_episodes(len(store), command.validation_share, command.loop.seed)
    torch.manual_seed(command.loop.seed)
    encoder = build_encoder(command.encoder)
    conditioning = command.policy.conditioning
    if encoder is None:
        conditioning.cameras = []
    elif not conditioning.cameras:
        conditioning.cameras = sorted(store.spec.cameras)
    if encoder is not None:
        adapt(encoder, command.adapt)
    name = _policy_name(command.policy)
    statistics = compute_statistics(store, training)
    policy = build_policy(name, command.policy, store.spec, statistics, encoder).to(device)

    frozen = encoder is not None and command.adapt.mode is Adaptation.FROZEN
    features = None
    if encoder is not None and frozen and conditioning.random_shift == 0:
        features = cache_features(store, encoder, conditioning.cameras, device=device)

    def batches(episodes: list[int], seed: int) -> DemoBatches:
        return DemoBatches(
            store,
            observation_steps=policy.observation_steps,
            horizon=policy.horizon,
            cameras=conditioning.cameras,
            batch_size=command.batch_size,
            seed=seed,
            episodes=episodes,
            features=features,
        )

    train_batches = batches(training, command.loop.seed)
    if command.initial_policy is None:
        chosen = np.random.default_rng(command.loop.seed).integers(0, train_batches.windows, WINDOWS_TO_PREPARE)
        parts = chosen.reshape(-1, PREPARE_BATCH)
        policy.prepare(train_batches.gather(part).observation.to(device) for part in parts)
    else:
        _begin_from(policy, load_policy(policy_directory(command.initial_policy), device), command.initial_policy)

    extra: dict[str, Any] = {
        "label": _label(command),
        "encoder": command.encoder.kind.value,
        "adaptation": command.adapt.mode.value if encoder is not None else "",
        "seed": command.loop.seed,
        "train_seeds": store.seeds,
    }
    source = {"kind": command.encoder.kind.value, "path": command.encoder.path}

    result = imitate(
        policy,
        train_batches,
        batches(validation, command.loop.seed) if validation else None,
        command,
        command.out,
        lambda directory: save_policy(directory, policy, encoder_source=source, extra=extra),
        settings={"policy": dataclasses.asdict(command.policy), "data": command.data, "extra": extra},
    )
    if not result.interrupted:
        print(f"train: {extra['label']} ({name}): {result.steps} steps in {result.seconds:.0f} s -> {command.out}")
    return not result.interrupted


def _begin_from(policy: Any, earlier: Any, path: str) -> None:
    """Take over the weights of a trained policy, standardisation of features included."""
    mine, theirs = policy.state_dict(), earlier.state_dict()
    different = sorted(mine.keys() ^ theirs.keys()) or [n for n in mine if mine[n].shape != theirs[n].shape]
    if different:
        raise UserError(
            f"initial_policy={path} has another shape than the policy to train: {', '.join(different[:3])} differ."
        )
    policy.load_state_dict(theirs)


def _run(command: TrainCommand) -> int:
    inputs = [command.data]
    if command.encoder.kind is EncoderKind.PIXIO and command.encoder.path is not None:
        inputs.append(command.encoder.path)
    if command.initial_policy is not None:
        inputs.append(command.initial_policy)
    return run_stage("train", command.out, command, lambda: _train(command), inputs=inputs, overwrite=command.overwrite)


def main(arguments: list[str]) -> int:
    _register_policy_schemas()
    return run("train", TrainCommand, _run, arguments)
