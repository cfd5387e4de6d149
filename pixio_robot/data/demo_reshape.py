"""Episodes at another rate, or with other image sizes.

An `Edit` is the DemoSpec that comes out and the change of an episode that makes it fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from pixio_robot.data.demo_verify import TIMESTAMPS
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import CameraSpec, DemoSpec, Episode

BLOCKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": lambda block: block[0],
    "last": lambda block: block[-1],
    "sum": lambda block: block.sum(0),
    "mean": lambda block: block.mean(0),
}
"""How the actions of `stride` steps become one: the last for absolute targets; the sum for deltas in physical units;
the mean for deltas normalised to [-1, 1], when the controller's range is widened by the stride as well."""
_GRIPPER = "gripper"
"""Columns with this in their name are commands to open or close, also among deltas: neither sum nor mean is one."""


@dataclasses.dataclass(frozen=True)
class Edit:
    spec: DemoSpec
    change: Callable[[Episode], Episode]
    notes: tuple[str, ...] = ()
    """What was done and what was not, a line each, for the user."""


def strided(spec: DemoSpec, stride: int, actions: str) -> Edit:
    """Every `stride`-th frame, state and time stamp; the rewards between are summed, the actions joined as
    BLOCKS[actions] does, but for the gripper's, of which sum and mean take the last."""
    if stride < 1:
        raise UserError(f"stride={stride} must be at least 1.")
    if actions not in BLOCKS:
        if not actions:
            raise UserError(
                f"stride={stride} joins {stride} actions into one: say how with actions={'|'.join(BLOCKS)} "
                "(last for absolute targets, sum for deltas)."
            )
        raise unknown_name("way of joining actions", actions, BLOCKS)

    kept = [column for column, name in enumerate(spec.action_names) if _GRIPPER in name]

    def joined(block: np.ndarray) -> np.ndarray:
        one = BLOCKS[actions](block)
        if actions in ("sum", "mean"):
            one[kept] = block[-1, kept]
        return one

    def change(episode: Episode) -> Episode:
        starts = range(0, len(episode), stride)
        times = episode.info.get(TIMESTAMPS)
        return dataclasses.replace(
            episode,
            images={camera: frames[::stride] for camera, frames in episode.images.items()},
            state=episode.state[::stride],
            actions=np.stack([joined(episode.actions[i : i + stride]) for i in starts]).astype(np.float32),
            rewards=np.array([episode.rewards[i : i + stride].sum() for i in starts], np.float32),
            info={**episode.info, TIMESTAMPS: times[::stride]} if isinstance(times, list) else episode.info,
        )

    return Edit(dataclasses.replace(spec, control_hz=spec.control_hz / stride), change)


def resized(spec: DemoSpec, height: int, width: int, cameras: Sequence[str] = ()) -> Edit:
    """Images of the named cameras (of all without a name) resampled to height x width pixels, without aliasing."""
    if height < 1 or width < 1:
        raise UserError(f"height={height} and width={width} must be at least 1 pixel.")
    for camera in cameras:
        if camera not in spec.cameras:
            raise unknown_name("camera", camera, spec.cameras)
    touched = set(cameras or spec.cameras)

    def change(episode: Episode) -> Episode:
        images = {
            camera: _resample(frames, height, width) if camera in touched else frames
            for camera, frames in episode.images.items()
        }
        return dataclasses.replace(episode, images=images)

    sizes = {
        camera: _rescaled(size, height, width) if camera in touched else size for camera, size in spec.cameras.items()
    }
    return Edit(dataclasses.replace(spec, cameras=sizes), change)


def _resample(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """frames uint8 (n, h, w, 3). Area averaging where pixels are lost, cubic where they are made up."""
    shrinks = height <= frames.shape[1] and width <= frames.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])


def _rescaled(camera: CameraSpec, height: int, width: int) -> CameraSpec:
    """The intrinsics follow the pixels; a principal point is counted from the outer edge of the first pixel."""
    intrinsics = camera.intrinsics
    if intrinsics is not None:
        x, y = width / camera.width, height / camera.height
        intrinsics = tuple(value * scale for value, scale in zip(intrinsics, (x, y, x, y), strict=True))
    return dataclasses.replace(camera, height=height, width=width, intrinsics=intrinsics)
