"""Everything that a resumed run needs to go on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pixio_robot.errors import UserError
from pixio_robot.training import checkpoint, randomness
from pixio_robot.training.distributed import current, spread_like, whole_on_cpu
from pixio_robot.training.ema import Ema
from pixio_robot.training.job import Job
from pixio_robot.training.metrics import Window
from pixio_robot.training.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors
from pixio_robot.vision.checkpointing import load_weights

RANK_STRIDE = 1_000_003
"""Apart enough that the seeds of the processes of one run never meet those of the next seed."""


class TrainingState:
    """The state of `job` after `step` updates and `seconds` of work, here and in earlier processes."""

    def __init__(self, job: Job, seed: int) -> None:
        self.job, self.seed = job, seed
        self.step = 0
        self.seconds = 0.0
        self.optimizer = build_optimizer(job.groups, job.optim, job.device)
        self.ema = Ema(job.model) if job.use_ema else None
        self.window = Window()
        self.processes = current()
        randomness.seed_everything(seed + RANK_STRIDE * self.processes.rank)
        for generator in job.generators.values():
            generator.manual_seed(seed)

    def save(self, directory: Path, keep: int) -> None:
        """Write a checkpoint below `directory`; the same files whatever the number of processes."""
        job = self.job
        everyones = self.processes.gather(randomness.capture(job.device, job.generators))
        parts = {
            "model": whole_on_cpu(job.model.state_dict()),
            "optimizer": whole_on_cpu(optimizer_tensors(self.optimizer, job.groups)),
            "random": {
                f"{rank}/{name}": state for rank, (states, _) in enumerate(everyones) for name, state in states.items()
            },
            "window": self.window.tensors(),
        }
        random = [values for _, values in everyones]
        trainer = {"seconds": self.seconds, "random": random, "data": dict(job.batches.state_dict())}
        if self.ema:
            parts["ema"] = whole_on_cpu(self.ema.tensors())
            trainer["ema_step"] = self.ema.step
        if self.processes.first:
            checkpoint.write_checkpoint(directory, self.step, parts, trainer, keep)

    def load(self, path: Path) -> None:
        """Take up the checkpoint at `path`. Raises UserError when it does not fit the job."""
        job = self.job
        parts, trainer = checkpoint.read_checkpoint(path)
        own = job.model.state_dict()
        weights = {
            name: spread_like(value, own[name]) if name in own else value for name, value in parts["model"].items()
        }
        load_weights(job.model, weights, path)
        try:
            load_optimizer_tensors(self.optimizer, job.groups, parts["optimizer"])
            if self.ema:
                self.ema.load(parts["ema"], trainer["ema_step"])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} does not fit this run: its optimiser or averaged weights belong to other parameters ({error})."
            ) from error
        self.window.load(parts["window"], job.device)
        job.batches.load_state_dict(trainer["data"])
        self.step, self.seconds = trainer["step"], trainer["seconds"]
        self._restore_randomness(parts["random"], trainer["random"])

    def _restore_randomness(self, tensors: dict[str, Tensor], values: list[Any]) -> None:
        """A process that had no part in the saved run shares the first one's generators but draws on afresh."""
        rank = self.processes.rank if self.processes.rank < len(values) else 0
        mine = {key.removeprefix(f"{rank}/"): state for key, state in tensors.items() if key.startswith(f"{rank}/")}
        if rank != self.processes.rank:
            mine = {name: state for name, state in mine.items() if not name.startswith(randomness.GLOBAL)}
        seed = self.seed + self.step + RANK_STRIDE * self.processes.rank
        randomness.restore(self.job.device, self.job.generators, mine, values[rank], fallback_seed=seed)
