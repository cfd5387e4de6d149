"""Endless shuffled batches of training windows, gathered by one thread while the model works.

Measured in docs/design.md: a thread that fills whole batches beats DataLoader workers several times, because
moving batches between processes costs more than reading them.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pixio_robot.data.demos import DemoStore
from pixio_robot.data.features import FeatureCache
from pixio_robot.data.windows import Located, Windows
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import Batch, Features, Observation


class DemoBatches:
    """An infinite iterator of `Batch`; every epoch is a new permutation of all windows, the last short batch dropped.

    With `features`, `Observation.features` is filled in place of images; with `random_views` as well, each window is
    shown in one of their random views, drawn anew in every epoch, and otherwise as when acting. `state_dict` counts
    the batches that were handed out, so a loader restored from it continues with the very next one.
    """

    def __init__(
        self,
        store: DemoStore,
        *,
        observation_steps: int,
        horizon: int,
        cameras: Sequence[str],
        batch_size: int,
        seed: int,
        episodes: Sequence[int] | None = None,
        features: FeatureCache | None = None,
        random_views: bool = False,
        prefetch: int = 2,
    ) -> None:
        if batch_size < 1 or prefetch < 1:
            raise UserError(f"batch_size={batch_size} and prefetch={prefetch} must be at least 1.")
        for camera in cameras:
            if camera not in store.spec.cameras:
                raise unknown_name("camera", camera, store.spec.cameras)
        if random_views and (features is None or features.views == 0):
            raise UserError("random_views=True needs features that are cached in several views.")
        lengths = store.lengths
        self._store = store
        self._windows = Windows(lengths, observation_steps, horizon, episodes)
        self._cameras = list(cameras)
        # A store smaller than a batch still trains: the batch is as large as the data.
        self._batch_size = min(batch_size, len(self._windows))
        self._seed = seed
        self._features = features
        self._random_views = random_views
        # Of all episodes one after the other, so that a batch is one look-up; episode e starts at row starts[e].
        self._starts = np.cumsum(lengths) - lengths
        self._state = np.concatenate([store.state(episode) for episode in range(len(lengths))])
        self._actions = np.concatenate([store.actions(episode) for episode in range(len(lengths))])
        self._order: tuple[int, np.ndarray] | None = None
        self._prefetch = prefetch
        self._consumed = 0
        self._producer: _Producer | None = None

    @property
    def windows(self) -> int:
        """How many windows there are; `gather` takes their numbers."""
        return len(self._windows)

    @property
    def batches_per_epoch(self) -> int:
        return len(self._windows) // self._batch_size

    def __iter__(self) -> DemoBatches:
        return self

    def __next__(self) -> Batch:
        # Threads do not survive a fork: the child gathers with one of its own.
        if self._producer is None or self._producer.pid != os.getpid():
            self._producer = _Producer(self, self._consumed, self._prefetch)
        item = self._producer.take()
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._consumed += 1
        return item

    def __enter__(self) -> DemoBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """For another process: everything but the thread and what it gathered ahead."""
        return self.__dict__ | {"_producer": None}

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "batch_size": self._batch_size,
            "windows": len(self._windows),
            "consumed": self._consumed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises UserError when the data are not the same."""
        mine = self.state_dict()
        for name in ("seed", "batch_size", "windows"):
            if state[name] != mine[name]:
                raise UserError(f"The checkpoint was made with {name} {state[name]}, and there are {mine[name]} now.")
        self.close()
        self._consumed = int(state["consumed"])

    def close(self) -> None:
        """Stop the thread; batches gathered ahead are dropped and will be gathered again."""
        if self._producer is not None and self._producer.pid == os.getpid():
            self._producer.stop()
        self._producer = None

    def _batch(self, number: int) -> Batch:
        """The one that comes after `number` others."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._seed, epoch]).permutation(len(self._windows))
        indices = self._order[1][place * self._batch_size : (place + 1) * self._batch_size]
        if not self._random_views or self._features is None:
            return self.gather(indices)
        random = np.random.default_rng([self._seed, epoch, place])
        return self.gather(indices, random.integers(1, self._features.views + 1, (len(self._cameras), len(indices))))

    def gather(self, indices: np.ndarray, views: np.ndarray | None = None) -> Batch:
        """The windows of those numbers (b,); views (cameras, b) of cached features, all 0 without."""
        located = self._windows.locate(indices)
        starts_b1 = self._starts[located.episode][:, None]
        images: dict[str, torch.Tensor] = {}
        features: dict[str, Features] = {}
        for number, camera in enumerate(self._cameras):
            if self._features is None:
                images[camera] = torch.from_numpy(self._images(camera, located))
            else:
                shown = None if views is None else views[number]
                features[camera] = self._features.gather(camera, located.episode, located.frames, shown)
        state = torch.from_numpy(self._state[starts_b1 + located.frames])
        actions = torch.from_numpy(self._actions[starts_b1 + located.actions])
        return Batch(Observation(images, state, features), actions, torch.from_numpy(located.is_pad))

    def _images(self, camera: str, located: Located) -> np.ndarray:
        """uint8 (b, t, h, w, 3). The frames of a window lie side by side, but for the repeated first one."""
        size = self._store.spec.cameras[camera]
        images = np.empty((*located.frames.shape, size.height, size.width, 3), np.uint8)
        firsts, stops = located.frames[:, 0].tolist(), (located.frames[:, -1] + 1).tolist()
        for window, episode, first, stop in zip(images, located.episode.tolist(), firsts, stops, strict=True):
            repeated = len(window) - (stop - first)
            self._store.images_into(episode, camera, first, window[repeated:])
            if repeated:
                window[:repeated] = window[repeated]
        return images


class _Producer:
    """A thread that keeps `ahead` batches ready."""

    def __init__(self, batches: DemoBatches, first: int, ahead: int) -> None:
        self.pid = os.getpid()
        self._free = threading.Semaphore(ahead)
        self._ready: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, args=(batches, first), name="demo batches", daemon=True)
        self._thread.start()

    def take(self) -> Batch | BaseException:
        item = self._ready.get()
        self._free.release()
        return item

    def stop(self) -> None:
        self._stopped = True
        self._free.release()
        self._thread.join()

    def _run(self, batches: DemoBatches, first: int) -> None:
        try:
            for number in itertools.count(first):
                self._free.acquire()
                if self._stopped:
                    return
                self._ready.put(batches._batch(number))
        except BaseException as error:
            self._ready.put(error)
