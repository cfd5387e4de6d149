"""Imports MuJoCo and robosuite without their start-up messages, and reports what to install if that fails."""

from __future__ import annotations

import functools
import logging
import os
import random
import warnings
import xml.etree.ElementTree as ElementTree
from types import ModuleType
from typing import Any

from envs.rendering.egl_devices import EGL_DEVICE_VARIABLE
from pixio_robot.errors import UserError

_GL_HELP = (
    "MuJoCo could not start an off-screen OpenGL renderer with MUJOCO_GL={gl}: {error}. "
    "On Debian or Ubuntu install `libegl1 libgl1 libglib2.0-0` and use MUJOCO_GL=egl (works without a GPU), "
    "or install `libosmesa6 libgl1 libglib2.0-0` and use MUJOCO_GL=osmesa."
)


def opengl_error(error: Exception) -> UserError:
    """The error for a machine that has no usable OpenGL library."""
    return UserError(_GL_HELP.format(gl=os.environ.get("MUJOCO_GL", "egl"), error=error))


def load_mujoco() -> None:
    """Import mujoco, with MUJOCO_GL=egl unless it is already set.

    Raises UserError if MuJoCo finds no OpenGL library.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise opengl_error(error) from error
    del mujoco


@functools.cache
def load_robosuite() -> ModuleType:
    """Import robosuite without its start-up messages. Raises UserError like `load_mujoco`."""
    load_mujoco()
    # robosuite sets its logger's level on import and warns about optional parts that are not used here.
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # robosuite rejects values that are not in CUDA_VISIBLE_DEVICES. EGL numbers GPUs differently, and we render here.
    egl_device = os.environ.pop(EGL_DEVICE_VARIABLE, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import robosuite
            import robosuite.controllers
            import robosuite.robots
    except ImportError as error:
        if "GL" not in str(error) and ".so" not in str(error):
            raise
        raise opengl_error(error) from error
    finally:
        logging.disable(previous)
        if egl_device is not None:
            os.environ[EGL_DEVICE_VARIABLE] = egl_device
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    _patch_sawyer()
    _patch_single_object_tasks()
    return robosuite


def _patch_sawyer() -> None:
    """Fix two problems of robosuite's Sawyer.

    MuJoCo 3.8 rejects its flat head mesh, which has no volume to compute an inertia from: use its surface's inertia.
    And its first link exactly touches the base: depending on rounding, friction may block it, so exclude the contact.
    """
    from robosuite.models.robots import Sawyer as Original

    def get_model(self: Original) -> object:
        for mesh in self.asset.findall("mesh"):
            mesh.set("inertia", "shell")
        if self.contact.find("exclude") is None:
            bodies = {
                f"body{i}": f"{self.naming_prefix}{name}" for i, name in ((1, "right_arm_base_link"), (2, "right_l0"))
            }
            ElementTree.SubElement(self.contact, "exclude", bodies)
        return Original.get_model(self)

    # robosuite's metaclass registers robots by class name: this class replaces the original.
    metaclass: Any = type(Original)
    metaclass("Sawyer", (Original,), {"get_model": get_model})


def _patch_single_object_tasks() -> None:
    """Let PickPlaceSingle and NutAssemblySingle choose their object by the seed alone.

    robosuite chooses from a set of names, whose order differs from process to process.
    """
    from robosuite.environments.base import REGISTERED_ENVS

    for name, chosen, objects in (("PickPlaceSingle", "object_id", "objects"), ("NutAssemblySingle", "nut_id", "nuts")):
        original = REGISTERED_ENVS[name]

        def reset_internal(self: Any, original: Any = original, chosen: str = chosen, objects: str = objects) -> None:
            setattr(self, chosen, random.randrange(len(getattr(self, objects))))
            # The mode in which robosuite takes the object that is set, and otherwise does the same.
            self.single_object_mode = 2
            original._reset_internal(self)
            self.single_object_mode = 1

        metaclass: Any = type(original)
        metaclass(name, (original,), {"_reset_internal": reset_internal})
