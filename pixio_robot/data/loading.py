"""Endless shuffled batches of training windows, gathered by one thread while the model works.

A thread that fills whole batches is faster than DataLoader workers: moving a batch between processes costs more than
reading it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.features.cache import FeatureCache
from pixio_robot.data.prefetch import PrefetchingIterator
from pixio_robot.data.windows import WindowIndices, Windows
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Batch, Features, Observation


class DemoWindows:
    """The training windows of a store's episodes, by number.

    With `features`, `Observation.features` is filled instead of images. With `random_views` too, each window uses one
    of the cached random views, drawn anew whenever the window is; otherwise the view used at inference. With `goals`,
    the goal (g,) of each episode of the store, `Observation.goal` is filled.
    """

    def __init__(
        self,
        store: DemoStore,
        *,
        horizon: int,
        observation_steps: int = 1,
        past_actions: int = 0,
        max_padding: int | None = None,
        cameras: Sequence[str] | None = None,
        episodes: Sequence[int] | None = None,
        features: FeatureCache | None = None,
        random_views: bool = False,
        goals: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """`cameras` and `episodes`: None takes all. For the other arguments see `Windows`."""
        cameras = sorted(store.spec.cameras) if cameras is None else cameras
        for camera in cameras:
            if camera not in store.spec.cameras:
                raise unknown_name("camera", camera, store.spec.cameras)
        if random_views and (features is None or features.views == 0):
            raise UserError("random_views=True needs features cached in several views.")
        lengths = store.lengths
        if goals is not None and len(goals) != len(lengths):
            raise UserError(f"There are {len(goals)} goals for the {len(lengths)} episodes of {store.path}.")
        self.store = store
        overridden = np.concatenate([store.overridden(episode) for episode in range(len(lengths))])
        self._windows = Windows(lengths, observation_steps, horizon, episodes, past_actions, max_padding, overridden)
        self._cameras = list(cameras)
        self._features = features
        self._random_views = random_views
        self._goals = None if goals is None else torch.tensor(goals, dtype=torch.float32)
        # All episodes concatenated, so that a batch is one look-up.
        self._state = np.concatenate([store.state(episode) for episode in range(len(lengths))])
        self._actions = np.concatenate([store.actions(episode) for episode in range(len(lengths))])

    @classmethod
    def of_policy(cls, policy: Any, store: DemoStore, **others: Any) -> DemoWindows:
        """The windows and cameras that a policy (`policies.ChunkPolicy`) needs; `others` are arguments of the
        constructor."""
        return cls(
            store,
            observation_steps=policy.observation_steps,
            horizon=policy.chunk,
            past_actions=policy.past_actions,
            max_padding=policy.max_padding,
            cameras=policy.cameras,
            **others,
        )

    def __len__(self) -> int:
        return len(self._windows)

    def draw_views(self, random: np.random.Generator, count: int) -> np.ndarray | None:
        """Random view of each camera for `count` windows, (cameras, count); None if all use the view of inference."""
        if not self._random_views or self._features is None:
            return None
        return random.integers(1, self._features.views + 1, (len(self._cameras), count))

    def gather(self, indices: np.ndarray, views: np.ndarray | None = None) -> Batch:
        """The windows with these numbers (b,). views (cameras, b): which view of cached features to use; default 0."""
        located = self._windows.locate(indices)
        images: dict[str, torch.Tensor] = {}
        features: dict[str, Features] = {}
        for number, camera in enumerate(self._cameras):
            if self._features is None:
                images[camera] = torch.from_numpy(self._images(camera, located))
            else:
                shown = None if views is None else views[number]
                features[camera] = self._features.gather(camera, located.episode, located.frames, shown)
        state = torch.from_numpy(self._state[located.first_row + located.frames])
        actions = torch.from_numpy(self._actions[located.first_row + located.actions])
        goal = None if self._goals is None else self._goals[torch.from_numpy(located.episode)]
        return Batch(Observation(images, state, features, goal), actions, torch.from_numpy(located.ignored))

    def _images(self, camera: str, located: WindowIndices) -> np.ndarray:
        """uint8 (b, t, h, w, 3). The frames of a window are contiguous, except for repeats of the first one."""
        size = self.store.spec.cameras[camera]
        images = np.empty((*located.frames.shape, size.height, size.width, 3), np.uint8)
        firsts, stops = located.frames[:, 0].tolist(), (located.frames[:, -1] + 1).tolist()
        for window, episode, first, stop in zip(images, located.episode.tolist(), firsts, stops, strict=True):
            repeated = len(window) - (stop - first)
            self.store.images_into(episode, camera, first, window[repeated:])
            if repeated:
                window[:repeated] = window[repeated]
        return images


class DemoBatches(PrefetchingIterator):
    """An infinite iterator of `Batch`; every epoch is a new permutation of all windows, the last short batch dropped.

    In distributed training each process gathers its part of every batch.
    """

    def __init__(
        self, source: DemoWindows, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1.")
        # A store smaller than a batch still trains: the batch is as large as the data.
        rank_slice(batch_size, rank, world_size)
        if len(source) < world_size:
            raise UserError(
                f"{source.store.path} has {len(source)} training windows, too few for {world_size} processes."
            )
        self._source = source
        self._batch_size = min(batch_size, len(source) // world_size * world_size)
        self._mine = rank_slice(self._batch_size, rank, world_size)
        self._seed = seed
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def windows(self) -> int:
        return len(self._source)

    @property
    def batches_per_epoch(self) -> int:
        return self.windows // self._batch_size

    def _identity(self) -> dict[str, Any]:
        return {"seed": self._seed, "batch_size": self._batch_size, "windows": self.windows}

    def _batch(self, number: int) -> Batch:
        epoch, position = divmod(number, self.batches_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._seed, epoch]).permutation(self.windows)
        indices = self._order[1][position * self._batch_size : (position + 1) * self._batch_size]
        random = np.random.default_rng([self._seed, epoch, position])
        views = self._source.draw_views(random, len(indices))
        return self._source.gather(indices[self._mine], None if views is None else views[:, self._mine])

    def draw(self, random: np.random.Generator, count: int) -> Batch:
        """`count` windows, with replacement, in the view used at inference."""
        return self._source.gather(random.integers(0, self.windows, count))


def rank_slice(batch_size: int, rank: int, world_size: int) -> slice:
    """The slice of every batch that one process gets. Raises UserError if the batch cannot be split evenly."""
    if batch_size % world_size:
        raise UserError(f"batch_size={batch_size} cannot be split evenly among {world_size} processes.")
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)
