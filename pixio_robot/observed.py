"""Whether what a robot or a client shows fits the DemoSpec that a policy was trained by. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec, Frame


def check_frame(spec: DemoSpec, cameras: Sequence[str], frame: Frame) -> None:
    """Raises UserError naming what of a frame does not fit the spec; only those cameras are looked at."""
    if missing := [name for name in cameras if name not in frame.images]:
        raise UserError(f"The frame has no image of camera {missing[0]!r}; the policy sees {list(cameras)}.")
    images = {name: frame.images[name] for name in cameras}
    check_observation(spec, images, np.asarray(frame.state, np.float32), ())


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
