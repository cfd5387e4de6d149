"""Egocentric video for pretraining: the hand camera during expert episodes and random play."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from envs.config import CAMERAS, EnvConfig
from envs.experts.motions import motion_to_action
from envs.experts.random_play import PLAY_STREAM, RandomPlay
from envs.experts.registry import make_expert
from envs.pool.parallel_map import ordered_map
from envs.registry import cached_env
from envs.spec import max_episode_steps
from pixio_robot.data.video.encode import video_writer
from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of
from pixio_robot.files import atomic_file, read_json, remove_temporaries, write_json
from pixio_robot.json_values import to_json_value
from pixio_robot.progress import Progress
from pixio_robot.types import Frame

MANIFEST_FILE = "footage.json"
_PLAY_STEPS = (60, 140)
_SEEDS_PER_VIDEO = 1000
# Without x264's macroblock tree: its assembly code is not deterministic, so the bytes would vary from run to run.
_ENCODING = {"crf": "18", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}


@dataclasses.dataclass(kw_only=True)
class FootageConfig:
    """What to record, and how much."""

    out: str = "footage"
    """Directory for `video_<number>_<camera>.mp4`."""
    videos: int = number(20, at_least=1)
    """Number of recordings; each gives one file per camera."""
    steps_per_video: int = number(400, at_least=1)
    """Number of frames per video."""
    image_size: int = 192
    """Side of the square frames [px]; replaces `env.image_size`."""
    fps: int = number(20, at_least=1)
    """Playback frame rate of the files."""
    cameras: list[str] = one_of(["hand"], CAMERAS)
    """`hand` moves with the gripper, `front` is fixed, like a head camera; replaces `env.cameras`."""
    play_share: float = number(0.5, at_least=0, at_most=1)
    """Fraction of episodes with random arm motion; the others are expert episodes."""
    noise: float = number(0.1, at_least=0, at_most=1)
    """Standard deviation of the noise on all actions (action range -1 to 1) but the gripper's."""
    first_seed: int = number(0, at_least=0)
    """Number of the first video; each video has its own seeds."""
    workers: int = number(0, at_least=0)
    """Number of simulator processes; 0: one per core."""
    timeout_s: float = number(3600.0, above=0)
    """Seconds without a finished recording after which its simulator is considered dead and replaced."""
    overwrite: bool = False
    """Replace the videos at `out` if they were created by pixio-robot."""

    def __post_init__(self) -> None:
        if not self.out:
            raise UserError("out must name a directory.")
        check_fields(self)
        if self.image_size % 2:
            raise UserError(f"image_size={self.image_size} must be even for H.264.")
        if not self.cameras:
            raise UserError("cameras must name at least one camera.")


@dataclasses.dataclass(kw_only=True)
class FootageReport:
    """The content of the directory."""

    out: str
    videos: list[str]
    frames: int
    recorded: int
    """Number of videos recorded by this call; the others already existed."""


def record_footage(env_config: EnvConfig, config: FootageConfig) -> FootageReport:
    """Record the videos that do not exist yet; each one is written completely or not at all.

    Raises UserError if the directory contains footage of another configuration.
    """
    out = Path(config.out)
    # Episodes end only on success: the length of the video is set by steps_per_video.
    env_config = dataclasses.replace(
        env_config,
        image_size=config.image_size,
        cameras=list(config.cameras),
        horizon=max(config.steps_per_video, max_episode_steps(env_config)),
    )
    _prepare_directory(out, env_config, config)
    numbers = range(config.first_seed, config.first_seed + config.videos)
    names = {number: [f"video_{number:05d}_{camera}.mp4" for camera in config.cameras] for number in numbers}
    missing = [number for number in numbers if not all((out / name).exists() for name in names[number])]
    with Progress("footage", config.videos, done=config.videos - len(missing)) as progress:
        # A plain FootageConfig: a subclass would cause its own imports in every worker.
        settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(FootageConfig)}
        run = functools.partial(_record_video, env_config, FootageConfig(**settings))
        workers = min(config.workers, len(missing)) if config.workers else 0
        for _ in ordered_map(run, missing, workers, config.timeout_s):
            progress.advance()
    files = [str(out / name) for number in numbers for name in names[number]]
    return FootageReport(out=str(out), videos=files, frames=len(files) * config.steps_per_video, recorded=len(missing))


def _prepare_directory(out: Path, env_config: EnvConfig, config: FootageConfig) -> None:
    """Create the directory and its manifest, or check that they match this configuration."""
    settings = {name: value for name, value in to_json_value(config).items() if name in _CONTENT_SETTINGS}
    manifest = {"env": to_json_value(env_config), "footage": settings}
    if config.overwrite and (out / MANIFEST_FILE).is_file():
        shutil.rmtree(out)
    if out.exists() and any(out.iterdir()):
        if not (out / MANIFEST_FILE).exists():
            raise UserError(f"{out} exists and was not created by pixio-robot: choose another out=.")
        if read_json(out / MANIFEST_FILE) != manifest:
            raise UserError(
                f"{out} contains footage of another configuration (see {out / MANIFEST_FILE}): choose another out=, "
                "or set overwrite=true."
            )
        remove_temporaries(out)
    write_json(out / MANIFEST_FILE, manifest)


_CONTENT_SETTINGS = ("steps_per_video", "image_size", "fps", "cameras", "play_share", "noise")


def _record_video(env_config: EnvConfig, config: FootageConfig, number: int) -> None:
    out = Path(config.out)
    with contextlib.ExitStack() as stack:
        writers = {}
        for camera in config.cameras:
            temporary = stack.enter_context(atomic_file(out / f"video_{number:05d}_{camera}.mp4"))
            writers[camera] = stack.enter_context(video_writer(temporary, config.fps, _ENCODING))
        for frame in _frames(env_config, config, number):
            for camera, write in writers.items():
                write(frame.images[camera])


def _frames(env_config: EnvConfig, config: FootageConfig, number: int) -> Iterator[Frame]:
    """The frames of one video: a sequence of episodes, each by the expert or by random play."""
    env = cached_env(env_config)
    left = config.steps_per_video
    for episode in range(_SEEDS_PER_VIDEO):
        seed = number * _SEEDS_PER_VIDEO + episode
        rng = np.random.default_rng([seed, PLAY_STREAM])
        playing = rng.random() < config.play_share
        steps = int(rng.integers(*_PLAY_STEPS)) if playing else max_episode_steps(env_config)
        actor = RandomPlay() if playing else make_expert(env_config)
        frame = env.reset(seed)
        actor.reset(env, rng)
        for _ in range(steps):
            yield frame
            left -= 1
            if left == 0:
                return
            motion = actor.act(env)
            disturbance = np.append(rng.normal(0, config.noise, len(motion) - 1), 0.0)
            result = env.step(motion_to_action(env, np.clip(motion + disturbance, -1, 1)))
            frame = result.frame
            if result.done:
                break
    raise RuntimeError(f"Video {number} ran out of seeds.")
