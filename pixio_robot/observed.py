"""Whether what a robot or a client shows and wants fits the policy that is to act. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import DemoSpec, Frame


def check_frame(spec: DemoSpec, cameras: Sequence[str], frame: Frame, *, looked_at: bool = True) -> np.ndarray:
    """The frame's state, float32 (s,). Only those cameras count; the images of all of them must be there where the
    policy looks at the frame (`looked_at`), and those that are there must fit in any case.

    Raises UserError naming what does not fit the spec.
    """
    images, state = getattr(frame, "images", None), getattr(frame, "state", None)
    if not isinstance(images, Mapping) or state is None:
        given = (
            f"Frame({type(images).__name__}, {type(state).__name__})"
            if hasattr(frame, "state")
            else type(frame).__name__
        )
        raise UserError(
            f"A frame is Frame(images, state), images {{camera: uint8 (h, w, 3)}} and state (s,), not {given}."
        )
    missing = [name for name in cameras if name not in images]
    if missing and looked_at:
        raise UserError(f"The frame has no image of camera {missing[0]!r}; the policy sees {list(cameras)}.")
    try:
        values = np.asarray(state, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"state must be {spec.state_dim} numbers ({error}).") from error
    check_observation(spec, {name: images[name] for name in cameras if name in images}, values, ())
    return values


def check_observation(spec: DemoSpec, images: Mapping[str, Any], state: Any, leading: tuple[int, ...]) -> None:
    """Raises UserError naming what does not fit the spec: images uint8 (*leading, h, w, 3), each of a camera of the
    spec, and the state, finite float32 (*leading, s)."""
    for name, image in images.items():
        camera = spec.cameras[name]
        _check_array(f"images[{name!r}]", image, np.uint8, (*leading, camera.height, camera.width, 3))
    _check_array("state", state, np.float32, (*leading, spec.state_dim))
    if not np.isfinite(state).all():
        index = int(np.argwhere(~np.isfinite(state))[0][-1])
        raise UserError(f"state holds a value that is not finite: {spec.state_names[index]}.")


def _check_array(name: str, value: Any, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        given = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"{name} must be {np.dtype(dtype)} of shape {shape}, not {given}.")


def check_task(task: str | None, tasks: Iterable[str], own: str) -> None:
    """Raises UserError where a policy that is told one of `tasks` cannot be told this one. With no tasks it is of the
    task `own` alone."""
    known = list(tasks)
    if not known:
        if task not in (None, own):
            raise UserError(f"The policy is of the task {own} alone and cannot be told another, {task!r}.")
        return
    if task is None:
        does = "several tasks" if len(known) > 1 else "what it is told"
        raise UserError(f"This policy does {does}: say task= one of {', '.join(map(repr, known))}.")
    if task not in known:
        raise unknown_name("task", str(task), known)
