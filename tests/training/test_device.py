"""Which device is taken, and that a GPU which is there and not taken is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pixio_robot.errors import UserError
from pixio_robot.training import device
from pixio_robot.training.device import pick_device, unseen_gpu

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
    device._tell_of_an_unseen_gpu.cache_clear()
    return version


def test_auto_takes_the_cpu_and_says_once_why(driver: str, capsys) -> None:
    assert [pick_device("auto").type, pick_device("auto").type, pick_device("cpu").type] == ["cpu"] * 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in (f"driver {driver}", "CUDA 13.0", "580 or newer"):
        assert word in said


def test_a_gpu_that_was_asked_for_is_missed_with_the_reason(driver: str) -> None:
    with pytest.raises(UserError, match=f"device=cuda.*driver {driver}"):
        pick_device("cuda")


def test_nothing_is_amiss_without_a_driver_or_where_gpus_are_hidden(driver: str, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unseen_gpu() is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert unseen_gpu() is not None
    monkeypatch.setattr(device, "DRIVER", tmp_path / "none")
    assert pick_device("auto").type == "cpu"
    assert capsys.readouterr().err == ""


def test_a_driver_that_is_new_enough_is_not_to_be_updated(driver: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "nvidia-smi" in str(unseen_gpu())
    assert "update" not in str(unseen_gpu())


def test_a_pytorch_without_cuda_is_named_as_that(driver: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in str(unseen_gpu())
