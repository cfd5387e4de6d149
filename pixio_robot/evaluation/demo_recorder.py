"""Record rollouts as demonstrations: whole episodes in a store that `train` and `data` can open."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pixio_robot.data.demos.spec_differences import describe_other_version
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.evaluation.results import EvaluatedPolicy
from pixio_robot.types import DemoSpec, Episode, EpisodeResult, Frame


@dataclasses.dataclass
class _Steps:
    frames: list[Frame] = dataclasses.field(default_factory=list)
    actions: list[np.ndarray] = dataclasses.field(default_factory=list)
    rewards: list[float] = dataclasses.field(default_factory=list)


class DemoRecorder:
    """Append every episode, including failures, to a demonstration store; a `rollout.Watcher`.

    Episodes already in the store are not added again, so an interrupted evaluation can be continued. All images of
    every step are rendered, which is slower for policies that do not need an image at every step.
    """

    def __init__(self, directory: Path, spec: DemoSpec, policy: EvaluatedPolicy) -> None:
        """Raises UserError if `directory` is not a store of episodes of this environment and this policy."""
        source = f"rollouts of {policy.label} ({policy.policy}); {spec.source}"
        self._directory, self._spec = directory, dataclasses.replace(spec, source=source)
        self._info = {
            "policy": policy.policy,
            "label": policy.label,
            "fingerprint": policy.fingerprint,
            "acting": policy.acting,
            "sight": policy.sight,
        }
        # A new store is created with its first episode, so that a rejected evaluation leaves none behind.
        self._store = self._create_store() if directory.exists() else None
        self._recorded_seeds = set(() if self._store is None else self._store.seeds)
        self._running: dict[int, _Steps] = {}
        if self._store is not None:
            self._check_same_policy(self._store, policy)

    def _check_same_policy(self, store: DemoStore, policy: EvaluatedPolicy) -> None:
        for number in range(len(store)):
            info = store.info(number)
            recorded = info.get("fingerprint"), info.get("acting"), info.get("sight")
            if recorded != (policy.fingerprint, policy.acting, policy.sight):
                raise UserError(
                    f"record={store.path} holds episodes of another policy, or recorded with other settings for how it "
                    f"sees and acts, for example seed {store.seeds[number]}; record into another directory and combine "
                    "the two with `pixio-robot data merge`."
                )

    def _create_store(self) -> DemoStore:
        return DemoStore.create(self._directory, self._spec, exist_ok=True)

    def missing_seeds(self, seeds: Iterable[int]) -> list[int]:
        """The seeds whose episodes are not in the store."""
        return [seed for seed in seeds if seed not in self._recorded_seeds]

    def describe_other_version(self) -> str:
        """Note on earlier episodes of another version of the simulator; empty if there are none."""
        if self._store is None or not len(self._store):
            return ""
        return describe_other_version(str(self._store.path), self._store.spec, self._spec)

    def begin(self, seed: int) -> bool:
        if seed in self._recorded_seeds:
            return False
        self._running[seed] = _Steps()
        return True

    def on_frame(self, seed: int, frame: Frame) -> None:
        self._running[seed].frames.append(frame)

    def on_action(self, seed: int, action: np.ndarray, reward: float) -> None:
        steps = self._running[seed]
        steps.actions.append(np.asarray(action, np.float32))
        steps.rewards.append(reward)

    def discard(self, seed: int) -> None:
        del self._running[seed]

    def end(self, result: EpisodeResult) -> None:
        steps = self._running.pop(result.seed)
        # The frame after the last action is dropped: a demonstration has one observation before each action.
        frames = steps.frames[: len(steps.actions)]
        if self._store is None:
            self._store = self._create_store()
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
        self._recorded_seeds.add(result.seed)
