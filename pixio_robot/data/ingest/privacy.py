"""A user-defined function that blurs faces or plates in every frame before anything is written.

It is given as `module:function` and imported by the worker processes, which run its code: treat a configuration that
names a function like a script.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixio_robot.errors import UserError

PrivacyHook = Callable[[np.ndarray], tuple[np.ndarray, int]]
"""uint8 (h, w, 3) RGB -> (frame of the same size with private regions made unrecognisable, number of regions)."""


class PrivacyError(Exception):
    """The hook raised or did not return a frame and a number: nothing of the footage is written."""


def load_hook(name: str) -> PrivacyHook:
    """Import `module:function`. Raises UserError if there is no such function."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UserError(f"privacy={name!r} should read module:function, such as my_blur:hide_faces.")
    try:
        hook: PrivacyHook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"privacy={name!r} cannot be imported ({error}); put the module on Python's path, for example with "
            "PYTHONPATH=."
        ) from error
    if not callable(hook):
        raise UserError(f"privacy={name!r} is not a function.")
    return hook


def hook_name(hook: PrivacyHook) -> str:
    """The `module:function` name of a function. Raises UserError if it cannot be imported by that name."""
    module, function = getattr(hook, "__module__", ""), getattr(hook, "__qualname__", "")
    name = f"{module}:{function}"
    if not module or module == "__main__" or "." in function or load_hook(name) is not hook:
        raise UserError(
            f"The privacy hook {hook!r} must be a top-level function of an importable module, because "
            "the worker processes look it up by name."
        )
    return name


def hook_sha256(name: str) -> str:
    """Hash of the file that defines the hook, to detect changes to it; "" without a hook."""
    if not name:
        return ""
    hook = load_hook(name)
    source = inspect.getsourcefile(inspect.unwrap(hook)) if inspect.isroutine(hook) else None
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def apply_privacy_hook(image: np.ndarray, hook: PrivacyHook) -> tuple[np.ndarray, int]:
    """Apply the hook: (anonymised frame, number of regions hidden). Raises PrivacyError."""
    try:
        hidden, regions = hook(image)
    except Exception as error:
        raise PrivacyError(f"privacy hook failed ({type(error).__name__}: {error})") from error
    if not isinstance(hidden, np.ndarray) or hidden.shape != image.shape or hidden.dtype != np.uint8 or regions < 0:
        raise PrivacyError("privacy hook failed (it must return a uint8 frame of the same shape and a count)")
    return hidden, int(regions)
