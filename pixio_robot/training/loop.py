"""The training loop of all commands: steps, metrics, checkpoints, and stopping without losing work."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pixio_robot.fields import check_fields, number, one_of
from pixio_robot.files import sweep_temporaries
from pixio_robot.training import rng
from pixio_robot.training.checkpoint import latest_checkpoint
from pixio_robot.training.device import autocast_dtype
from pixio_robot.training.distributed.processes import Gathered, Vote, current
from pixio_robot.training.distributed.strategy import STRATEGIES, whole
from pixio_robot.training.interrupt import Interrupt
from pixio_robot.training.job import Job
from pixio_robot.training.monitoring.finite import check_finite
from pixio_robot.training.monitoring.loggers import MetricsLog
from pixio_robot.training.monitoring.metrics import means
from pixio_robot.training.monitoring.progress import TrainingProgress
from pixio_robot.training.monitoring.throughput import Pace, WaitsOfTheGpu, WaitsOfTheHost, peak_tflops
from pixio_robot.training.optim import OptimConfig, learning_rate, let_rest, set_learning_rate
from pixio_robot.training.run_record import RESULT as RESULT_FILE
from pixio_robot.training.run_record import FitResult, claimed, read_result, write_result
from pixio_robot.training.settings import GROWING, defaults
from pixio_robot.training.state import TrainingState

CHECKPOINTS = "checkpoints"
MODEL = "model"
SEED_LIMIT = 2**63
"""The seeds of the other processes are larger, and must still fit into PyTorch's 64 bits."""
DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(kw_only=True)
class LoopConfig:
    """Length, precision, parallelism and logging of training."""

    steps: int = number(1000, at_least=1)
    """Optimiser updates; also the length of the learning rate schedule."""
    seconds: float | None = number(None, above=0)
    """Stop at the first step after this much training time [s] and save the model. Does not shorten the learning rate
    schedule. None: no limit."""
    extend: bool = False
    """Continue a finished run up to a larger `steps`, with its optimiser and averaged weights. From there on the
    learning rate follows the longer schedule, so the result differs from a run with these steps from the start."""
    accumulate: int = number(1, at_least=1)
    """Batches per optimiser update (gradient accumulation)."""
    grad_clip: float | None = number(1.0, above=0)
    """Maximum norm of the gradient; None: no clipping."""
    dtype: str = one_of("auto", DTYPES)
    """Precision of forward passes (autocast): `float32`, `bfloat16`, or `auto`: bfloat16 on a GPU that computes in it
    (NVIDIA's since Ampere), float32 on older GPUs and on a CPU (where the backward pass of bfloat16 attention is
    extremely slow in torch 2.11)."""
    compile: bool = False
    """Compile the model with torch.compile; the first steps then take minutes. With several processes, only the blocks
    of Pixio models are compiled."""
    parallel: str = one_of("ddp", STRATEGIES)
    """Strategy for several processes (torchrun): `ddp`, each holds the whole model, or `fsdp`, each holds a shard."""
    peak_tflops: float | None = number(None, above=0)
    """Peak throughput of one device in `dtype` [TFLOP/s], for the reported model FLOPs utilisation (MFU); None: looked
    up by the device's name, for common GPUs."""
    wandb: bool = False
    """Also log to Weights & Biases, configured by its environment variables (WANDB_PROJECT, WANDB_MODE=offline ...)."""
    seed: int = number(0, at_least=0, below=SEED_LIMIT)
    """Random seed; set by the command."""
    log_every: int = number(20, at_least=1)
    """Steps between logged metrics."""
    save_every: int = number(500, at_least=1)
    """Steps between checkpoints, from which an interrupted run resumes."""
    keep_checkpoints: int = number(2, at_least=1)
    """How many of the newest checkpoints to keep."""

    def __post_init__(self) -> None:
        check_fields(self, "loop.")

    def precision(self, device: torch.device) -> torch.dtype:
        """Precision of forward passes on `device`."""
        if self.dtype == "auto":
            return autocast_dtype(device)
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """The autocast context for forward passes on `device`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision(device) is torch.bfloat16)


def fit(job: Job, config: LoopConfig, run_dir: Path | str) -> FitResult:
    """Train `job` in `run_dir`, resuming from its latest checkpoint; a finished run returns at once.

    Leaves `model/` (by `job.save_model`), `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `config.json` and
    `result.json`. On the first SIGINT or SIGTERM it saves a checkpoint and returns with `interrupted`. Raises UserError
    when the directory holds another run, and when the loss stops being finite. `job.batches` is always closed.
    With several processes, all must call it; only the first writes files.
    """
    run_dir = Path(run_dir)
    settings = {**job.settings, "loop": config, "optim": job.optim, "use_ema": job.use_ema}
    unsaid = {**job.unsaid, **defaults({"loop": config, "optim": job.optim})}
    try:
        result = read_result(run_dir)
        started = result is not None or latest_checkpoint(run_dir / CHECKPOINTS) is not None
        claim = (
            claimed(run_dir, settings, unsaid, started, may_grow(config))
            if current().first
            else contextlib.nullcontext()
        )
        with claim:
            if result is not None and _is_done(result, config) and (run_dir / MODEL).is_dir():
                return result
            if current().first:
                _tell_of_a_long_warmup(config, job.optim)
            return _Run(job, config, run_dir).train()
    finally:
        job.batches.close()


def _tell_of_a_long_warmup(config: LoopConfig, optim: OptimConfig) -> None:
    """As when a recipe of many steps is shortened by loop.steps alone."""
    if optim.warmup_steps is not None and optim.warmup_steps >= config.steps:
        print(
            f"optim.warmup_steps={optim.warmup_steps} is not below loop.steps={config.steps}: the learning rate "
            f"ends at {config.steps / optim.warmup_steps:.0%} of optim.lr and never decays.",
            file=sys.stderr,
        )


def may_grow(config: LoopConfig) -> Collection[str]:
    """Flat settings of a run that may be larger when it goes on."""
    return GROWING if config.extend else ()


def _is_done(result: FitResult, config: LoopConfig) -> bool:
    return result.steps >= config.steps or (config.seconds is not None and result.seconds >= config.seconds)


class _Run:
    def __init__(self, job: Job, config: LoopConfig, run_dir: Path) -> None:
        self.job, self.config, self.run_dir = job, config, run_dir
        self.processes = current()
        self.vote = Vote(self.processes)
        self.found = collections.defaultdict[str, Gathered](lambda: Gathered(self.processes))
        if self.processes.first:
            for directory in (run_dir, run_dir / CHECKPOINTS, run_dir / MODEL):
                sweep_temporaries(directory)
            (run_dir / RESULT_FILE).unlink(missing_ok=True)
        self.state = TrainingState(job, config.seed)
        latest = latest_checkpoint(run_dir / CHECKPOINTS)
        if latest is not None:
            self.state.load(latest)
        self.parameters = [parameter for group in job.groups for parameter in group.parameters.values()]
        self.recent: collections.deque[Any] = collections.deque(maxlen=config.log_every * config.accumulate)
        """The `ids` of the latest batches."""
        self.began = time.monotonic() - self.state.seconds
        peak = config.peak_tflops or peak_tflops(job.device, config.precision(job.device))
        waits = WaitsOfTheGpu() if job.device.type == "cuda" else WaitsOfTheHost()
        self.pace = Pace(job.flop_per_example, peak and peak * 1e12 * self.processes.count, waits)
        self.stop_signal = 0

    def train(self) -> FitResult:
        job, config, state = self.job, self.config, self.state
        job.model.train()
        with (
            Interrupt() as interrupt,
            MetricsLog(self.run_dir, state.step, config.wandb, self.processes.first) as log,
            TrainingProgress(job.title, config.steps, state.step, self.processes.first) as progress,
        ):
            last, stopping = self._is_over(interrupt)
            while not stopping:
                if not state.looked:
                    self._look(last, log, progress)
                    if state.step == state.saved_step:
                        state.save_looked(self.run_dir / CHECKPOINTS)
                    elif state.step % config.save_every == 0:
                        self._save(log)
                if last:
                    break
                self._update()
                last, stopping = self._is_over(interrupt)
                progress.step(state.step)
                if last or state.step % config.log_every == 0:
                    line = self._report()
                    log.write(state.step, line)
                    progress.report(state.step, line)
                # Before the hooks, which may take longer than whoever stops the run will wait.
                if last or stopping:
                    self._save(log)
            metrics = {name: value for name, value in log.last.items() if name != "step"}
            result = FitResult(steps=state.step, seconds=state.seconds, metrics=metrics)
            if stopping:
                return dataclasses.replace(result, interrupted=True, preempted=self.stop_signal == signal.SIGTERM)
            with self.evaluating():
                job.save_model(self.run_dir / MODEL)
        result.out_of_time = state.step < config.steps
        if self.processes.first:
            write_result(self.run_dir, result)
        return result

    def _look(self, last: bool, log: MetricsLog, progress: TrainingProgress) -> None:
        """Call the hooks that are due after this step; a run that was stopped there does it when it goes on."""
        step = self.state.step
        due = [hook for hook in self.job.hooks if last or step % hook.every == 0]
        if due:
            with self.pace.paused(), self.evaluating():
                values = {name: value for hook in due for name, value in hook.call(step).items()}
            if values:
                log.write(step, values)
                progress.found(step, values)
        self.state.looked = True

    def _save(self, log: MetricsLog) -> None:
        state = self.state
        with self.pace.paused():
            state.window.average(self.processes)
            self._check_finite(state.window.fetch())
            log.sync()
            state.seconds = time.monotonic() - self.began
            state.save(self.run_dir / CHECKPOINTS, self.config.keep_checkpoints)

    def _is_over(self, interrupt: Interrupt) -> tuple[bool, bool]:
        """Whether the run ends here, and whether it was asked to stop; all processes agree. Of several each learns a
        step later what the others want. Time is up after a step at the earliest: without any there is nothing to
        report."""
        limit = self.config.seconds
        out_of_time = limit is not None and self.state.step > 0 and time.monotonic() - self.began >= limit
        out_of_time, self.stop_signal = self.vote.largest(out_of_time, interrupt.signal)
        return self.state.step >= self.config.steps or bool(out_of_time), self.stop_signal > 0

    def _update(self) -> None:
        """One step of the optimiser. Nothing in here waits for the device."""
        job, config, state = self.job, self.config, self.state
        if let_rest(job.groups, state.step):
            job.spread.renew()
        for part, batch in enumerate(self._batches()):
            job.spread.reduce_gradients(part == config.accumulate - 1)
            with config.autocast(job.device):
                loss, metrics = job.step(batch)
            (loss / config.accumulate).backward()
            for name, value in {**metrics, "loss": loss}.items():
                state.window.add(name, value)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if config.grad_clip is not None:
            clip_grads_with_norm_(self.parameters, config.grad_clip, norm)
        state.window.add("grad_norm", whole(norm))
        set_learning_rate(state.optimizer, learning_rate(state.step, config.steps, job.optim))
        state.optimizer.step()
        state.optimizer.zero_grad()
        if state.ema:
            state.ema.update()
        state.step += 1
        state.looked = False
        self.pace.examples += job.batch_size * config.accumulate

    def _batches(self) -> Iterable[Any]:
        """What `step` takes for each of the batches of an update."""
        batches = (self._batch() for _ in range(self.config.accumulate))
        return batches if self.job.weigh is None else self.job.weigh(list(batches))

    def _batch(self) -> Any:
        with self.pace.waiting_for_data():
            batch = next(self.job.batches)
        self.recent.append(getattr(batch, "ids", None))
        return batch

    def _report(self) -> dict[str, float]:
        """The means since the last report, which begins anew."""
        state = self.state
        state.window.average(self.processes)
        values = state.window.fetch()
        self._check_finite(values)
        state.window.clear()
        rate = learning_rate(state.step - 1, self.config.steps, self.job.optim)
        seconds = time.monotonic() - self.began
        counts = {name: self.found[name].count(ids) for name, ids in self.job.found().items()}
        return means(values) | counts | {"lr": rate, "seconds": seconds} | self.pace.take()

    def _check_finite(self, values: dict[str, list[float]]) -> None:
        """No checkpoint is made of broken weights."""
        check_finite(values, self.state.step, self.config.accumulate, self.recent, self.run_dir, self.processes)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, averaged weights, no gradients, and no trace in the random numbers."""
        job, average = self.job, self.state.ema
        job.model.eval()
        with (
            torch.no_grad(),
            rng.preserved(job.device, job.generators),
            average.swapped_in() if average else contextlib.nullcontext(),
        ):
            try:
                yield
            finally:
                job.spread.let_go()
                job.model.train()
