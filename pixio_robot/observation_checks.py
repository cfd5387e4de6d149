"""Check that observations and task requests of a robot or client match the policy, and that its actions are numbers.
Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec, Frame


def check_frame(spec: DemoSpec, cameras: Sequence[str], frame: Frame, *, images_needed: bool = True) -> np.ndarray:
    """Check a frame against the spec and return its state as float32 (s,).

    Images of cameras other than `cameras` are ignored. If the policy will use the frame (`images_needed`), every one of
    `cameras` needs an image; images that are present must always match. Raises UserError naming the mismatch.
    """
    images, state = getattr(frame, "images", None), getattr(frame, "state", None)
    if not isinstance(images, Mapping) or state is None:
        given = (
            f"Frame({type(images).__name__}, {type(state).__name__})"
            if hasattr(frame, "state")
            else type(frame).__name__
        )
        raise UserError(
            f"A frame must be Frame(images, state) with images {{camera: uint8 (h, w, 3)}} and state (s,), not {given}."
        )
    missing = [name for name in cameras if name not in images]
    if missing and images_needed:
        raise UserError(f"The frame has no image of camera {missing[0]!r}; the policy uses {list(cameras)}.")
    try:
        values = np.asarray(state, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"state must be {spec.state_dim} numbers ({error}).") from error
    check_observation(spec, {name: images[name] for name in cameras if name in images}, values, ())
    return values


def copy_frame(frame: Frame, cameras: Sequence[str]) -> Frame:
    """A frame with its own arrays, of those cameras only: callers may fill one buffer again and again."""
    images = {name: np.array(frame.images[name]) for name in cameras if name in frame.images}
    return Frame(images, np.array(frame.state))


def check_observation(spec: DemoSpec, images: Mapping[str, Any], state: Any, leading: tuple[int, ...]) -> None:
    """Raise UserError naming the mismatch unless each image is uint8 (*leading, h, w, 3) of a camera in the spec, and
    the state is finite float32 (*leading, s)."""
    for name, image in images.items():
        camera = spec.cameras[name]
        _check_array(f"images[{name!r}]", image, np.uint8, (*leading, camera.height, camera.width, 3))
    _check_array("state", state, np.float32, (*leading, spec.state_dim))
    if not np.isfinite(state).all():
        index = int(np.argwhere(~np.isfinite(state))[0][-1])
        raise UserError(f"state contains a non-finite value: {spec.state_names[index]}.")


def _check_array(name: str, value: Any, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        given = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"{name} must be {np.dtype(dtype)} of shape {shape}, not {given}.")


def check_actions(actions: np.ndarray, where: str = "") -> None:
    """Raise UserError unless the actions are finite: not every robot refuses others. `where`: of which step, beginning
    with a space."""
    if not np.isfinite(actions).all():
        raise UserError(f"The policy returned a non-finite action{where}: its training has probably diverged.")


def check_task(task: str | None, tasks: Iterable[str], own_task: str) -> None:
    """Raise UserError if the policy does not support this task. `tasks` are the tasks it can be asked for; if there are
    none, it only does its `own_task`."""
    supported = list(tasks)
    if not supported:
        if task not in (None, own_task):
            raise UserError(f"The policy only does the task {own_task} and cannot be asked for {task!r}.")
        return
    if task is None:
        raise UserError(f"This policy needs a task: set task= to one of {', '.join(map(repr, supported))}.")
    if task not in supported:
        raise unknown_name("task", str(task), supported)
