"""Everything needed to resume a run as if it had never been interrupted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.training import checkpoint, rng
from pixio_robot.training.distributed.processes import current_processes
from pixio_robot.training.distributed.sharded_files import load_sharded
from pixio_robot.training.ema import Ema
from pixio_robot.training.job import Job
from pixio_robot.training.monitoring.metrics import MetricBuffer
from pixio_robot.training.optim import (
    build_optimizer,
    empty_optimizer_tensors,
    frozen_names,
    load_optimizer_tensors,
    optimizer_tensors,
)
from pixio_robot.vision.checkpointing import check_state_dict

RANK_STRIDE = 1_000_003
"""Seed offset between processes, so large that they never collide with those of the next seed."""
HOOKS_DONE, METRIC_BUFFER = "looked", "window"
"""Their names in checkpoints, which stay as they are so that earlier runs can be resumed."""


class TrainingState:
    """State of `job` after `step` updates and `seconds` of work, including earlier sessions. `precision` is the name of
    the dtype of forward passes."""

    def __init__(self, job: Job, seed: int, precision: str = "float32") -> None:
        self.job, self.seed, self.precision = job, seed, precision
        self.step = 0
        self.seconds = 0.0
        self.hooks_done = True
        """Whether the hooks that are due after this step were called."""
        self.saved_step = 0
        """Step of the newest checkpoint."""
        self.optimizer = build_optimizer(job.groups, job.optim)
        self.ema = Ema(job.model) if job.use_ema else None
        self.metric_buffer = MetricBuffer()
        self.processes = current_processes()
        rng.seed_everything(seed + RANK_STRIDE * self.processes.rank)
        for generator in job.generators.values():
            generator.manual_seed(seed)

    def save(self, directory: Path, keep: int) -> None:
        """Write a checkpoint in `directory` that any number of processes can resume from."""
        job = self.job
        all_states = self.processes.all_gather(rng.get_rng_state(job.device, job.generators))
        weights = job.model.state_dict()
        names = frozen_names(job.model, job.groups)
        frozen = {name: weights.pop(name) for name in list(weights) if name in names}
        sharded = {
            "model": weights,
            "optimizer": optimizer_tensors(self.optimizer, job.groups),
        }
        random_states = {
            f"{rank}/{name}": state for rank, (states, _) in enumerate(all_states) for name, state in states.items()
        }
        parts = {"random": random_states, METRIC_BUFFER: self.metric_buffer.tensors()}
        random_values = [values for _, values in all_states]
        data = job.batches.merge_states(self.processes.all_gather(job.batches.state_dict()))
        trainer = {"seconds": self.seconds, HOOKS_DONE: self.hooks_done, "random": random_values, "data": data}
        trainer["precision"] = self.precision
        if self.ema:
            sharded["ema"] = self.ema.tensors()
            trainer["ema_step"] = self.ema.step
        checkpoint.write_checkpoint(directory, self.step, sharded, parts, trainer, keep, frozen)
        self.saved_step = self.step

    def save_hooks_done(self, directory: Path) -> None:
        """Record in the newest checkpoint, which is of this step, that the hooks have been called."""
        if self.processes.is_main:
            checkpoint.update_trainer(directory, {HOOKS_DONE: self.hooks_done})

    def load(self, path: Path) -> None:
        """Resume from the checkpoint at `path`. Raises UserError if it does not fit the job, and says so if the run was
        computed in another precision, which the same settings choose on another kind of device."""
        job = self.job
        sizes, parts, trainer = checkpoint.read_checkpoint(path)
        weights = job.model.state_dict()
        check_state_dict({name: weight.shape for name, weight in weights.items()}, sizes.get("model", {}), path)
        checkpoint.load_weights(path, weights)
        try:
            optimizer_state = empty_optimizer_tensors(job.groups, sizes.get("optimizer", {}))
            load_sharded(path / "optimizer", optimizer_state)
            load_optimizer_tensors(self.optimizer, job.groups, optimizer_state)
            if self.ema:
                averages = self.ema.tensors()
                check_state_dict({name: value.shape for name, value in averages.items()}, sizes.get("ema", {}), path)
                load_sharded(path / "ema", averages)
                self.ema.step = trainer["ema_step"]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} does not fit this run: its optimiser or averaged weights belong to other parameters ({error})."
            ) from error
        self.metric_buffer.load(parts[METRIC_BUFFER], job.device)
        job.batches.load_state_dict(trainer["data"])
        self.step, self.seconds = trainer["step"], trainer["seconds"]
        self.saved_step, self.hooks_done = self.step, trainer[HOOKS_DONE]
        earlier = trainer.get("precision", self.precision)
        if earlier != self.precision and self.processes.is_main:
            print(f"{path} was computed in {earlier}; the run continues in {self.precision}.", file=sys.stderr)
        self._restore_randomness(parts["random"], trainer["random"])

    def _restore_randomness(self, tensors: dict[str, Tensor], values: list[Any]) -> None:
        """A process that the saved run did not have uses the generators of the first one, with reseeded global ones."""
        rank = self.processes.rank if self.processes.rank < len(values) else 0
        states = {key.removeprefix(f"{rank}/"): state for key, state in tensors.items() if key.startswith(f"{rank}/")}
        if rank != self.processes.rank:
            states = {name: state for name, state in states.items() if not name.startswith(rng.GLOBAL_PREFIX)}
        seed = self.seed + self.step + RANK_STRIDE * self.processes.rank
        rng.set_rng_state(self.job.device, self.job.generators, states, values[rank], fallback_seed=seed)
