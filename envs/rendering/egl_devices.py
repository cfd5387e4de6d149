"""Selects the GPU on which a simulator process renders. EGL is queried when the first image is rendered.

The lists of CUDA and of the driver are not sufficient: in a container, a GPU may support computing but not rendering,
or be listed without being accessible; and EGL numbers GPUs in its own order.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

EGL_DEVICE_VARIABLE = "MUJOCO_EGL_DEVICE_ID"
"""Read by MuJoCo when it opens a display: an index into EGL's list of devices."""

_SOFTWARE = b"EGL_MESA_device_software"
_CUDA_DEVICE = 0x323A
"""EGL_CUDA_DEVICE_NV: set by NVIDIA's EGL for GPUs visible to CUDA in this process (given CUDA_VISIBLE_DEVICES)."""
_DRIVER = Path("/proc/driver/nvidia/gpus")

_worker_index, _allowed_devices = 0, ()


@dataclasses.dataclass(frozen=True)
class EglDevice:
    """A device in EGL's list. software: renders on the CPU. in_cuda: also visible to CUDA in this process."""

    number: int
    software: bool
    in_cuda: bool


def assign_render_device(worker: int, devices: Sequence[int] = ()) -> None:
    """Assign one of the GPUs to this process for rendering, round-robin by worker index.

    devices: indices in EGL's list; empty means all that can render here, unless MUJOCO_EGL_DEVICE_ID names one.
    Nothing is queried or opened before the first image is rendered.
    """
    global _worker_index, _allowed_devices
    _worker_index, _allowed_devices = worker, tuple(devices)


@contextlib.contextmanager
def assigned_render_device() -> Iterator[None]:
    """Inside, MuJoCo opens its display on the assigned GPU, or on EGL's first device if there is none."""
    from mujoco import egl

    if egl.EGL_DISPLAY is not None:  # opened once for all contexts of the process
        yield
        return
    before = os.environ.get(EGL_DEVICE_VARIABLE)
    devices = _allowed_devices or (() if before is not None else _render_gpus())
    if devices:
        os.environ[EGL_DEVICE_VARIABLE] = str(devices[_worker_index % len(devices)])
    try:
        yield
    finally:
        # Not longer than needed: robosuite fails to import if the value is not also in CUDA_VISIBLE_DEVICES.
        os.environ.pop(EGL_DEVICE_VARIABLE, None)
        if before is not None:
            os.environ[EGL_DEVICE_VARIABLE] = before


def select_render_devices(devices: Sequence[EglDevice], can_open: Callable[[int], bool]) -> list[int]:
    """The GPUs to render on: those visible to CUDA (or all, if CUDA sees none) that can be opened."""
    gpus = [device for device in devices if not device.software]
    candidates = [device for device in gpus if device.in_cuda] or gpus
    return [device.number for device in candidates if can_open(device.number)]


def _render_gpus() -> list[int]:
    devices = select_render_devices(list_devices(), can_open)
    num_gpus = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    if not devices and num_gpus and _worker_index == 0:
        print(
            f"pixio-robot: the driver reports {num_gpus} NVIDIA GPUs, but EGL cannot use any of them, so images are "
            "rendered on the CPU. In a container, enable the driver's graphics capability "
            "(NVIDIA_DRIVER_CAPABILITIES=all); otherwise install the driver's EGL library (libnvidia-gl-...).",
            file=sys.stderr,
        )
    return devices


def list_devices() -> list[EglDevice]:
    """All EGL devices in EGL's order; empty if EGL cannot list them. Nothing is opened."""
    from mujoco.egl import egl_ext as egl

    addresses: list[Any] = [egl.eglGetProcAddress(f"eglQueryDevice{what}EXT") for what in ("String", "Attrib")]
    if not all(addresses):
        return []
    # With ctypes, as in MuJoCo: with PyOpenGL, EGL would write a machine word into a 32-bit buffer.
    text = ctypes.CFUNCTYPE(ctypes.c_char_p, egl.EGLDeviceEXT, ctypes.c_int)(addresses[0])
    word = ctypes.POINTER(ctypes.c_ssize_t)
    number = ctypes.CFUNCTYPE(ctypes.c_uint, egl.EGLDeviceEXT, ctypes.c_int, word)(addresses[1])
    devices = []
    for index, device in enumerate(egl.eglQueryDevicesEXT()):
        extensions = (text(device, egl.EGL_EXTENSIONS) or b"").split()
        ordinal = ctypes.c_ssize_t(-1)
        in_cuda = bool(number(device, _CUDA_DEVICE, ctypes.byref(ordinal))) and ordinal.value >= 0
        devices.append(EglDevice(index, _SOFTWARE in extensions, in_cuda))
    return devices


def can_open(number: int) -> bool:
    """Whether this process can open that device of EGL's list; it is closed again."""
    from mujoco.egl import egl_ext as egl
    from OpenGL.error import GLError

    device = egl.eglQueryDevicesEXT()[number]
    try:
        display = egl.eglGetPlatformDisplayEXT(egl.EGL_PLATFORM_DEVICE_EXT, device, None)
        if display == egl.EGL_NO_DISPLAY or egl.eglInitialize(display, None, None) != egl.EGL_TRUE:
            return False
        egl.eglTerminate(display)
    except GLError:
        return False
    return True
