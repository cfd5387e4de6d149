"""Writes a demonstration store as a LeRobotDataset v3, using lerobot itself."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.demos.editing.rewrite import episode_task
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.interop.lerobot.extra_metadata import FILE, episode_line
from pixio_robot.interop.lerobot.features import ACTION, DONE, IMAGES, REWARD, STATE, SUCCESS, features_from_spec
from pixio_robot.progress import track_progress


def write_lerobot(store: DemoStore, root: Path, *, repo_id: str, encoder: dict[str, Any] | None) -> None:
    """Create the dataset at `root`, which must not exist.

    `encoder`: arguments of lerobot's RGBEncoderConfig, for video; None stores frames as PNG. Raises UserError for
    settings or image sizes that the encoder rejects.
    """
    with _quiet():
        dataset = _create(store, root, repo_id, encoder)
        metadata_lines = [json.dumps({"spec": store.spec.to_json()})]
        try:
            for number in track_progress(range(len(store)), f"write {root.name}"):
                metadata_lines.append(json.dumps(_add(dataset, store, number, encoder is not None)))
            dataset.finalize()
        except BaseException:
            _abort(dataset)
            raise
    # lerobot's PNG files, which are now stored in the rows.
    shutil.rmtree(root / "images", ignore_errors=True)
    (root / FILE).write_text("\n".join(metadata_lines) + "\n", encoding="utf-8")


def _create(store: DemoStore, root: Path, repo_id: str, encoder: dict[str, Any] | None) -> Any:
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    rate = store.spec.control_hz
    if rate != round(rate):
        raise UserError(f"{store.path} has {rate:g} steps per second, but LeRobotDataset needs a whole number.")
    try:
        rgb_encoder = None if encoder is None else RGBEncoderConfig(**encoder)
    except ValueError as error:
        raise UserError(f"lerobot rejects the video settings {encoder}: {error}.") from error
    return LeRobotDataset.create(
        repo_id,
        round(rate),
        features_from_spec(store.spec, "image" if encoder is None else "video"),
        root=root,
        robot_type=store.spec.robot,
        use_videos=encoder is not None,
        rgb_encoder=rgb_encoder,
        # Straight to the encoder, without intermediate PNG files. The queue is unbounded, because a full queue drops
        # frames; it holds at most one episode, which is in RAM anyway.
        streaming_encoding=encoder is not None,
        encoder_queue_maxsize=0,
    )


def _add(dataset: Any, store: DemoStore, number: int, video: bool) -> dict[str, Any]:
    episode, task = store.episode(number), episode_task(store, number)
    last = len(episode) - 1
    try:
        for step in range(len(episode)):
            images = {f"{IMAGES}{camera}": frames[step] for camera, frames in episode.images.items()}
            values = {
                STATE: episode.state[step],
                ACTION: episode.actions[step],
                REWARD: episode.rewards[step : step + 1],
                DONE: np.array([step == last]),
                SUCCESS: np.array([step == last and episode.success]),
            }
            dataset.add_frame(images | values | {"task": task})
        dataset.save_episode()
    except RuntimeError as error:
        raise UserError(f"lerobot's encoder failed on episode {number}: {error}.") from error
    except OSError as error:
        # lerobot's image writer only prints errors; the missing files are noticed later.
        free = shutil.disk_usage(dataset.root).free
        raise UserError(
            f"lerobot could not write episode {number} ({error}); the disk has {free / 1e6:.0f} MB free. "
            "The incomplete dataset was removed."
        ) from error
    if video:
        _check_videos(dataset, store, number)
    return episode_line(episode)


def _abort(dataset: Any) -> None:
    """Stop the dataset's threads and close its files while its folder still exists; otherwise this would happen, and
    recreate files, when the object is garbage-collected."""
    with contextlib.suppress(Exception):
        dataset.writer.cancel_pending_videos()
    for part in (dataset.writer, dataset.meta):
        with contextlib.suppress(Exception):
            part.finalize()
        part._finalized = True


def _check_videos(dataset: Any, store: DemoStore, number: int) -> None:
    """Check the video lengths: lerobot only logs it when its encoder was too slow or died."""
    expected = store.lengths[number] / store.spec.control_hz
    metadata = dataset.meta.latest_episode
    for camera in store.spec.cameras:
        ends = [metadata[f"videos/{IMAGES}{camera}/{end}_timestamp"][0] for end in ("from", "to")]
        if abs(ends[1] - ends[0] - expected) > 0.5 / store.spec.control_hz:
            raise UserError(
                f"The video of camera {camera} in episode {number} is {ends[1] - ends[0]:.2f} s long instead of "
                f"{expected:.2f} s; try another codec=, or images=image."
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what `datasets`, FFmpeg and the AV1 encoder print for every episode, and lerobot's ninety-line warning
    that torchcodec cannot be loaded, which is not needed for writing (`pixio-robot doctor` reports it)."""
    import av.logging
    import datasets

    # Errors only. lerobot passes FFmpeg's messages back from Python to FFmpeg, which has its own log level.
    os.environ.setdefault("SVT_LOG", "1")
    av.logging.set_libav_level(av.logging.ERROR)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    decoders = logging.getLogger("lerobot.utils.import_utils")
    level = decoders.level
    decoders.setLevel(logging.ERROR)
    try:
        yield
    finally:
        decoders.setLevel(level)
        if shown:
            datasets.enable_progress_bars()
