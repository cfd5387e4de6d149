"""`doctor` finds out by doing."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from pixio_robot.cli import doctor

PROGRAM = Path(sys.executable).with_name("pixio-robot")


@pytest.mark.slow
@pytest.mark.sim
def test_this_machine_can_run_the_main_job() -> None:
    result = subprocess.run([PROGRAM, "doctor"], capture_output=True, text=True, env={"COLUMNS": "200"})
    assert result.returncode == 0, result.stdout + result.stderr
    for what in ("Python", "torch", "EGL rendering", "OSMesa rendering", "robosuite", "extra ray", "free disk"):
        assert what in result.stdout


def test_a_probe_says_why_it_failed() -> None:
    assert doctor._probe("pass", {}) is None
    assert doctor._probe("raise ValueError('no driver')", {}) == "ValueError: no driver"
    assert "exit code" in str(doctor._probe("import os; os.kill(os.getpid(), 11)", {}))
    assert "no answer" in str(doctor._probe("import time; time.sleep(60)", {}, timeout_s=0.5))


def test_exit_code_1_when_something_required_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = doctor.Check("off-screen rendering", False, "no backend works", doctor.GL_FIX)
    monkeypatch.setattr(doctor, "check_rendering", lambda: [bad])
    assert doctor.main(["--gl-only"]) == 1


@pytest.mark.parametrize("error", [None, "OSError: libavutil.so.60: cannot open shared object file"])
def test_torchcodec_is_told_and_missed_by_nothing(error: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda *_: error)
    monkeypatch.setattr(doctor, "_version", lambda _: "0.10")
    (check,) = doctor.check_torchcodec()
    assert (check.ok, check.required) == (error is None, False)
    assert "cannot be loaded" in check.detail or error is None
    assert "no command here needs it" in check.fix
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    assert doctor.check_torchcodec() == []


def test_extras_are_those_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"all"}


def test_a_driver_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from pixio_robot.training import device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "explain_missing_gpu", lambda: "NVIDIA's driver 535.104.05 is here")
    assert "535.104.05" in doctor.check_torch()[-1].fix


def test_a_gpu_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from pixio_robot.training import device

    errors = [None, "CUDA error: no kernel image is available for execution on the device"]
    card = types.SimpleNamespace(name="Tesla V100-SXM2-16GB", total_memory=16 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(device, "explain_missing_kernels", lambda index: "install another PyTorch" if index else None)
    monkeypatch.setattr(
        doctor, "_probe", lambda code, _: next(e for i, e in enumerate(errors) if f"'cuda:{i}'" in code)
    )
    _, works, fails = doctor.check_torch()
    assert works.ok
    assert "16 GiB" in works.detail
    assert not fails.ok
    assert not fails.required
    assert "no kernel image" in fails.detail
    assert fails.fix == "install another PyTorch"


def test_trying_a_device_says_in_one_line_why_it_fails() -> None:
    exec(doctor.MATMUL_PROBE.format(device="cpu"), {})
    error = str(doctor._probe(doctor.MATMUL_PROBE.format(device="cuda:99"), {}))
    assert "CUDA" in error or "NVIDIA" in error
    assert "CUDA_LAUNCH_BLOCKING" not in error


@pytest.mark.parametrize("compiler", ["", "sh", "no-such-compiler"])
@pytest.mark.parametrize("headers", [True, False])
def test_what_compiling_on_a_gpu_takes(
    compiler: str, headers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_cuda_devices", lambda: 1)
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda *_: str(tmp_path))
    if headers:
        (tmp_path / "Python.h").touch()
    if compiler:
        monkeypatch.setenv("CC", compiler)
    else:
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / "clang").touch(0o755)
    (check,) = doctor.check_compiler()
    assert check.ok == (headers and compiler != "no-such-compiler")
    assert not check.required
    assert str(tmp_path / "Python.h") in check.detail
    assert "gcc" in check.fix
    monkeypatch.setattr(doctor, "_cuda_devices", lambda: 0)
    assert doctor.check_compiler() == []
