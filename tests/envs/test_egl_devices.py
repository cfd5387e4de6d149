"""On which GPU a process draws. Here EGL has Mesa's software device; GPUs are described, not opened."""

import os
import subprocess
import sys

import pytest

from envs.config import EnvConfig
from envs.pool.parallel_map import ordered_map
from envs.pool.worker_pool import make_pool
from envs.rendering.egl_devices import (
    EGL_DEVICE_VARIABLE,
    EglDevice,
    assign_render_device,
    assigned_render_device,
    list_devices,
    select_render_devices,
)

CPU = EglDevice(3, software=True, in_cuda=False)


def gpus(*in_cuda):
    return [*(EglDevice(number, False, seen) for number, seen in enumerate(in_cuda)), CPU]


def any_device(number):
    return True


def test_the_gpus_are_those_that_cuda_sees_and_that_open():
    assert select_render_devices([CPU], any_device) == []
    assert select_render_devices(gpus(False, True, True), any_device) == [1, 2]
    assert select_render_devices(gpus(True, True), lambda number: number != 0) == [1]
    # CUDA sees none: they are another maker's, or Ray reserved none, which says nothing of drawing.
    assert select_render_devices(gpus(False, False), any_device) == [0, 1]


def test_what_is_not_looked_at_is_not_opened():
    opened = []
    select_render_devices(gpus(False, True), lambda number: opened.append(number) or True)
    assert opened == [1]


def chosen():
    with assigned_render_device():
        return os.environ.get(EGL_DEVICE_VARIABLE)


@pytest.fixture
def no_display(monkeypatch):
    """As in a process that has drawn nothing yet."""
    from mujoco import egl

    monkeypatch.setattr(egl, "EGL_DISPLAY", None)
    monkeypatch.delenv(EGL_DEVICE_VARIABLE, raising=False)
    yield
    assign_render_device(0)


def test_workers_take_the_gpus_in_turns_and_the_environment_stays_as_it_was(no_display, monkeypatch):
    found = []
    for worker in range(3):
        assign_render_device(worker, [4, 5])
        found.append(chosen())
    assert found == ["4", "5", "4"]
    assert EGL_DEVICE_VARIABLE not in os.environ
    monkeypatch.setenv(EGL_DEVICE_VARIABLE, "7")
    assert chosen() == "4"
    assert os.environ[EGL_DEVICE_VARIABLE] == "7"
    assign_render_device(1)  # what the user chose stays
    assert chosen() == "7"


@pytest.mark.parametrize("visible", ["0,1", "-1", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ""])
def test_gpus_that_egl_does_not_have_are_not_asked_for(visible, monkeypatch):
    """CUDA numbers of a machine whose container draws on the CPU: the second worker would open a second device."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv(EGL_DEVICE_VARIABLE, raising=False)
    if not all(device.software for device in list_devices()):
        pytest.fail("This test is for machines without GPUs.")
    with make_pool(EnvConfig(task="TabletopReach", image_size=16, cameras=["front"]), 2, 2) as pool:
        frames, lost = pool.reset({0: 1, 1: 2}, {0: True, 1: True})
    assert not lost
    assert all(frame.images["front"].any() for frame in frames.values())


TURN = """
import pathlib, time
from envs.rendering import egl_devices

def turn(folder):
    pathlib.Path(folder, str(egl_devices._worker_index)).touch()
    until = time.monotonic() + 60
    while len(list(pathlib.Path(folder).iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    return egl_devices._worker_index
"""


def test_processes_of_recordings_take_turns_too(tmp_path, monkeypatch):
    (tmp_path / "turn_of_the_egl_test.py").write_text(TURN)
    (tmp_path / "turns").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    from turn_of_the_egl_test import turn  # type: ignore[import-not-found]

    assert sorted(worker for _, worker in ordered_map(turn, [tmp_path / "turns"] * 2, 2, 60)) == [0, 1]


def test_robosuite_is_imported_whatever_cuda_calls_the_gpu():
    """Its own check would compare EGL's number with CUDA's."""
    load = "from envs.simulator_imports import load_robosuite; load_robosuite()"
    code = f"{load}; import os; print(os.environ['{EGL_DEVICE_VARIABLE}'])"
    environment = os.environ | {EGL_DEVICE_VARIABLE: "0", "CUDA_VISIBLE_DEVICES": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
