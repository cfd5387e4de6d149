"""Endless shuffled batches of training windows, gathered by one thread while the model works.

Measured in docs/design.md: a thread that fills whole batches beats DataLoader workers several times, because
moving batches between processes costs more than reading them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pixio_robot.data.demos import DemoStore
from pixio_robot.data.features import FeatureCache
from pixio_robot.data.windows import Windows
from pixio_robot.errors import UserError
from pixio_robot.types import Batch, Features, Observation


class DemoBatches:
    """An infinite iterator of `Batch`; every epoch is a new permutation of all windows, the last short batch dropped.

    With `features`, `Observation.features` is filled in place of images. `state_dict` counts the batches that
    were handed out, so a loader restored from it continues with the very next one.
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
        prefetch: int = 2,
    ) -> None:
        self._store = store
        self._windows = Windows(store.lengths, observation_steps, horizon, episodes)
        self._cameras = list(cameras)
        # A store smaller than a batch still trains: the batch is as large as the data.
        self._batch_size = min(batch_size, len(self._windows))
        self._seed = seed
        self._features = features
        self._prefetch = prefetch
        self._consumed = 0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=prefetch)

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
        if self._thread is None:
            self._stop.clear()
            self._queue = queue.Queue(maxsize=self._prefetch)
            self._thread = threading.Thread(target=self._produce, args=(self._consumed,), daemon=True)
            self._thread.start()
        item = self._queue.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._consumed += 1
        return item

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
        if self._thread is not None:
            self._stop.set()
            while self._thread.is_alive():
                try:
                    self._queue.get(timeout=0.05)
                except queue.Empty:
                    continue
            self._thread = None

    def gather(self, indices: np.ndarray) -> Batch:
        """The windows of those numbers."""
        located = self._windows.locate(indices)
        rows = list(zip(located.episode.tolist(), located.frames, strict=True))
        actions = [
            self._store.actions(episode)[steps]
            for episode, steps in zip(located.episode.tolist(), located.actions, strict=True)
        ]
        state = np.stack([self._store.state(episode)[steps] for episode, steps in rows])
        images: dict[str, torch.Tensor] = {}
        features: dict[str, Features] = {}
        for camera in self._cameras:
            if self._features is None:
                images[camera] = torch.from_numpy(np.stack([self._frames(e, camera, steps) for e, steps in rows]))
            else:
                parts = [(self._features.features(e, camera), torch.from_numpy(steps)) for e, steps in rows]
                features[camera] = Features(
                    torch.stack([part.cls[steps] for part, steps in parts]),
                    torch.stack([part.patches[steps] for part, steps in parts]),
                )
        observation = Observation(images, torch.from_numpy(state), features)
        return Batch(observation, torch.from_numpy(np.stack(actions)), torch.from_numpy(located.is_pad))

    def _frames(self, episode: int, camera: str, steps: np.ndarray) -> np.ndarray:
        """The frames of a window lie side by side, but for the repeated first one."""
        first = int(steps[0])
        return self._store.images(episode, camera, first, int(steps[-1]) + 1)[steps - first]

    def _produce(self, start: int) -> None:
        try:
            epoch, order = -1, np.empty(0, np.int64)
            number = start
            while not self._stop.is_set():
                wanted, place = divmod(number, self.batches_per_epoch)
                if wanted != epoch:
                    epoch = wanted
                    order = np.random.default_rng([self._seed, epoch]).permutation(len(self._windows))
                batch = self.gather(order[place * self._batch_size : (place + 1) * self._batch_size])
                self._offer(batch)
                number += 1
        except BaseException as error:
            self._offer(error)

    def _offer(self, item: Batch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.05)
                return
            except queue.Full:
                continue
