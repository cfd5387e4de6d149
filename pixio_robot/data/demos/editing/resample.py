"""Changing the control rate or the image sizes of episodes.

An `Edit` is the resulting DemoSpec and the function that changes an episode accordingly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from pixio_robot.data.actions.merge_steps import plan_merge
from pixio_robot.data.demos.editing.rewrite import Edit
from pixio_robot.data.demos.overridden_steps import subsample_overridden_steps
from pixio_robot.data.demos.verify import TIMESTAMPS
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import CameraSpec, DemoSpec, Episode


def subsample(spec: DemoSpec, stride: int, actions: str) -> Edit:
    """Keep every `stride`-th frame, state and time stamp. Rewards are summed and actions merged the way that
    `actions` names (`merge_steps.MERGE_METHODS`); gripper columns take the last value instead of the sum or mean."""
    if stride < 1:
        raise UserError(f"stride={stride} must be at least 1.")
    merged = plan_merge(spec.action_names, stride, actions)

    def change(episode: Episode) -> Episode:
        starts = range(0, len(episode), stride)
        info = {**episode.info, **subsample_overridden_steps(episode.info, len(episode), stride)}
        if isinstance(times := info.get(TIMESTAMPS), list):
            info[TIMESTAMPS] = times[::stride]
        return dataclasses.replace(
            episode,
            images={camera: frames[::stride] for camera, frames in episode.images.items()},
            state=episode.state[::stride],
            actions=merged.merge(episode.actions).astype(np.float32),
            rewards=np.array([episode.rewards[i : i + stride].sum() for i in starts], np.float32),
            info=info,
        )

    slower = dataclasses.replace(spec, action_names=merged.names, control_hz=spec.control_hz / stride)
    return Edit(slower, change, merged.notes)


def resize_images(spec: DemoSpec, height: int, width: int, cameras: Sequence[str] = ()) -> Edit:
    """Resample the images of the named cameras (default: all) to height x width pixels, without aliasing."""
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
        camera: _rescale_intrinsics(size, height, width) if camera in touched else size
        for camera, size in spec.cameras.items()
    }
    return Edit(dataclasses.replace(spec, cameras=sizes), change)


def _resample(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize frames uint8 (n, h, w, 3): by area averaging when shrinking, cubic when enlarging."""
    shrinks = height <= frames.shape[1] and width <= frames.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])


def _rescale_intrinsics(camera: CameraSpec, height: int, width: int) -> CameraSpec:
    """Scale the intrinsics with the image; the principal point is measured from the outer edge of the first pixel."""
    intrinsics = camera.intrinsics
    if intrinsics is not None:
        x, y = width / camera.width, height / camera.height
        intrinsics = tuple(value * scale for value, scale in zip(intrinsics, (x, y, x, y), strict=True))
    return dataclasses.replace(camera, height=height, width=width, intrinsics=intrinsics)
