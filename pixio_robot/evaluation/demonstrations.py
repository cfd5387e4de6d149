"""Rollouts kept as demonstrations: whole episodes of a policy in a store that `train` and `data` open."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixio_robot.data.demos import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import EvaluatedPolicy
from pixio_robot.types import DemoSpec, Episode, EpisodeResult, Frame


@dataclasses.dataclass
class _Steps:
    frames: list[Frame] = dataclasses.field(default_factory=list)
    actions: list[np.ndarray] = dataclasses.field(default_factory=list)
    rewards: list[float] = dataclasses.field(default_factory=list)


class DemoRecorder:
    """Appends every episode, failures too, to a store; a `rollout.Watcher`.

    An episode that the store holds is not added again, so an interrupted evaluation may be continued. Every image of
    every step is rendered, which costs what a policy that seldom looks would have saved.
    """

    def __init__(self, directory: Path, spec: DemoSpec, policy: EvaluatedPolicy) -> None:
        """Raises UserError when `directory` is something else than a store of this environment and this policy."""
        source = f"rollouts of {policy.label} ({policy.policy}); {spec.source}"
        self._directory, self._spec = directory, dataclasses.replace(spec, source=source)
        self._info = {
            "policy": policy.policy,
            "label": policy.label,
            "fingerprint": policy.fingerprint,
            "acting": policy.acting,
            "sight": policy.sight,
        }
        # A new store waits for its first episode: an evaluation that is refused leaves none behind.
        self._store = self._opened() if directory.exists() else None
        self._have = set(() if self._store is None else self._store.seeds)
        self._running: dict[int, _Steps] = {}
        if self._store is not None:
            self._refuse_others(self._store, policy)

    def _refuse_others(self, store: DemoStore, policy: EvaluatedPolicy) -> None:
        for number in range(len(store)):
            info = store.info(number)
            theirs = info.get("fingerprint"), info.get("acting", policy.acting), info.get("sight", "")
            if theirs != (policy.fingerprint, policy.acting, policy.sight):
                raise UserError(
                    f"record={store.path} holds episodes that are not of this policy seeing and acting so, such as "
                    f"that of seed {store.seeds[number]}; record into another directory, and `pixio-robot data merge` "
                    "the two."
                )

    def _opened(self) -> DemoStore:
        return DemoStore.create(self._directory, self._spec, exist_ok=True)

    def lacks(self, seeds: Iterable[int]) -> list[int]:
        """Those whose episodes are not in the store."""
        return [seed for seed in seeds if seed not in self._have]

    def begin(self, seed: int) -> bool:
        if seed in self._have:
            return False
        self._running[seed] = _Steps()
        return True

    def see(self, seed: int, frame: Frame) -> None:
        self._running[seed].frames.append(frame)

    def act(self, seed: int, action: np.ndarray, reward: float) -> None:
        steps = self._running[seed]
        steps.actions.append(np.asarray(action, np.float32))
        steps.rewards.append(reward)

    def discard(self, seed: int) -> None:
        del self._running[seed]

    def end(self, result: EpisodeResult) -> None:
        steps = self._running.pop(result.seed)
        # What the last action led to was seen by nobody: a demonstration is what was seen before each action.
        frames = steps.frames[: len(steps.actions)]
        if self._store is None:
            self._store = self._opened()
        self._store.append(
            Episode(
                images={name: np.stack([frame.images[name] for frame in frames]) for name in self._spec.cameras},
                state=np.stack([frame.state for frame in frames]).astype(np.float32),
                actions=np.stack(steps.actions),
                rewards=np.array(steps.rewards, np.float32),
                success=result.success,
                seed=result.seed,
                info=self._info,
            )
        )
        self._have.add(result.seed)
