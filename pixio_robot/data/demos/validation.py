"""Checking that a DemoSpec can be stored, and that an episode matches it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from pixio_robot.data.demos.episode_header import EpisodeHeader
from pixio_robot.errors import UserError, printable
from pixio_robot.types import CameraSpec, DemoSpec, Episode

VALUES = ("state", "actions", "rewards")
_ROTATION_ERROR = 1e-3


def values_shapes(spec: DemoSpec, length: int) -> dict[str, tuple[int, ...]]:
    """The shapes of VALUES in an episode of `length` steps."""
    return {"state": (length, spec.state_dim), "actions": (length, spec.action_dim), "rewards": (length,)}


def images_shape(spec: DemoSpec, camera: str, length: int) -> tuple[int, ...]:
    return (length, spec.cameras[camera].height, spec.cameras[camera].width, 3)


def check_spec(spec: DemoSpec) -> None:
    """Raise UserError for a spec that could not be stored or would be meaningless when read back."""
    if not (math.isfinite(spec.control_hz) and spec.control_hz > 0):
        raise UserError(f"The DemoSpec's control_hz is {spec.control_hz}; it must be above 0.")
    texts = [value for value in vars(spec).values() if isinstance(value, str)]
    for text in (*texts, *spec.cameras, *spec.state_names, *spec.action_names):
        if printable(text) != text:
            raise UserError(f"The DemoSpec's {text!r} has control characters, which could rewrite a terminal.")
    for name, camera in spec.cameras.items():
        if not name or name.startswith((".", "__")) or "/" in name:
            raise UserError(
                f"The camera name {name!r} cannot be used as a folder name: avoid '/' and a leading '.' or '__'."
            )
        if camera.height < 1 or camera.width < 1:
            raise UserError(f"Camera {name!r} has {camera.height} x {camera.width} pixels; both must be at least 1.")
        _check_geometry(name, camera)
    for which, names in (("state_names", spec.state_names), ("action_names", spec.action_names)):
        if not names:
            raise UserError(f"The DemoSpec's {which} is empty: name at least one dimension.")
        twice = [name for number, name in enumerate(names) if name in names[:number]]
        if twice:
            raise UserError(f"The DemoSpec's {which} names {twice[0]!r} twice.")


def _check_geometry(name: str, camera: CameraSpec) -> None:
    if camera.intrinsics is not None and not (len(camera.intrinsics) == 4 and min(camera.intrinsics[:2]) > 0):
        raise UserError(f"Camera {name!r}: intrinsics {camera.intrinsics} must be fx, fy, cx, cy in pixels.")
    if camera.extrinsics is None:
        return
    pose = np.array([row for row in camera.extrinsics if len(row) == 4])
    rotation = pose[:3, :3]
    if (
        pose.shape != (4, 4)
        or not np.array_equal(pose[3], [0, 0, 0, 1])
        or not np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROTATION_ERROR)
        or np.linalg.det(rotation) < 0
    ):
        raise UserError(f"Camera {name!r}: extrinsics must be a pose, 4 x 4 with a rotation and the row 0 0 0 1.")
    if camera.mounted_on is None:
        raise UserError(f"Camera {name!r}: extrinsics require mounted_on, the frame that they are relative to.")


def check_episode(episode: Episode, spec: DemoSpec) -> EpisodeHeader:
    """Check an episode and return its header. Raises UserError naming what does not match the DemoSpec."""
    for name in VALUES:
        _check_is_array(f"The episode's {name}", getattr(episode, name))
    if episode.actions.ndim == 0 or len(episode) == 0:
        raise UserError("An episode needs at least one step, but this one has no actions.")
    for name, shape in values_shapes(spec, len(episode)).items():
        _check_array(f"The episode's {name}", getattr(episode, name), "float32", shape)
        finite = np.isfinite(getattr(episode, name))
        if not finite.all():
            raise UserError(
                f"The episode's {name} has a value that is not finite at step {np.argwhere(~finite)[0][0]}."
            )
    if set(episode.images) != set(spec.cameras):
        raise UserError(f"The episode has cameras {sorted(episode.images)}; the DemoSpec has {sorted(spec.cameras)}.")
    for camera, frames in episode.images.items():
        shape = images_shape(spec, camera, len(episode))
        _check_is_array(f"The episode's images of {camera!r}", frames)
        _check_array(f"The episode's images of {camera!r}", frames, "uint8", shape)
    return EpisodeHeader(len(episode), bool(episode.success), int(episode.seed), _json_info(episode.info))


def _json_info(info: Mapping[str, object]) -> dict[str, object]:
    values = dict(info)
    try:
        same = json.loads(json.dumps(values, allow_nan=False)) == values
    except (TypeError, ValueError):
        same = False
    if not same:
        raise UserError(f"The episode's info must be plain JSON (finite numbers, text, lists, text keys): {values!r}.")
    return values


def _check_is_array(what: str, values: object) -> None:
    if not isinstance(values, np.ndarray):
        raise UserError(f"{what} must be a NumPy array, not {type(values).__module__}.{type(values).__qualname__}.")


def _check_array(what: str, values: np.ndarray, dtype: str, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise UserError(f"{what} has shape {values.shape}; the DemoSpec requires {shape}.")
    if values.dtype != dtype:
        raise UserError(f"{what} has dtype {values.dtype}; it must be {dtype}.")
