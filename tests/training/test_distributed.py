"""Two real processes over gloo against one: the same losses, the same weights, each other's checkpoints.

Started by torchrun, as tasks of srun, with the variables of other launchers, and by Hydra's submitit launcher, whose
local executor stands in for Slurm.
"""

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from pixio_robot.errors import UserError
from pixio_robot.training.distributed.launch import (
    DISTRIBUTED_VARIABLES,
    _export_launch,
    _local_gpu_index,
    join_process_group,
)
from pixio_robot.training.distributed.other_launchers import launcher_variables
from pixio_robot.training.distributed.processes import DelayedMax, DistinctItemCounter, Processes
from pixio_robot.training.distributed.sharded_files import _clone_shared_tensors
from pixio_robot.training.distributed.slurm_step import explain_lone_task, first_host, torch_variables

COMMAND = ["-m", "pixio_robot.cli.main", "pretrain"]
SETTINGS = [
    "encoder={size: tiny, patch: 8, image_size: 32, class_tokens: 2}",
    "decoder={width: 32, depth: 1, heads: 2}",
    "mask.block=1",
    "batch_size=8",
    "optim.lr=0.03",
    "encoder_begins=3",
    "loop={steps: 10, log_every: 1, save_every: 5, accumulate: 2, dtype: float32}",
    "panels_every=3",
    "validation_batches=2",
    "workers=1",
    "device=cpu",
]


def start(shards: str, out: Path, processes: int, *settings: str) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [
        sys.executable,
        *(launcher if processes > 1 else []),
        *COMMAND,
        *SETTINGS,
        f"data=[{shards}]",
        f"out={out}",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*words, *settings], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def assert_close(lab, first: Path, second: Path) -> None:
    """Metrics and weights, but for the order of additions."""
    lines = [lab.metric_lines(run) for run in (first, second)]
    assert [line.keys() for line in lines[0]] == [line.keys() for line in lines[1]]
    for mine, theirs in zip(*lines, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3)
    for name in ("model", "mae"):
        weights = [load_file(run.parent / name / "model.safetensors") for run in (first / "model", second / "model")]
        torch.testing.assert_close(*weights, rtol=2e-2, atol=2e-4)


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    finished(start(shards, out, 1))
    return out


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_like_one_and_resume_each_others_checkpoints(parallel, shards, alone, lab, tmp_path):
    two = tmp_path / "two"
    output = finished(start(shards, two, 2, f"loop.parallel={parallel}"))
    assert output.count("10 steps in") == 1
    assert_close(lab, alone, two)
    # One process goes on where two were, and the other way round.
    for source, processes in ((two, 1), (alone, 2)):
        out = tmp_path / f"on_{processes}"
        shutil.copytree(source, out)
        shutil.copy(source.with_name(f"{source.name}.stage.json"), tmp_path / f"{out.name}.stage.json")
        stamp = tmp_path / f"{out.name}.stage.json"
        stamp.write_text(stamp.read_text().replace('"finished": true', '"finished": false'))
        for later in ("result.json", "model", "mae", "checkpoints/step_00000010"):
            path = out / later
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert "continuing" in finished(start(shards, out, processes, f"loop.parallel={parallel}"))
        assert_close(lab, alone, out)


def launch(shards: str, out: Path, *settings: str) -> subprocess.Popen:
    launcher = [
        "-m",
        "hydra/launcher=submitit_local",
        "hydra.launcher.tasks_per_node=2",
        "hydra.launcher.timeout_min=4",
    ]
    words = [sys.executable, *COMMAND, *launcher, *SETTINGS, f"data=[{shards}]", f"out={out}", f"run={out.parent}"]
    return subprocess.Popen(
        [*words, *settings],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def logs(out: Path) -> str:
    return "".join(path.read_text() for path in sorted(out.parent.rglob("*_log.*")))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_slurm_tasks_join_and_train_like_one_process(shards, alone, lab, tmp_path):
    out = tmp_path / "job"
    finished(launch(shards, out))
    assert logs(out).count("10 steps in") == 1
    assert_close(lab, alone, out)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_slurm_job_near_its_time_limit_saves_and_requeues(shards, lab, tmp_path):
    out = tmp_path / "job"
    process = launch(
        shards, out, "loop={steps: 300, log_every: 5, save_every: 1000, accumulate: 1}", "panels_every=300"
    )
    while not (out / "metrics.jsonl").is_file() or len(lab.metric_lines(out)) < 2:
        assert process.poll() is None, process.communicate()[0] + logs(out)
        time.sleep(0.1)
    (controller,) = (int(path.name) for path in tmp_path.glob("sweeps/*/.submitit/[0-9]*"))
    for task in Path(f"/proc/{controller}/task/{controller}/children").read_text().split():
        os.kill(int(task), signal.SIGUSR2)  # as Slurm does, `signal_delay_s` before the end
    finished(process)
    assert "Requeued job" in logs(out)
    assert f"continuing {out}" in logs(out)
    assert "Traceback" not in logs(out)
    assert [line["step"] for line in lab.metric_lines(out) if "loss" in line] == [*range(5, 301, 5)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_exits_with_0(processes, shards, lab, tmp_path):
    out = tmp_path / "run"
    process = start(shards, out, processes, "loop.steps=100000", "loop.save_every=100000")
    while not (out / "metrics.jsonl").is_file() or len(lab.metric_lines(out)) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=250)[0]
    # torchrun itself reports the signal that it passed on.
    assert process.returncode == 0 if processes == 1 else "continue" in output, output
    assert "run the same command again to continue" in output
    assert len(list((out / "checkpoints").glob("step_*"))) == 1
    assert not (out / "model").exists()


@pytest.mark.slow
def test_batch_size_not_divisible_by_world_size_is_refused(shards, tmp_path):
    process = start(shards, tmp_path / "run", 2, "batch_size=9")
    output = process.communicate(timeout=250)[0]
    assert process.returncode != 0
    assert "batch_size=9 cannot be split evenly among 2 processes" in output


def both_say(program: str, where: Path, *arguments: str) -> list[list[str]]:
    """The lines that two processes print, which get their rank and `where`; they end well."""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), str(where), *arguments], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=250)[0].splitlines() for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0]
    return said


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


FIRST_WORKS = """
import datetime, sys, time
import torch.distributed as dist
from pixio_robot.errors import UserError
from pixio_robot.training.distributed.launch import destroy_process_group
from pixio_robot.training.distributed.processes import current_processes

rank, where, fails = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "fails"
dist.init_process_group("gloo", f"file://{where}/meet", world_size=2, rank=rank)
dist.barrier()
# Only now: on a busy machine they do not come to the meeting within two seconds.
dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=2), dist.group.WORLD)

def work():
    if rank == 0:
        time.sleep(5)  # longer than collectives wait
        if fails:
            raise UserError("no room")
        open(f"{where}/left", "w").write("features")
    return open(f"{where}/left").read()

try:
    print(current_processes().main_process_first(work))
except UserError as error:
    print(error)
destroy_process_group()
"""


DELAYED_MAX = """
import sys, time
from pathlib import Path
import torch.distributed as dist
from pixio_robot.training.distributed.launch import destroy_process_group
from pixio_robot.training.distributed.processes import DelayedMax, DistinctItemCounter, current_processes

rank, where = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", f"file://{where}/meet", world_size=2, rank=rank)
delayed =  DelayedMax(current_processes())
heard = []
for number in range(4):
    # The second process only calls when the first has its result: a call does not wait for the others' calls.
    while rank == 1 and not (where / str(number)).exists():
        time.sleep(0.01)
    heard.append(delayed.all_reduce_max(number, 10 * rank if number == 1 else 0))
    if rank == 0:
        (where / str(number)).touch()
print(heard, current_processes().all_gather(f"of {rank}"))
sent = []

class Recording(type(current_processes())):
    def all_gather(self, value):
        sent.append(value)
        return super().all_gather(value)

gathered = DistinctItemCounter(Recording(rank, 2))
met = [[], [f"of {rank}", "same"], [f"of {rank}", "same"], ["same", f"of {rank}"] + ["late"] * rank]
print([gathered.count(mine) for mine in met], sent)
destroy_process_group()
"""


def test_delayed_max_returns_the_previous_maximum_and_only_new_items_are_exchanged(tmp_path):
    said = "[[0.0, 0.0], [0.0, 0.0], [1.0, 10.0], [2.0, 0.0]] ['of 0', 'of 1']"
    first, second = both_say(DELAYED_MAX, tmp_path)
    assert first[0] == second[0] == said
    assert DelayedMax(Processes()).all_reduce_max(3, 4) == [3, 4]
    # Nothing is exchanged where nobody has met anything new.
    assert first[1] == "[0, 3, 3, 4] [['of 0', 'same'], []]"
    assert second[1] == "[0, 3, 3, 4] [['of 1', 'same'], ['late']]"
    assert [DistinctItemCounter(Processes()).count(mine) for mine in ([], ["a", "b"])] == [0, 2]


HALVES = """
import sys, torch
from pathlib import Path
import torch.distributed as dist
from pixio_robot.training.distributed.launch import destroy_process_group
from pixio_robot.training.distributed.strategy import distribute_model
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder

import torch.distributed.fsdp  # as `join_process_group` does, before there is a group that it could keep

torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{sys.argv[2]}/meet", world_size=2, rank=int(sys.argv[1]))
cpu = torch.device("cpu")
encoder = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=32))
model = Pixio(encoder, DecoderConfig(width=32, depth=1, heads=2), MaskConfig(block=1))
blocks = [*encoder.vit.blocks, *model.decoder.blocks]
seen = set()
for block in blocks:
    block.attn.qkv.register_forward_hook(lambda layer, *_: seen.add(f"block {layer.weight.dtype}"))
model.decoder.head.register_forward_hook(lambda layer, *_: seen.add(f"head {layer.weight.dtype}"))
module = distribute_model(model, blocks, "fsdp", cpu, dtype=torch.bfloat16).module
images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
with torch.autocast("cpu", torch.bfloat16):
    module(images, torch.Generator().manual_seed(0)).loss.backward()
print(sorted(seen))
print([*{(p.dtype, p.grad.dtype) for p in model.parameters()}])

def gloo():
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))

alive = gloo() > 0
del encoder, model, blocks, block, module
destroy_process_group()
print(alive, gloo())
"""


GPUS = """
import os, sys, torch, types
import torch.distributed as dist
from pixio_robot.errors import UserError
from pixio_robot.training.distributed.launch import join_process_group

rank = sys.argv[1]
os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[3]}

meet = dist.init_process_group
dist.init_process_group = lambda backends: meet(backends.removeprefix("cpu:").partition(",")[0])  # without NCCL
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.set_device = lambda index: None
torch.cuda.current_device = lambda: 0
torch.cuda.get_arch_list = lambda: []
torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(uuid=f"GPU-{sys.argv[4][int(rank)]}")
try:
    with join_process_group("auto") as processes:
        print(processes.world_size)
except UserError as error:
    print(error)
print(dist.is_initialized())
"""


FAILS = """
import os, sys, torch
from pathlib import Path
from torch import nn
from pixio_robot.training.distributed.launch import join_process_group
from pixio_robot.training.distributed.processes import DelayedMax, current_processes
from pixio_robot.training.distributed.strategy import distribute_model

os.environ |= {"RANK": sys.argv[1], "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[3]}

def gloo():
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))

def train():
    model = distribute_model(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), [], "fsdp", torch.device("cpu")).module
    delayed = DelayedMax(current_processes())
    model(torch.ones(2, 4)).sum().backward()
    delayed.all_reduce_max(1)
    try:
        raise KeyError("in a library")
    except KeyError as error:
        raise ValueError(f"bad step, {gloo() > 0}") from error

try:
    with join_process_group("cpu"):
        train()
except ValueError as error:
    print(error, gloo())
"""


SHARES = """
import sys, torch, weakref
import torch.distributed as dist
from pixio_robot.training.distributed.launch import destroy_process_group
from pixio_robot.training.distributed.strategy import distribute_model, gather_full_tensor
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.mae import Pixio
from pixio_robot.vision.pixio import PixioEncoder

torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{sys.argv[2]}/meet", world_size=2, rank=int(sys.argv[1]))

def pixio(seed):
    encoder = PixioEncoder(EncoderConfig(size="tiny", patch=8, image_size=24, class_tokens=1), seed)
    return Pixio(encoder, DecoderConfig(width=32, depth=2, heads=2), MaskConfig(block=1), seed=seed)

model, alive, most = pixio(None), [], 0

def watched():
    global most
    for name, tensor in model.random_weights(7):
        alive.append(weakref.ref(tensor))
        # torch forgets to clear such a reference, which then finds the DTensor that took the place.
        most = max(most, sum(type(one()) is torch.Tensor for one in alive))
        yield name, tensor
        del tensor

blocks = [*model.encoder.vit.blocks, *model.decoder.blocks]
distribute_model(model, blocks, "fsdp", torch.device("cpu"), weights=watched())
alone = pixio(7).state_dict()
print(all(torch.equal(gather_full_tensor(tensor), alone[name]) for name, tensor in model.state_dict().items()))
print(most)
share = sum(tensor.to_local().untyped_storage().nbytes() for tensor in model.state_dict().values())
print(round(share / sum(tensor.nbytes for tensor in alone.values()), 2))
images = torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8)
model(images, torch.Generator().manual_seed(0)).loss.backward()
torch.manual_seed(0)
kernels = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
expected = kernels(torch.ones(1, 3, 5, 5))
found = distribute_model(kernels, [], "fsdp", torch.device("cpu")).module(torch.ones(1, 3, 5, 5))
print(torch.allclose(found, expected))
del model, kernels, found
destroy_process_group()
"""


@pytest.mark.slow
def test_fsdp_never_holds_the_full_model_and_starts_from_single_process_weights(tmp_path):
    same, tensors_at_once, share, channels_last = "True", "2", "0.5", "True"
    assert both_say(SHARES, tmp_path) == [[same, tensors_at_once, share, channels_last]] * 2


ACCUMULATES = """
import sys, torch
import torch.distributed as dist
import torch.distributed.fsdp
from torch.distributed.fsdp import FSDPModule
from pixio_robot.training.distributed.launch import destroy_process_group
from pixio_robot.training.distributed.strategy import distribute_model, gather_full_tensor

torch.set_num_threads(1)
rank = int(sys.argv[1])
dist.init_process_group("gloo", f"file://{sys.argv[2]}/meet", world_size=2, rank=rank)

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))

inputs = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))  # processes, batches of an update, rows
alone = network()
alone(inputs).square().mean().backward()
model = network()
distributed_model = distribute_model(model, [model[0]], sys.argv[3], torch.device("cpu"))

def whole_gradients():
    groups = [one._get_fsdp_state()._fsdp_param_group for one in model.modules() if isinstance(one, FSDPModule)]
    found = [one for group in groups for one in group.fsdp_params]
    gathered = [one._unsharded_param.grad for one in found if hasattr(one, "_unsharded_param")]
    return sum(one is not None for one in [*gathered, *(one.unsharded_accumulated_grad for one in found)])

held = []
for number, batch in enumerate(inputs[rank]):
    distributed_model.set_requires_gradient_sync(number == 2)
    (distributed_model.module(batch).square().mean() / 3).backward()
    held.append(whole_gradients())
pairs = zip(alone.parameters(), model.parameters(), strict=True)
print(all(torch.allclose(one.grad, gather_full_tensor(other.grad)) for one, other in pairs), held)
del model, distributed_model
destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_accumulated_gradients_equal_one_batch_and_stay_sharded(parallel, tmp_path):
    assert both_say(ACCUMULATES, tmp_path, parallel) == [["True [0, 0, 0]"]] * 2


TEACHER = """
import sys, torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from pixio_robot.training.distributed.launch import destroy_process_group
from pixio_robot.training.distributed.strategy import distribute_model, distribute_frozen_model
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.distill import Distillation, StudentConfig
from pixio_robot.vision.pixio import PixioEncoder

torch.set_num_threads(1)
shape = EncoderConfig(size="tiny", patch=8, image_size=24, class_tokens=1)
whole = PixioEncoder(shape, seed=3)

def distillation(teacher):
    return Distillation(teacher, [StudentConfig(name="a", encoder=shape)])

images = torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
expected = distillation(whole)(images).loss.item()

cpu = torch.device("cpu")
dist.init_process_group("gloo", f"file://{sys.argv[2]}/meet", world_size=2, rank=int(sys.argv[1]))
teacher = PixioEncoder(shape, seed=None)
model = distillation(teacher)
distributed_model = distribute_model(model, model.students["a"].encoder.vit.blocks, "fsdp", cpu)
weights = whole.state_dict().items()
distribute_frozen_model(teacher, teacher.vit.blocks, "fsdp", cpu, torch.float32, weights, "intermediate")
for _ in range(2):
    loss = distributed_model.module(images).loss
    loss.backward()
    print(abs(loss.item() - expected) < 1e-5, all(isinstance(one, DTensor) for one in teacher.parameters()))
share = sum(one.to_local().untyped_storage().nbytes() for one in teacher.parameters())
print(round(share / sum(one.nbytes for one in whole.parameters()), 2))
del model, distributed_model, teacher, loss
destroy_process_group()
"""


@pytest.mark.slow
def test_frozen_teacher_is_sharded_and_gathered_block_by_block(tmp_path):
    first, second = both_say(TEACHER, tmp_path)
    assert first == second
    assert first[:2] == ["True True"] * 2, "another loss, or all of the teacher stays"
    assert first[2] == "0.5"


@pytest.mark.slow
def test_fsdp_gathers_in_half_precision_and_reduces_in_float32(tmp_path):
    for said in both_say(HALVES, tmp_path):
        assert said[:2] == ["['block torch.bfloat16', 'head torch.float32']", "[(torch.float32, torch.float32)]"]
        if sys.platform == "linux":
            assert said[2:] == ["True 0"], "gloo's threads live on, and may abort the process when it ends"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names of threads")
def test_process_group_is_destroyed_before_an_error_is_reported(tmp_path):
    assert both_say(FAILS, tmp_path, free_port()) == [["bad step, True 0"]] * 2


def test_only_tensors_with_shared_memory_are_cloned_for_saving(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/meet", world_size=1, rank=0)
    try:
        mesh = init_device_mesh("cpu", (1,))
        parts = {name: distribute_tensor(torch.randn(4, 2), mesh, [Shard(0)]) for name in "ab"}
        tensors = {**parts, "tied": parts["a"], "c": torch.randn(3), "none": torch.empty(0), "nothing": torch.empty(0)}
        separate = _clone_shared_tensors(tensors)
        copied = [name for name, tensor in separate.items() if not _same_memory(tensor, tensors[name])]
    finally:
        dist.destroy_process_group()
    assert copied == ["tied"]


def _same_memory(*tensors: torch.Tensor) -> bool:
    places = {(tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr() for tensor in tensors}
    return len(places) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("works", ["features", "features"]),
        ("fails", ["no room", "The first process failed; see its error message."]),
    ],
)
def test_other_processes_wait_for_main_process_first(how, said, tmp_path):
    assert [lines[-1] for lines in both_say(FIRST_WORKS, tmp_path, how)] == said


@pytest.mark.parametrize(("gpus", "processes", "taken"), [(4, 4, [0, 1, 2, 3]), (4, 2, [0, 1]), (1, 2, [0, 0])])
def test_each_local_rank_gets_its_own_gpu(gpus: int, processes: int, taken: list[int], monkeypatch):
    """One alone may be all that Slurm shows of several."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert [_local_gpu_index(rank, processes) for rank in range(processes)] == taken


def test_more_processes_than_gpus_are_refused_before_the_group_exists(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"3 processes .* 2 GPUs.*--nproc-per-node 2"), join_process_group("auto"):
        pass


@pytest.mark.slow
def test_processes_that_see_the_same_single_gpu_are_refused(tmp_path):
    """As under torchrun on a machine with one; under Slurm, each may see only its own."""
    assert both_say(GPUS, tmp_path, free_port(), "ab") == [["2", "False"]] * 2
    for said, initialized in both_say(GPUS, tmp_path, free_port(), "aa"):
        assert "2 processes on one machine, but 1 GPU:" in said
        assert "--nproc-per-node 1," in said
        assert initialized == "False"


STEP = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}
"""What Slurm 22.05 told the last of three tasks on two nodes."""


def test_tasks_of_srun_know_what_torch_needs():
    told = torch_variables(STEP)
    assert {name: told[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")} == {
        "RANK": "2",
        "WORLD_SIZE": "3",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }
    assert told["MASTER_ADDR"] == "gpu07"
    others = [torch_variables(STEP | {"SLURM_STEP_ID": "4"}), torch_variables(STEP | {"SLURM_JOB_ID": "78"})]
    assert len({each["MASTER_PORT"] for each in (told, *others)}) == 3  # they may share nodes
    assert torch_variables(STEP | {"MASTER_ADDR": "mine", "MASTER_PORT": "5"}).items() >= {
        ("MASTER_ADDR", "mine"),
        ("MASTER_PORT", "5"),
    }
    assert torch_variables(STEP | {"SLURM_STEP_TASKS_PER_NODE": "8(x2)"})["LOCAL_WORLD_SIZE"] == "8"
    for hosts, first in {"n1": "n1", "a,b[1-2]": "a", "r[02,05-07]n[3-4].lab,x": "r02n3.lab"}.items():
        assert first_host(hosts) == first


def test_only_tasks_of_a_step_join(monkeypatch):
    for name in os.environ:
        if name.startswith(("SLURM_", "TORCHELASTIC_", "SUBMITIT_", *DISTRIBUTED_VARIABLES)):
            monkeypatch.delenv(name)
    # The script of a job of three tasks is one process.
    for name, value in {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "3", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert not _export_launch()
    # So is one that was told only a part, as in a container.
    for number in ("1", "2", ""):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", number)
        assert not _export_launch()
    for name, value in {**STEP, **dict.fromkeys(DISTRIBUTED_VARIABLES, "")}.items():
        monkeypatch.setenv(name, value)  # so that they are put back
    for name in DISTRIBUTED_VARIABLES:
        monkeypatch.delenv(name)
    # Nor does what is started from the shell of `srun --pty`, unless it starts a step, which has no terminal.
    monkeypatch.setenv("SLURM_PTY_PORT", "45303")
    monkeypatch.setenv("SLURM_TASK_PID", str(os.getppid()))
    terminal, _ = pty.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert not _export_launch()
    monkeypatch.setattr(sys, "stdin", None)
    assert _export_launch()
    assert os.environ["WORLD_SIZE"] == "3"


def test_a_task_that_was_told_only_a_part_says_that_it_trains_alone():
    assert explain_lone_task(STEP) == explain_lone_task({}) == ""
    assert explain_lone_task({"SLURM_JOB_ID": "77", "SLURM_NTASKS": "3", "SLURM_PROCID": "0"}) == ""
    of_container = {name: value for name, value in STEP.items() if name not in ("SLURM_NODEID", "SLURM_LOCALID")}
    told = "one of 3 tasks of a Slurm step trains alone, since it was not told SLURM_LOCALID, SLURM_NODEID."
    assert told in explain_lone_task(of_container)
    assert explain_lone_task({**of_container, "SLURM_STEP_NUM_TASKS": "1"}) == ""


ADDRESS = {"MASTER_ADDR": "first", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, {}),
        (ADDRESS, {}),
        ({"RANK": "0", "WORLD_SIZE": "1"}, {}),
        ({"WORLD_SIZE": "4"}, {}),
        (
            {"RANK": "1", "WORLD_SIZE": "4"} | ADDRESS,
            {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        ),
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"} | ADDRESS,
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            }
            | ADDRESS,
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
        ),
    ],
)
def test_variables_of_other_launchers(environment, told):
    assert launcher_variables(environment) == told


def test_one_of_several_without_an_address_does_not_train_alone():
    with pytest.raises(UserError, match=r"process 2 of 2 \(.*\), but MASTER_ADDR and MASTER_PORT are not set.*alone"):
        launcher_variables({"RANK": "1", "WORLD_SIZE": "2"})


JOINS = """
import os, sys
from pixio_robot.training.distributed.launch import join_process_group

for name in os.environ:
    if name.startswith(("SLURM_", "SUBMITIT_", "TORCHELASTIC_", "LOCAL_")):
        del os.environ[name]
os.environ |= {"RANK": sys.argv[1], "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[3]}
with join_process_group("cpu") as processes:
    print(processes.all_gather(processes.rank))
"""


def test_processes_of_any_launcher_join(tmp_path):
    assert both_say(JOINS, tmp_path, free_port()) == [["[0, 1]"]] * 2


WAITS = f"""
import functools
from pixio_robot.cli.signals import signals_raise_interrupt
from pixio_robot.training.distributed import launch, waiting

launch.wait_for_others = functools.partial(waiting.wait_for_others, 0.2)
with signals_raise_interrupt():
    {JOINS.replace(chr(10), chr(10) + "    ")}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_in_vain_says_so_and_can_be_ended(tmp_path, number):
    port = free_port()
    command = [sys.executable, "-c", WAITS, "0", str(tmp_path), port]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as alone:
        try:
            told = alone.stderr.readline()
            alone.send_signal(number)
            assert alone.wait(10) == -number
        finally:
            alone.kill()
    assert f"(RANK=0, WORLD_SIZE=2) waits for the others, which it expects at 127.0.0.1:{port}." in told


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):  # set on the way
            monkeypatch.setenv(name, "0")
            monkeypatch.delenv(name)
        with pytest.raises(UserError, match=f"did not find each other: .*{port}"), join_process_group("cpu"):
            pass


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_tasks_of_srun_train_like_one_process(shards, alone, lab, tmp_path):
    variables = STEP | {
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
    }
    of_ranks = [variables | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
    train_like_one_process(of_ranks, shards, alone, lab, tmp_path / "step")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_processes_of_another_launcher_train_like_one_process(shards, alone, lab, tmp_path):
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "LOCAL_WORLD_SIZE": "2"}
    of_ranks = [variables | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    train_like_one_process(of_ranks, shards, alone, lab, tmp_path / "job")


def train_like_one_process(of_ranks: list[dict[str, str]], shards, alone, lab, out: Path) -> None:
    """Start a process with each of these environments."""
    common = {"MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    tasks = [
        subprocess.Popen(
            [sys.executable, *COMMAND, *SETTINGS, f"data=[{shards}]", f"out={out}"],
            env=os.environ | common | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for variables in of_ranks
    ]
    assert ["10 steps in" in finished(task) for task in tasks] == [True, False]
    assert_close(lab, alone, out)
