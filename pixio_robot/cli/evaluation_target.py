"""What is evaluated: a finished policy, its training checkpoints, or random actions; and the actor that runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pixio_robot.cli.policy_directory import policy_directory, weights_fingerprint
from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import EvaluatedPolicy
from pixio_robot.types import Actor, DemoSpec
from policies.acting import ActingConfig, apply_acting_config, describe_acting, explain_unused_noise_seed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

RANDOM = "random"


@dataclass(frozen=True)
class EvaluationTarget:
    """One policy to evaluate: its weights and its identity in the results. `directory` is None for random actions."""

    policy: EvaluatedPolicy
    directory: Path | None = None
    step_directory: Path | None = None
    """Training checkpoint whose weights replace those in `directory`."""
    spec: DemoSpec | None = None
    bounds: tuple[np.ndarray, np.ndarray] | None = None
    """Lower and upper action limits, (a,) each, for random actions."""
    action_range: tuple[Sequence[float], Sequence[float]] | None = None
    """Lowest and highest action of the demonstrations, (a,) each; None for random actions."""
    tasks: Sequence[str] = ()
    """Tasks that the policy can be asked for; empty if it takes no task. `spec.task` names all that it learned."""
    train_seeds: Sequence[int] = ()

    def spec_for_task(self, task: str) -> DemoSpec | None:
        """The policy's DemoSpec for that task."""
        return replace(self.spec, task=task) if self.spec is not None and task in self.tasks else self.spec

    def make_actor(self, task: str, acting: ActingConfig, slots: int, device: torch.device) -> tuple[Actor, str]:
        """The actor for the task, and a description of its acting settings.

        Raises UserError if the weights cannot be read, or the policy does not support the acting settings.
        """
        from pixio_robot.evaluation.baselines import RandomActor
        from pixio_robot.state_range import MonitoredActor, StateRangeMonitor
        from policies.chunking import make_chunked_actor
        from policies.persistence import load_policy

        if self.directory is None:
            assert self.bounds is not None
            return RandomActor(len(self.bounds[0]), *self.bounds), ""
        policy = load_policy(self.directory, device)
        if self.step_directory is not None:
            _load_checkpoint_weights(policy, self.step_directory)
        apply_acting_config(policy, acting)
        actor: Actor = make_chunked_actor(policy, slots, device, policy.goals.get(task), acting.noise_seed)
        if (watch := StateRangeMonitor.of(policy.spec.state_names, policy.state_range)) is not None:
            actor = MonitoredActor(actor, watch, lambda warning: print(f"evaluate: {warning}"))
        if words := explain_unused_noise_seed(policy, acting):
            print(f"evaluate: {words}")
        return actor, describe_acting(policy, acting)


def random_actions(name: str, bounds: tuple[np.ndarray, np.ndarray]) -> EvaluationTarget:
    """Actions drawn uniformly between the bounds."""
    who = EvaluatedPolicy(name=name, label="Random actions", policy="random", encoder="none")
    return EvaluationTarget(who, bounds=bounds)


def finished_policy(checkpoint: str, name: str) -> EvaluationTarget:
    """The final policy of a training run, or a policy directory itself. Raises UserError if there is none."""
    from pixio_robot.data.stats import Statistics
    from policies.persistence import read_policy_config
    from policies.relative_poses import RELATIVE

    directory = policy_directory(checkpoint)
    description = read_policy_config(directory)
    extra = description["extra"]
    who = EvaluatedPolicy(
        name=name,
        label=extra.get("label", name),
        policy=description["policy"],
        encoder=extra.get("encoder", "unknown"),
        adaptation=extra.get("adaptation", ""),
        training_seed=extra.get("seed"),
        fingerprint=weights_fingerprint(directory),
    )
    config, conditioning = description["config"], description["config"]["conditioning"]
    reads_state = conditioning["use_state"] or config.get("action_pose_repr") == RELATIVE
    spec = DemoSpec.from_json(description["spec"]).restricted_to(conditioning["cameras"], reads_state)
    tasks = list(description.get("goals", {}))
    actions = Statistics.from_json(description["statistics"]).actions
    return EvaluationTarget(
        who,
        directory,
        spec=spec,
        action_range=(actions.minimum.tolist(), actions.maximum.tolist()),
        tasks=tasks,
        train_seeds=extra.get("train_seeds", []),
    )


def training_checkpoints(checkpoint: str, name: str) -> list[EvaluationTarget]:
    """All checkpoints that a finished training run kept, earliest first, with averaged weights where available.

    Raises UserError if there is none, or if the run trained LoRA adapters.
    """
    from pixio_robot.vision.adapt import Adaptation

    final = finished_policy(checkpoint, name)
    if final.policy.adaptation == Adaptation.LORA.value:
        raise UserError(
            f"every_checkpoint=true does not support {checkpoint}: its checkpoints store LoRA adapters separately, and "
            "only the finished policy has them merged."
        )
    steps = sorted(path.parent for path in Path(checkpoint).glob("checkpoints/step_*/trainer.json"))
    if not steps:
        raise UserError(
            f"{checkpoint} has no training checkpoints to evaluate; give the output directory of `train` (its settings "
            "loop.save_every and loop.keep_checkpoints determine which checkpoints are kept)."
        )
    targets = []
    for path in steps:
        step = int(path.name.removeprefix("step_"))
        who = replace(final.policy, training_step=step, fingerprint=checkpoint_fingerprint(path))
        targets.append(replace(final, policy=who, step_directory=path))
    return targets


def checkpoint_fingerprint(step_directory: Path) -> str:
    """Hash of a training checkpoint's weights and averaged weights."""
    digest = hashlib.sha256()
    for file in sorted(step_directory.glob("[em]*/*.safetensors")):  # ema/ and model/
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _load_checkpoint_weights(policy: nn.Module, step_directory: Path) -> None:
    """Load a checkpoint's averaged weights into the policy; the plain weights where no average was kept."""
    import torch

    from pixio_robot.training.checkpoint import load_weights, read_checkpoint
    from pixio_robot.training.distributed.sharded_files import load_sharded
    from pixio_robot.vision.checkpointing import check_state_dict

    sizes, _, _ = read_checkpoint(step_directory)
    weights = policy.state_dict()  # shares memory with the policy
    check_state_dict({name: value.shape for name, value in weights.items()}, sizes.get("model", {}), step_directory)
    load_weights(step_directory, weights)
    # Averages are stored in float32 whatever the dtype of the weights.
    averages = {name: torch.empty_like(weights[name], dtype=torch.float32) for name in sizes.get("ema", {})}
    load_sharded(step_directory / "ema", averages)
    for name, value in averages.items():
        weights[name].copy_(value)
