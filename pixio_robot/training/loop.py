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

from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of
from pixio_robot.files import remove_temporaries
from pixio_robot.progress import Progress
from pixio_robot.training import rng
from pixio_robot.training.checkpoint import latest_checkpoint
from pixio_robot.training.device import computes_in_bfloat16
from pixio_robot.training.distributed.processes import DelayedMax, DistinctItemCounter, current_processes
from pixio_robot.training.distributed.strategy import STRATEGIES, gather_full_tensor
from pixio_robot.training.interrupt import Interrupt
from pixio_robot.training.job import Job
from pixio_robot.training.monitoring.finite import check_finite
from pixio_robot.training.monitoring.loggers import MetricLoggers
from pixio_robot.training.monitoring.metrics import average_metrics, format_main_numbers, format_rate
from pixio_robot.training.monitoring.throughput import GpuWaitTimer, HostWaitTimer, ThroughputMeter, peak_tflops
from pixio_robot.training.optim import OptimConfig, freeze_by_schedule, learning_rate, set_learning_rate
from pixio_robot.training.run_record import RESULT as RESULT_FILE
from pixio_robot.training.run_record import FitResult, lock_run, read_result, write_result
from pixio_robot.training.settings import EXTENDABLE
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
    """Precision of forward passes (autocast): `float32`, `bfloat16`, or `auto`: bfloat16 on a device that computes in
    it (NVIDIA's GPUs since Ampere, CPUs with avx512_bf16 in /proc/cpuinfo), float32 on others, where bfloat16 is
    slower."""
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
        half = computes_in_bfloat16(device) if self.dtype == "auto" else self.dtype == "bfloat16"
        return torch.bfloat16 if half else torch.float32

    def autocast(self, device: torch.device) -> torch.autocast:
        """The autocast context for forward passes on `device`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision(device) is torch.bfloat16)


def fit(job: Job, config: LoopConfig, run_dir: Path | str) -> FitResult:
    """Train `job` in `run_dir`, resuming from its latest checkpoint; a finished run returns at once.

    Leaves `model/` (by `job.save_model`), `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `config.json` and
    `result.json`. On the first SIGINT or SIGTERM it saves a checkpoint and returns with `interrupted`. Raises UserError
    when the directory holds another run, and when the loss stops being finite. `job.batches` is always closed.
    With several processes, all must call it; only the main process writes files.
    """
    run_dir = Path(run_dir)
    settings = {**job.settings, "loop": config, "optim": job.optim, "use_ema": job.use_ema}
    try:
        result = read_result(run_dir)
        started = result is not None or latest_checkpoint(run_dir / CHECKPOINTS) is not None
        run_lock = (
            lock_run(run_dir, settings, started, extendable_settings(config))
            if current_processes().is_main
            else contextlib.nullcontext()
        )
        with run_lock:
            if result is not None and _is_done(result, config) and (run_dir / MODEL).is_dir():
                return result
            if current_processes().is_main:
                _warn_long_warmup(config, job.optim)
            return _TrainingRun(job, config, run_dir).train()
    finally:
        job.batches.close()


def _common_precision(config: LoopConfig, device: torch.device) -> str:
    """The name of the precision in which all processes compute. Raises UserError if they differ."""
    found = set(current_processes().all_gather(str(config.precision(device)).removeprefix("torch.")))
    if len(found) > 1:
        raise UserError("Only some of the processes' devices compute in bfloat16: set loop.dtype=float32.")
    return found.pop()


def _warn_long_warmup(config: LoopConfig, optim: OptimConfig) -> None:
    """Warn if the warm-up is as long as the run, as when a recipe of many steps is shortened by loop.steps alone."""
    if optim.warmup_steps is not None and optim.warmup_steps >= config.steps:
        print(
            f"optim.warmup_steps={optim.warmup_steps} is not below loop.steps={config.steps}: the learning rate "
            f"ends at {config.steps / optim.warmup_steps:.0%} of optim.lr and never decays.",
            file=sys.stderr,
        )


def extendable_settings(config: LoopConfig) -> Collection[str]:
    """Flat settings that may be increased when a run is continued."""
    return EXTENDABLE if config.extend else ()


def _is_done(result: FitResult, config: LoopConfig) -> bool:
    return result.steps >= config.steps or (config.seconds is not None and result.seconds >= config.seconds)


class _TrainingRun:
    def __init__(self, job: Job, config: LoopConfig, run_dir: Path) -> None:
        self.job, self.config, self.run_dir = job, config, run_dir
        self.processes = current_processes()
        self.stop_request = DelayedMax(self.processes)
        self.item_counters = collections.defaultdict[str, DistinctItemCounter](
            lambda: DistinctItemCounter(self.processes)
        )
        if self.processes.is_main:
            checkpoints = run_dir / CHECKPOINTS
            for directory in (run_dir, run_dir / MODEL, checkpoints, *checkpoints.glob("step_*")):
                remove_temporaries(directory)
            (run_dir / RESULT_FILE).unlink(missing_ok=True)
        self.state = TrainingState(job, config.seed, _common_precision(config, job.device))
        latest = latest_checkpoint(run_dir / CHECKPOINTS)
        if latest is not None:
            self.state.load(latest)
        self.parameters = [parameter for group in job.groups for parameter in group.parameters.values()]
        self.recent: collections.deque[Any] = collections.deque(maxlen=config.log_every * config.accumulate)
        """The `ids` of the latest batches."""
        self.began = time.monotonic() - self.state.seconds
        peak = config.peak_tflops or peak_tflops(job.device, config.precision(job.device))
        waits = GpuWaitTimer() if job.device.type == "cuda" else HostWaitTimer()
        self.throughput = ThroughputMeter(job.flop_per_example, peak and peak * 1e12 * self.processes.world_size, waits)
        self.stop_signal = 0

    def train(self) -> FitResult:
        job, config, state = self.job, self.config, self.state
        job.model.train()
        with (
            Interrupt() as interrupt,
            MetricLoggers(self.run_dir, state.step, config.wandb, self.processes.is_main) as log,
            Progress(job.title, config.steps, state.step, self.processes.is_main) as progress,
        ):
            remark = ""
            last, stopping = self._should_stop(interrupt)
            while not stopping:
                if not state.hooks_done:
                    self._run_hooks(last, log, progress)
                    if state.step == state.saved_step:
                        state.save_hooks_done(self.run_dir / CHECKPOINTS)
                    elif state.step % config.save_every == 0:
                        self._save(log)
                if last:
                    break
                self._optimizer_step()
                last, stopping = self._should_stop(interrupt)
                if last or state.step % config.log_every == 0:
                    line = self._collect_metrics()
                    log.write(state.step, line)
                    remark = format_rate(line)
                progress.advance(remark=remark)
                # Before the hooks, which may take longer than whoever stops the run will wait.
                if last or stopping:
                    self._save(log)
            metrics = {name: value for name, value in log.last.items() if name != "step"}
            result = FitResult(steps=state.step, seconds=state.seconds, metrics=metrics)
            if stopping:
                return dataclasses.replace(result, interrupted=True, preempted=self.stop_signal == signal.SIGTERM)
            with self.evaluation_mode():
                job.save_model(self.run_dir / MODEL)
        result.out_of_time = state.step < config.steps
        if self.processes.is_main:
            write_result(self.run_dir, result)
        return result

    def _run_hooks(self, last: bool, log: MetricLoggers, progress: Progress) -> None:
        """Call the hooks that are due after this step. A run that was stopped before them calls them when it is
        resumed."""
        step = self.state.step
        due = [hook for hook in self.job.hooks if last or step % hook.every == 0]
        if due:
            with self.throughput.paused(), self.evaluation_mode():
                values = {name: value for hook in due for name, value in hook.call(step).items()}
            if values:
                log.write(step, values)
                if numbers := format_main_numbers(values):
                    progress.say(f"step {step}/{self.config.steps}, {numbers}")
        self.state.hooks_done = True

    def _save(self, log: MetricLoggers) -> None:
        state = self.state
        with self.throughput.paused():
            state.metric_buffer.average(self.processes)
            self._check_finite(state.metric_buffer.fetch())
            log.sync()
            state.seconds = time.monotonic() - self.began
            state.save(self.run_dir / CHECKPOINTS, self.config.keep_checkpoints)

    def _should_stop(self, interrupt: Interrupt) -> tuple[bool, bool]:
        """Whether the run ends here, and whether a signal asked it to stop. All processes return the same: with several
        processes, a request takes effect one step later. The time limit applies from the first step on, because without
        a step there is nothing to report."""
        limit = self.config.seconds
        out_of_time = limit is not None and self.state.step > 0 and time.monotonic() - self.began >= limit
        out_of_time, self.stop_signal = self.stop_request.all_reduce_max(out_of_time, interrupt.signal)
        return self.state.step >= self.config.steps or bool(out_of_time), self.stop_signal > 0

    def _optimizer_step(self) -> None:
        """One step of the optimiser. Nothing in here waits for the device."""
        job, config, state = self.job, self.config, self.state
        if freeze_by_schedule(job.groups, state.step):
            job.distributed_model.rewrap()
        for index, batch in enumerate(self._update_batches()):
            job.distributed_model.set_requires_gradient_sync(index == config.accumulate - 1)
            with config.autocast(job.device):
                loss, metrics = job.step(batch)
            (loss / config.accumulate).backward()
            for name, value in {**metrics, "loss": loss}.items():
                state.metric_buffer.add(name, value)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if config.grad_clip is not None:
            clip_grads_with_norm_(self.parameters, config.grad_clip, norm)
        state.metric_buffer.add("grad_norm", gather_full_tensor(norm))
        set_learning_rate(state.optimizer, learning_rate(state.step, config.steps, job.optim))
        state.optimizer.step()
        state.optimizer.zero_grad()
        if state.ema:
            state.ema.update()
        state.step += 1
        state.hooks_done = False
        self.throughput.examples += job.batch_size * config.accumulate

    def _update_batches(self) -> Iterable[Any]:
        """The arguments of `step` for the batches of one update."""
        batches = (self._next_batch() for _ in range(self.config.accumulate))
        return batches if self.job.weight_batches is None else self.job.weight_batches(list(batches))

    def _next_batch(self) -> Any:
        with self.throughput.time_data_wait():
            batch = next(self.job.batches)
        self.recent.append(getattr(batch, "ids", None))
        return batch

    def _collect_metrics(self) -> dict[str, float]:
        """The means of all metrics since the last call; the buffer is cleared."""
        state = self.state
        state.metric_buffer.average(self.processes)
        values = state.metric_buffer.fetch()
        self._check_finite(values)
        state.metric_buffer.clear()
        rate = learning_rate(state.step - 1, self.config.steps, self.job.optim)
        seconds = time.monotonic() - self.began
        counts = {name: self.item_counters[name].count(ids) for name, ids in self.job.distinct_items().items()}
        return average_metrics(values) | counts | {"lr": rate, "seconds": seconds} | self.throughput.read_and_reset()

    def _check_finite(self, values: dict[str, list[float]]) -> None:
        """Raise UserError if a loss or gradient is not finite, so that no checkpoint with broken weights is written."""
        check_finite(values, self.state.step, self.config.accumulate, self.recent, self.run_dir, self.processes)

    @contextlib.contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Context with evaluation mode, averaged weights and no gradients; random states are restored afterwards."""
        job, ema = self.job, self.state.ema
        job.model.eval()
        with (
            torch.no_grad(),
            rng.preserve_rng_state(job.device, job.generators),
            ema.average_parameters() if ema else contextlib.nullcontext(),
        ):
            try:
                yield
            finally:
                job.distributed_model.reshard()
                job.model.train()
