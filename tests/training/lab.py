"""Small real things to train: a regression with dropout and a generator of its own, on a resumable stream."""

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pixio_robot.training.job import Job
from pixio_robot.training.loop import LoopConfig
from pixio_robot.training.optim import OptimConfig, parameter_groups

BATCH = 32


@dataclasses.dataclass
class Points:
    inputs: torch.Tensor
    targets: torch.Tensor
    ids: list[str]


class PointStream:
    """Batch number n is a function of n. With `broken_at` that batch holds a NaN."""

    def __init__(self, broken_at: int | None = None) -> None:
        self.position, self.broken_at, self.closed = 0, broken_at, False

    def __next__(self) -> Points:
        generator = torch.Generator().manual_seed(self.position)
        inputs = torch.randn(BATCH, 4, generator=generator)
        if self.position == self.broken_at:
            inputs[3, 2] = torch.nan
        ids = [f"{self.position}.{row}" for row in range(BATCH)]
        self.position += 1
        return Points(inputs, inputs.nan_to_num() @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 0.7, ids)

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]

    def merge_states(self, states):
        return states[0]

    def close(self):
        self.closed = True


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Dropout(0.02), nn.BatchNorm1d(32), nn.Linear(32, 1))


def regression(stream=None, lr=1e-2, use_ema=True, hooks=(), settings=None, at_step=None) -> Job:
    """Everything new, as in a new process. `at_step(n)` is called inside step n, from 0."""
    model = network()
    generator = torch.Generator()
    taken = iter(range(10**9))

    def step(batch):
        if at_step is not None:
            at_step(next(taken))
        noise = 0.01 * torch.randn(batch.targets.shape, generator=generator)
        error = model(batch.inputs) - batch.targets - noise
        return error.square().mean(), {"mean_error": error.mean().detach()}

    def save_model(directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        save_file(model.state_dict(), directory / "model.safetensors")

    return Job(
        title="regression",
        model=model,
        device=torch.device("cpu"),
        batches=stream or PointStream(),
        batch_size=BATCH,
        step=step,
        groups=parameter_groups(model),
        optim=OptimConfig(lr=lr, weight_decay=0.01),
        save_model=save_model,
        settings=settings or {"data": "points"},
        generators={"noise": generator},
        hooks=list(hooks),
        use_ema=use_ema,
    )


def loop_config(**changes) -> LoopConfig:
    return LoopConfig(**{"steps": 60, "log_every": 7, "save_every": 11, "seed": 3, **changes})


def interrupt_at(number: int):
    """An `at_step` that sends this process SIGINT inside that step."""

    def at_step(step: int) -> None:
        if step == number:
            os.kill(os.getpid(), 2)

    return at_step


TIMES = ("seconds", "examples_per_second", "data_wait_share")


def metric_lines(run_dir: Path) -> list[dict]:
    """The metrics file without what a clock decides."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def load_sharded_part(directory: Path) -> dict[str, torch.Tensor]:
    """A part of a checkpoint that one process wrote."""
    (file,) = directory.glob("*.safetensors")
    return load_file(file)


def assert_same_run(first: Path, second: Path) -> None:
    """Deployed weights, the whole training state and the metrics, bit for bit."""
    assert metric_lines(first) == metric_lines(second)
    names = sorted(path.relative_to(first) for path in first.rglob("*.safetensors"))
    last = sorted((first / "checkpoints").glob("step_*"))[-1].name
    names = [name for name in names if name.parts[0] != "checkpoints" or name.parts[1] == last]
    assert len(names) >= 5
    for name in names:
        one, two = load_file(first / name), load_file(second / name)
        assert one.keys() == two.keys(), name
        assert all(torch.equal(one[key], two[key]) for key in one), name
    trainers = [json.loads((run / "checkpoints" / last / "trainer.json").read_text()) for run in (first, second)]
    for trainer in trainers:
        del trainer["seconds"]
    assert trainers[0] == trainers[1]
