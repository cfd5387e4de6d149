"""Which device is taken, and that a GPU which is there and not taken is told."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.training import device
from pixio_robot.training.device import computes_in_bfloat16, explain_missing_gpu, explain_missing_kernels, pick_device
from pixio_robot.training.loop import LoopConfig

DRIVERS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n": "535.104.05",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n": "570.86.15",
}


@pytest.fixture(params=DRIVERS.items(), ids=list(DRIVERS.values()))
def driver(request, tmp_path: Path, monkeypatch) -> str:
    """The version of a driver whose GPU PyTorch, of CUDA 13, does not find."""
    said, version = request.param
    (tmp_path / "version").write_text(said)
    monkeypatch.setattr(device, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device._warn_cpu_fallback.cache_clear()
    return version


def test_auto_falls_back_to_the_cpu_and_explains_it_once(driver: str, capsys) -> None:
    assert [pick_device("auto").type, pick_device("auto").type, pick_device("cpu").type] == ["cpu"] * 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in (f"driver {driver}", "CUDA 13.0", "580 or newer"):
        assert word in said


def test_device_cuda_without_a_gpu_explains_the_reason(driver: str) -> None:
    with pytest.raises(UserError, match=f"device=cuda.*driver {driver}"):
        pick_device("cuda")


def test_no_explanation_without_a_driver_or_with_hidden_gpus(driver: str, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert explain_missing_gpu() is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert explain_missing_gpu() is not None
    monkeypatch.setattr(device, "DRIVER", tmp_path / "none")
    assert pick_device("auto").type == "cpu"
    assert capsys.readouterr().err == ""


def test_recent_driver_is_not_advised_to_update(driver: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "nvidia-smi" in str(explain_missing_gpu())
    assert "update" not in str(explain_missing_gpu())


def test_pytorch_built_without_cuda_is_reported(driver: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in str(explain_missing_gpu())


def show(monkeypatch, name: str, capability: tuple[int, int], built_for: str) -> None:
    """A GPU, to a PyTorch of CUDA that was built for these architectures."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=None: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for.split())
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    device._warn_cpu_fallback.cache_clear()


WHEEL = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"


@pytest.mark.parametrize(
    ("name", "capability", "built_for", "runs"),
    [
        ("Tesla V100-SXM2-16GB", (7, 0), WHEEL, False),
        ("Tesla T4", (7, 5), WHEEL, True),
        ("NVIDIA GeForce RTX 4090", (8, 9), WHEEL, True),  # by the code for sm_80 or sm_86
        ("NVIDIA B300 SXM6 AC", (10, 3), WHEEL, True),
        ("NVIDIA GeForce RTX 5090", (12, 0), "sm_80 sm_86 sm_90", False),
        ("NVIDIA GeForce RTX 5090", (12, 0), "sm_80 sm_86 sm_90 compute_90", True),  # the driver compiles PTX
        ("NVIDIA GeForce RTX 5090", (12, 0), "sm_80 sm_90a compute_90a", False),
        ("NVIDIA H200", (9, 0), "sm_80 sm_90a", True),
        ("NVIDIA B300 SXM6 AC", (10, 3), "sm_90 sm_100a", False),
        ("NVIDIA B300 SXM6 AC", (10, 3), "sm_90 sm_100f", True),
        ("NVIDIA GeForce RTX 5090", (12, 0), "sm_100f compute_100f", False),
        ("NVIDIA A100-SXM4-80GB", (8, 0), "sm_86", False),
        ("of an unknown kind", (99, 0), "", True),
    ],
)
def test_gpu_without_kernels_is_not_used(name, capability, built_for: str, runs: bool, monkeypatch, capsys) -> None:
    show(monkeypatch, name, capability, built_for)
    assert (explain_missing_kernels() is None) == runs
    if runs:
        assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 0)
        return
    assert [pick_device("auto"), pick_device("auto")] == [torch.device("cpu")] * 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    with pytest.raises(UserError, match=f"device=cuda, but .*{name}") as refused:
        pick_device("cuda")
    for message in (said, str(refused.value)):
        assert f"sm_{capability[0]}{capability[1]}" in message
        assert built_for in message
        assert ("older CUDA" in message) == (capability < (9, 0))
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "major", "dtype"), [("Tesla T4", 7, torch.float32), ("NVIDIA A10", 8, torch.bfloat16)]
)
def test_bfloat16_only_where_it_is_not_emulated(name: str, major: int, dtype: torch.dtype, monkeypatch) -> None:
    show(monkeypatch, name, (major, 5), WHEEL)
    card = types.SimpleNamespace(name=name, major=major, minor=5)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index=None: card)
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert computes_in_bfloat16(gpu) == (dtype == torch.bfloat16)
    assert LoopConfig().precision(gpu) == dtype
    for computes, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda computes=computes: {"avx512_bf16": computes})
        assert computes_in_bfloat16(cpu) == computes
        assert LoopConfig().precision(cpu) == expected
    assert LoopConfig(dtype="bfloat16").precision(gpu) == torch.bfloat16
    assert LoopConfig(dtype="float32").precision(gpu) == torch.float32


@pytest.mark.parametrize(
    ("environment", "cores", "threads"),
    [
        ({}, 16, 16),
        ({"LOCAL_WORLD_SIZE": "1", "SLURM_CPUS_PER_TASK": "4"}, 16, 16),  # a shell within an allocation
        ({"LOCAL_WORLD_SIZE": "4"}, 16, 4),
        ({"LOCAL_WORLD_SIZE": "4"}, 2, 1),
        ({"LOCAL_WORLD_SIZE": "8", "SLURM_CPUS_PER_TASK": "12"}, 128, 12),
        ({"LOCAL_WORLD_SIZE": "8", "SLURM_CPUS_PER_TASK": "12"}, 12, 12),  # the cluster enforces the share
        ({"LOCAL_WORLD_SIZE": "8", "OMP_NUM_THREADS": "3"}, 128, None),
    ],
)
@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_cpu_threads_are_limited_to_the_share_of_the_process(
    name: str, environment: dict[str, str], cores: int, threads: int | None, monkeypatch
) -> None:
    show(monkeypatch, "NVIDIA H200", (9, 0), WHEEL)
    for variable in ("LOCAL_WORLD_SIZE", "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    limits: list[int] = []
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", limits.append)
    assert pick_device(name).type == name
    assert limits == ([] if threads is None else [threads])
