"""Demonstrations made for the benchmarks that read them: a store of ours, and the same as a LeRobotDataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.types import CameraSpec, DemoSpec, Episode

STEPS = 50
LEROBOT_NAME = "local/benchmark"

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""An array of that shape."""


def demo_spec(
    cameras: Iterable[str],
    side: int,
    state: Sequence[str],
    actions: Sequence[str],
    controller: str = "none",
    control_hz: float = 20,
) -> DemoSpec:
    """Of square images of `side` pixels; state and actions by their names."""
    return DemoSpec(
        task="benchmark",
        robot="none",
        simulator="none",
        simulator_version="0",
        controller=controller,
        control_hz=control_hz,
        cameras={camera: CameraSpec(height=side, width=side) for camera in cameras},
        state_names=state,
        action_names=actions,
    )


TWO_CAMERAS = demo_spec(("front", "hand"), 84, [f"s{i}" for i in range(9)], [f"a{i}" for i in range(7)])


def simulator_like_images(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Images of coarse blocks with some grain, which compress about as a simulator's do."""
    *many, height, width, channels = shape
    blocks = random.integers(0, 240, (*many, -(-height // 12), -(-width // 12), channels), np.uint8)
    images = blocks.repeat(12, -3).repeat(12, -2)[..., :height, :width, :]
    return images + random.integers(0, 4, shape, np.uint8)


def normal_values(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.normal(size=shape)


def make_store(
    path: Path,
    spec: DemoSpec,
    episodes: int,
    steps: int = STEPS,
    images: Draw = simulator_like_images,
    values: Draw = normal_values,
) -> DemoStore:
    """Successful episodes without rewards: the cameras' images drawn together, then the state, then the actions."""
    store, random = DemoStore.create(path, spec), np.random.default_rng(0)
    side = next(iter(spec.cameras.values())).height
    for seed in range(episodes):
        seen = images(random, (len(spec.cameras), steps, side, side, 3))
        store.append(
            Episode(
                images=dict(zip(spec.cameras, seen, strict=True)),
                state=values(random, (steps, spec.state_dim)).astype(np.float32),
                actions=values(random, (steps, spec.action_dim)).astype(np.float32),
                rewards=np.zeros(steps, np.float32),
                success=True,
                seed=seed,
            )
        )
    return store


def lerobot_video_decoder() -> str:
    """What LeRobotDataset decodes video with: torchcodec, its default, or PyAV where FFmpeg's libraries are missing
    (Debian: apt-get install ffmpeg), which is half as fast."""
    from lerobot.utils.import_utils import get_safe_default_video_backend

    return get_safe_default_video_backend()


def make_lerobot_dataset(
    store: DemoStore, path: Path, observation_steps: int, action_steps: range, *, videos: bool = True, **options: Any
) -> Any:
    """The same demonstrations as a LeRobotDataset, with video (its default) or PNG images in parquet. An item has the
    last `observation_steps` and the actions of `action_steps`, counted from the current step."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    spec, hz = store.spec, int(store.spec.control_hz)
    keys = {camera: f"observation.images.{camera}" for camera in spec.cameras}
    features: dict[str, Any] = {
        keys[camera]: {
            "dtype": "video" if videos else "image",
            "shape": (size.height, size.width, 3),
            "names": ["height", "width", "channels"],
        }
        for camera, size in spec.cameras.items()
    }
    for key, count in (("observation.state", spec.state_dim), ("action", spec.action_dim)):
        features[key] = {"dtype": "float32", "names": None, "shape": (count,)}
    writer = LeRobotDataset.create(LEROBOT_NAME, hz, features, root=path, use_videos=videos)
    for number in range(len(store)):
        episode = store.episode(number)
        for step in range(len(episode)):
            frame: dict[str, Any] = {key: episode.images[camera][step] for camera, key in keys.items()}
            frame |= {"observation.state": episode.state[step], "action": episode.actions[step], "task": spec.task}
            writer.add_frame(frame)
        writer.save_episode()
    writer.finalize()
    seen = [(step - observation_steps + 1) / hz for step in range(observation_steps)]
    wanted = dict.fromkeys([*keys.values(), "observation.state"], seen) | {
        "action": [step / hz for step in action_steps]
    }
    return LeRobotDataset(LEROBOT_NAME, root=path, delta_timestamps=wanted, **options)
