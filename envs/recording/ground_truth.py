"""Frames with the simulator's ground truth, for probing an encoder's features."""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.config import CAMERAS, EnvConfig
from envs.experts.motions import motion_to_action
from envs.experts.random_play import PLAY_STREAM, RandomPlay
from envs.registry import Environment, make_env
from envs.rendering.views import MujocoRendering
from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of
from pixio_robot.types import GroundTruth

MIN_MOTION_M = 1e-3
"""Positions that vary by less than this (standard deviation) over all frames are not probed."""

_ROBOT, _FIRST_OBJECT = 2, 3
"""Indices into `segmentation_names()`."""


@dataclasses.dataclass(kw_only=True)
class GroundTruthConfig:
    """Which frames to gather."""

    camera: str = one_of("front", CAMERAS)
    """Camera that renders the frames."""
    episodes: int = number(200, at_least=1)
    """Number of random play episodes; probes are fitted on some and evaluated on others."""
    frames_per_episode: int = number(5, at_least=1)
    """Number of frames per episode."""
    steps_between: int = number(8, at_least=1)
    """Control steps of random play between two frames of an episode."""
    first_seed: int = number(200_000, at_least=0)
    """Seed of the first episode."""

    def __post_init__(self) -> None:
        check_fields(self, "truth.")


def gather_ground_truth(env_config: EnvConfig, config: GroundTruthConfig) -> GroundTruth:
    """Play at random and record images, depth, classes, positions (of gripper, objects and camera), and contact."""
    env = make_env(env_config)
    images, depth, classes, positions, axes, contact, episode = [], [], [], [], [], [], []
    try:
        for seed in range(config.first_seed, config.first_seed + config.episodes):
            env.reset(seed, False)
            play = RandomPlay()
            play.reset(env, np.random.default_rng([seed, PLAY_STREAM]))
            for _ in range(config.frames_per_episode):
                for _ in range(config.steps_between):
                    # Random play that happens to succeed ends the episode: restart it and continue.
                    if env.step(motion_to_action(env, play.act(env)), False).done:
                        env.reset(seed, False)
                images.append(env.render(config.camera))
                depth.append(env.render_depth(config.camera))
                classes.append(env.render_segmentation(config.camera))
                known = {name.removesuffix("_pos"): at for name, at in env.privileged().items() if "_pos" in name}
                camera_position, rotation = env.camera_pose(config.camera)
                positions.append(known | {"camera": camera_position})
                axes.append(rotation)
                contact.append(robot_touches_object(env))
                episode.append(seed)
        names = env.segmentation_names()
    finally:
        env.close()
    shared = set.intersection(*(set(each) for each in positions))
    tracks = {name: np.stack([each[name] for each in positions]).astype(np.float32) for name in sorted(shared)}
    return GroundTruth(
        images=np.stack(images),
        depth=np.stack(depth).astype(np.float32),
        classes=np.stack(classes),
        class_names=names,
        positions={name: track for name, track in tracks.items() if track.std(0).max() > MIN_MOTION_M},
        camera_axes=np.stack(axes).astype(np.float32),
        contact=np.array(contact),
        episode=np.array(episode),
    )


def robot_touches_object(env: Environment) -> bool:
    """Whether a part of the robot touches one of the task's objects.

    Raises UserError for an environment without a MuJoCo model of known parts.
    """
    if not isinstance(env, MujocoRendering):
        raise UserError(f"Contacts of the robot are not available in {env.config.task}; probe another task.")
    classes = env._class_of_geom[np.asarray(env._data.contact.geom)]
    robot = (classes == _ROBOT).any(1)
    return bool((robot & (classes >= _FIRST_OBJECT).any(1)).any())
