"""The GPU on which a simulator's process draws, where there are several: EGL is asked when the first picture is.

What CUDA or the driver lists does not tell: a container may have a GPU for computing and none for drawing, or the files
of GPUs that are not let in; and EGL numbers GPUs in an order of its own.
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

EGL_DEVICE = "MUJOCO_EGL_DEVICE_ID"
"""What MuJoCo reads when it opens a display: a place in EGL's list of devices."""

_SOFTWARE = b"EGL_MESA_device_software"
_CUDA_DEVICE = 0x323A
"""EGL_CUDA_DEVICE_NV: NVIDIA's EGL has it for the GPUs that CUDA sees in this process, after CUDA_VISIBLE_DEVICES."""
_DRIVER = Path("/proc/driver/nvidia/gpus")

_worker, _chosen = 0, ()


@dataclasses.dataclass(frozen=True)
class Device:
    """One of EGL's list. software: it draws on the CPU. in_cuda: CUDA has it too, in this process."""

    number: int
    software: bool
    in_cuda: bool


def take_turn(worker: int, devices: Sequence[int] = ()) -> None:
    """Let this process draw on one of the GPUs: worker i on the i-th, beginning again after the last.

    devices: their numbers in EGL's list; empty means all that can draw here, unless MUJOCO_EGL_DEVICE_ID names one.
    Nothing is asked or opened before the first picture.
    """
    global _worker, _chosen
    _worker, _chosen = worker, tuple(devices)


@contextlib.contextmanager
def device_of_turn() -> Iterator[None]:
    """Inside, MuJoCo opens its display on the GPU whose turn it is, or where there is none on what EGL names first."""
    from mujoco import egl

    if egl.EGL_DISPLAY is not None:  # opened once for all contexts of the process
        yield
        return
    before = os.environ.get(EGL_DEVICE)
    devices = _chosen or (() if before is not None else _gpus())
    if devices:
        os.environ[EGL_DEVICE] = str(devices[_worker % len(devices)])
    try:
        yield
    finally:
        # Not for longer: robosuite refuses to be imported where it is not also a number in CUDA_VISIBLE_DEVICES.
        os.environ.pop(EGL_DEVICE, None)
        if before is not None:
            os.environ[EGL_DEVICE] = before


def drawing(devices: Sequence[Device], opens: Callable[[int], bool]) -> list[int]:
    """The numbers of the GPUs to draw on: those that CUDA sees (all, where it sees none), and that can be opened."""
    gpus = [device for device in devices if not device.software]
    wanted = [device for device in gpus if device.in_cuda] or gpus
    return [device.number for device in wanted if opens(device.number)]


def _gpus() -> list[int]:
    found = drawing(listed(), opens)
    known = len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    if not found and known and _worker == 0:
        print(
            f"pixio-robot: the driver has {known} NVIDIA GPUs, but EGL can draw on none: pictures are drawn on the "
            "CPU. In a container, let the driver's graphics in (NVIDIA_DRIVER_CAPABILITIES=all); elsewhere install "
            "its EGL library (libnvidia-gl-...).",
            file=sys.stderr,
        )
    return found


def listed() -> list[Device]:
    """All devices of EGL, in its order, where it tells of them; nothing is opened."""
    from mujoco.egl import egl_ext as egl

    addresses: list[Any] = [egl.eglGetProcAddress(f"eglQueryDevice{what}EXT") for what in ("String", "Attrib")]
    if not all(addresses):
        return []
    # By ctypes, as MuJoCo does: PyOpenGL would have EGL write a machine word where there is room for 32 bits.
    text = ctypes.CFUNCTYPE(ctypes.c_char_p, egl.EGLDeviceEXT, ctypes.c_int)(addresses[0])
    word = ctypes.POINTER(ctypes.c_ssize_t)
    number = ctypes.CFUNCTYPE(ctypes.c_uint, egl.EGLDeviceEXT, ctypes.c_int, word)(addresses[1])
    found = []
    for place, device in enumerate(egl.eglQueryDevicesEXT()):
        extensions = (text(device, egl.EGL_EXTENSIONS) or b"").split()
        ordinal = ctypes.c_ssize_t(-1)
        in_cuda = bool(number(device, _CUDA_DEVICE, ctypes.byref(ordinal))) and ordinal.value >= 0
        found.append(Device(place, _SOFTWARE in extensions, in_cuda))
    return found


def opens(number: int) -> bool:
    """Whether that device of EGL's list can be opened by this process; it is closed again."""
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
