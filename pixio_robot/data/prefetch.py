"""Endless batches, each a function of its number, prefetched by one thread, which also pins them if this process uses a
GPU."""

from __future__ import annotations

import abc
import itertools
import os
import queue
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pixio_robot.errors import UserError
from pixio_robot.machine import pin_memory
from pixio_robot.types import Batch

BATCHES_AHEAD = 2


class PrefetchingIterator(abc.ABC):
    """An infinite iterator. `state_dict` counts the batches handed out, so that a restored iterator continues with
    exactly the next one. A subclass makes batch number n (`_batch`) and identifies its data (`_identity`, JSON values);
    a restored state must match that identity."""

    def __init__(self) -> None:
        self._consumed = 0
        self._producer: _Producer | None = None

    @abc.abstractmethod
    def _batch(self, number: int) -> Batch:
        """The batch with this number, counted from 0."""

    @abc.abstractmethod
    def _identity(self) -> dict[str, Any]: ...

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        # Threads do not survive a fork: the child starts its own.
        if self._producer is None or self._producer.pid != os.getpid():
            self._producer = _Producer(self, self._consumed)
        item = self._producer.take()
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._consumed += 1
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling: everything but the thread and its prefetched batches."""
        return self.__dict__ | {"_producer": None}

    def state_dict(self) -> dict[str, Any]:
        return {**self._identity(), "consumed": self._consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises UserError if the data are not the same."""
        for name, value in self._identity().items():
            if state[name] != value:
                raise UserError(f"The checkpoint was made with {name}={state[name]}, but now {name}={value}.")
        self.close()
        self._consumed = int(state["consumed"])

    @staticmethod
    def merge_states(states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """One state of those of all processes, which do not differ."""
        return states[0]

    def close(self) -> None:
        """Stop the thread; prefetched batches are dropped and will be prepared again."""
        if self._producer is not None and self._producer.pid == os.getpid():
            self._producer.stop()
        self._producer = None


class _Producer:
    """A thread that keeps some batches ready."""

    def __init__(self, batches: PrefetchingIterator, first: int) -> None:
        self.pid = os.getpid()
        self._free = threading.Semaphore(BATCHES_AHEAD)
        self._ready: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._stopped = False
        # The thread does not keep its batches alive: a stream that nobody holds any longer ends it.
        weakref.finalize(batches, self._end).atexit = False
        arguments = (weakref.ref(batches), first)
        self._thread = threading.Thread(target=self._run, args=arguments, name="demo batches", daemon=True)
        self._thread.start()

    def take(self) -> Batch | BaseException:
        item = self._ready.get()
        self._free.release()
        return item

    def stop(self) -> None:
        self._end()
        self._thread.join()

    def _end(self) -> None:
        self._stopped = True
        self._free.release()

    def _run(self, of: weakref.ref[PrefetchingIterator], first: int) -> None:
        try:
            for number in itertools.count(first):
                self._free.acquire()
                batches = of()
                if self._stopped or batches is None:
                    return
                self._ready.put(batches._batch(number).map(pin_memory))
                del batches
        except BaseException as error:
            self._ready.put(error)
