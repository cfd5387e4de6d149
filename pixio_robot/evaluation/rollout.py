"""Closed-loop rollouts: an actor plays one episode per seed in the slots of an environment pool."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import check_distinct
from pixio_robot.observation_checks import check_actions
from pixio_robot.types import Actor, EnvPool, EpisodeResult, Frame, StepResult


class Watcher(Protocol):
    """Observes episodes while they are played: a frame, then an action and the resulting frame, and so on."""

    def begin(self, seed: int) -> bool:
        """Return whether to observe the episode with this seed; if so, all its images are rendered."""
        ...

    def on_frame(self, seed: int, frame: Frame) -> None: ...

    def on_action(self, seed: int, action: np.ndarray, reward: float) -> None: ...

    def discard(self, seed: int) -> None:
        """Discard an episode whose worker died or that was abandoned; after a worker's death it starts again."""
        ...

    def end(self, result: EpisodeResult) -> None:
        """The episode has ended. The watcher may record in the result which files it wrote."""
        ...


@dataclasses.dataclass
class _Running:
    """A running episode."""

    seed: int
    steps: int = 0
    episode_return: float = 0.0
    highest_reward: float = -math.inf
    success: bool = False
    first_success: int | None = None
    restarts: int = 0
    watchers: Sequence[Watcher] = ()

    def restarted(self) -> _Running:
        return _Running(self.seed, restarts=self.restarts + 1)


class _Rollout:
    """State of one `run_episodes` call."""

    def __init__(self, pool: EnvPool, actor: Actor, watchers: Sequence[Watcher], max_restarts: int) -> None:
        self.pool = pool
        self.actor = actor
        self.watchers = watchers
        self.max_restarts = max_restarts
        self.running: dict[int, _Running] = {}
        self.frames: dict[int, Frame] = {}

    def start(self, starting: Mapping[int, _Running]) -> None:
        """Reset each given slot to its episode, retrying slots whose worker died during the reset."""
        waiting = dict(starting)
        while waiting:
            for slot, episode in waiting.items():
                self.running[slot] = episode
                self.actor.reset(slot, episode.seed)
                episode.watchers = [watcher for watcher in self.watchers if watcher.begin(episode.seed)]
            needs_images = {slot: self.actor.needs_images(slot) for slot in waiting}
            render = self._render_flags(needs_images)
            seeds = {slot: episode.seed for slot, episode in waiting.items()}
            frames, lost = self.pool.reset(seeds, render)
            for slot, frame in frames.items():
                if slot not in lost:
                    self._observe(slot, frame, needs_images[slot])
            waiting = {slot: self._handle_lost_worker(slot) for slot in sorted(lost)}

    def step(self) -> tuple[dict[int, EpisodeResult], dict[int, _Running]]:
        """Take one control step in every running slot. Returns (episodes that ended, episodes to restart)."""
        actions = self.actor.act(self.frames)
        for slot in self.frames:
            self._check_action(slot, actions)
        needs_images = {slot: self.actor.needs_images(slot) for slot in actions}
        results, lost = self.pool.step(actions, self._render_flags(needs_images))
        ended = {}
        for slot in sorted(results):
            if slot not in lost:
                result = self._advance(slot, actions[slot], results[slot], needs_images[slot])
                if result is not None:
                    ended[slot] = result
        return ended, {slot: self._handle_lost_worker(slot) for slot in sorted(lost)}

    def _render_flags(self, needs_images: Mapping[int, bool]) -> dict[int, bool]:
        return {slot: wants or bool(self.running[slot].watchers) for slot, wants in needs_images.items()}

    def _observe(self, slot: int, frame: Frame, needs_images: bool) -> None:
        episode = self.running[slot]
        for watcher in episode.watchers:
            watcher.on_frame(episode.seed, frame)
        # Images rendered only for watchers are hidden from the actor, so watching cannot change the outcome.
        self.frames[slot] = frame if needs_images else Frame({}, frame.state)

    def _advance(self, slot: int, action: np.ndarray, result: StepResult, needs_images: bool) -> EpisodeResult | None:
        episode = self.running[slot]
        episode.steps += 1
        reward = float(result.reward)
        if not math.isfinite(reward):
            raise UserError(
                f"The environment's reward is {reward} at step {episode.steps} of the episode with seed "
                f"{episode.seed}, so the episode has no return: mend its reward, or leave this seed out with seeds=."
            )
        episode.episode_return += reward
        episode.highest_reward = max(reward, episode.highest_reward)
        # Judged at the last step, as in `collect`: MetaWorld continues after a success, which may be undone.
        episode.success = bool(result.success)
        if episode.success and episode.first_success is None:
            episode.first_success = episode.steps
        for watcher in episode.watchers:
            watcher.on_action(episode.seed, action, reward)
        self._observe(slot, result.frame, needs_images)
        if not result.done:
            return None
        del self.running[slot], self.frames[slot]
        ended = EpisodeResult(
            seed=episode.seed,
            success=episode.success,
            steps=episode.steps,
            episode_return=episode.episode_return,
            first_success=episode.first_success,
            restarts=episode.restarts,
            highest_reward=episode.highest_reward,
        )
        for watcher in episode.watchers:
            watcher.end(ended)
        return ended

    def _handle_lost_worker(self, slot: int) -> _Running:
        episode = self.running.pop(slot)
        self.frames.pop(slot, None)
        for watcher in episode.watchers:
            watcher.discard(episode.seed)
        if episode.restarts >= self.max_restarts:
            raise UserError(
                f"The simulator worker of the episode with seed {episode.seed} died {episode.restarts + 1} times "
                f"(max_restarts={self.max_restarts}). Use fewer workers if memory is short, "
                "or raise step_timeout_s if the machine is slow."
            )
        return episode.restarted()

    def abandon(self) -> None:
        """Abandon the running episodes."""
        for episode in self.running.values():
            for watcher in episode.watchers:
                watcher.discard(episode.seed)
        self.running.clear()
        self.frames.clear()

    def _check_action(self, slot: int, actions: Mapping[int, np.ndarray]) -> None:
        action, expected = np.asarray(actions[slot]), (self.pool.spec.action_dim,)
        episode = self.running[slot]
        where = f" at step {episode.steps} of the episode with seed {episode.seed}"
        if action.shape != expected:
            raise UserError(f"The policy returned an action of shape {action.shape}{where}, expected {expected}.")
        check_actions(action, where)


def run_episodes(
    pool: EnvPool,
    actor: Actor,
    seeds: Iterable[int],
    *,
    watchers: Sequence[Watcher] = (),
    on_episode: Callable[[EpisodeResult], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    max_restarts: int = 3,
) -> list[EpisodeResult]:
    """Play one episode per seed and return the results in the order of `seeds`.

    All running slots step in lockstep; when an episode ends, its slot takes the next seed. Which slot plays which seed
    therefore depends only on the lengths of the episodes, not on the speed or number of workers. An episode whose
    worker died restarts from its seed. `on_episode` is called with each result in order of completion, not in the order
    of `seeds`. An episode counts as a success if its last step is one. Once `should_stop()` returns True, no further
    steps are taken and only the episodes that have ended are returned.

    Raises UserError for seeds that are not distinct, for actions of the wrong shape, for actions and rewards that are
    not finite, and if the worker of an episode dies more than `max_restarts` times.
    """
    seeds = [operator.index(seed) for seed in seeds]
    check_distinct(seeds)
    rollout = _Rollout(pool, actor, watchers, max_restarts)
    waiting = deque(seeds)
    finished: dict[int, EpisodeResult] = {}
    rollout.start({slot: _Running(waiting.popleft()) for slot in range(min(pool.num_slots, len(waiting)))})
    while rollout.running:
        ended, starting = rollout.step()
        for slot, result in ended.items():
            finished[result.seed] = result
            if on_episode is not None:
                on_episode(result)
            if waiting:
                starting[slot] = _Running(waiting.popleft())
        if ended and should_stop():
            rollout.abandon()
        else:
            rollout.start(starting)
    return [finished[seed] for seed in seeds if seed in finished]
