"""Everything that a resumed run needs to go on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.training import checkpoint, randomness
from pixio_robot.training.ema import Ema
from pixio_robot.training.job import Job
from pixio_robot.training.metrics import Window
from pixio_robot.training.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors
from pixio_robot.vision.checkpointing import load_weights


class TrainingState:
    """The state of `job` after `step` updates and `seconds` of work, here and in earlier processes."""

    def __init__(self, job: Job, seed: int) -> None:
        self.job, self.seed = job, seed
        self.step = 0
        self.seconds = 0.0
        self.optimizer = build_optimizer(job.groups, job.optim, job.device)
        self.ema = Ema(job.model) if job.use_ema else None
        self.window = Window()
        randomness.seed_everything(seed)
        for generator in job.generators.values():
            generator.manual_seed(seed)

    def save(self, directory: Path, keep: int) -> Path:
        """Write a checkpoint below `directory`."""
        job = self.job
        tensors, values = randomness.capture(job.device, job.generators)
        parts = {
            "model": job.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, job.groups),
            "random": tensors,
            "window": self.window.tensors(),
        }
        trainer = {"seconds": self.seconds, "random": values, "data": dict(job.batches.state_dict())}
        if self.ema:
            parts["ema"] = self.ema.tensors()
            trainer["ema_step"] = self.ema.step
        return checkpoint.write_checkpoint(directory, self.step, parts, trainer, keep)

    def load(self, path: Path) -> None:
        """Take up the checkpoint at `path`. Raises UserError when it does not fit the job."""
        job = self.job
        parts, trainer = checkpoint.read_checkpoint(path)
        load_weights(job.model, parts["model"], path)
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
        randomness.restore(
            job.device, job.generators, parts["random"], trainer["random"], fallback_seed=self.seed + self.step
        )
