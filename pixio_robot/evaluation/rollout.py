"""Closing the loop: an actor plays one episode per seed in the slots of an environment pool."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.evaluation.recorder import EpisodeRecorder
from pixio_robot.evaluation.sequential import StopConfig
from pixio_robot.types import Actor, EnvPool, EpisodeResult, Frame, StepResult


@dataclasses.dataclass(kw_only=True)
class EvaluateConfig:
    """How a policy is evaluated. The defaults hold every result apart from the training seeds."""

    episodes: int = 100
    """Number of episodes; a 95 % interval on a rate near one half is +-10 points wide at 100."""
    first_seed: int = 100_000
    """Episode i starts from seed `first_seed + i`; demonstrations must not use these seeds."""
    num_slots: int = 8
    """Episodes in flight at once. It sets the actor's batch, and nothing about the outcome."""
    workers: int = 0
    """Simulator processes; 0 means one per core, and never more than `num_slots`."""
    videos: int = 6
    """Episodes to keep as mp4: the first successes and the first failures, half of each."""
    video_camera: str = "front"
    step_timeout_s: float = 60.0
    """Seconds after which a silent worker counts as dead."""
    max_restarts: int = 3
    """How often one episode may lose its worker before the evaluation gives up."""
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    """When to end before the last episode."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("first_seed", 0), ("num_slots", 1), ("workers", 0), ("videos", 0)):
            if getattr(self, name) < least:
                raise UserError(f"evaluate.{name} is {getattr(self, name)}, it must be at least {least}.")
        if self.step_timeout_s <= 0:
            raise UserError(f"evaluate.step_timeout_s is {self.step_timeout_s}, it must be above 0 seconds.")
        if self.max_restarts < 0:
            raise UserError(f"evaluate.max_restarts is {self.max_restarts}, it must be at least 0.")

    def seeds(self) -> list[int]:
        return list(range(self.first_seed, self.first_seed + self.episodes))


def check_disjoint(train_seeds: Iterable[int], eval_seeds: Iterable[int]) -> None:
    """Raise UserError when an evaluation seed is also a demonstration's: that would test memory."""
    shared = sorted(set(train_seeds) & set(eval_seeds))
    if shared:
        shown = ", ".join(map(str, shared[:5])) + (", ..." if len(shared) > 5 else "")
        raise UserError(
            f"{len(shared)} evaluation seeds were already used to collect demonstrations ({shown}). "
            "Set evaluate.first_seed beyond the demonstrations' seeds."
        )


@dataclasses.dataclass
class _Running:
    """An episode in flight."""

    seed: int
    steps: int = 0
    episode_return: float = 0.0
    success: bool = False
    restarts: int = 0
    recorded: bool = False

    def again(self) -> _Running:
        return _Running(self.seed, restarts=self.restarts + 1)


class _Rollout:
    """The bookkeeping of one `run_episodes` call."""

    def __init__(self, pool: EnvPool, actor: Actor, recorder: EpisodeRecorder | None, max_restarts: int) -> None:
        self.pool = pool
        self.actor = actor
        self.recorder = recorder
        self.max_restarts = max_restarts
        self.running: dict[int, _Running] = {}
        self.frames: dict[int, Frame] = {}

    def start(self, starting: Mapping[int, _Running]) -> None:
        """Reset every slot given to its episode; slots lost while resetting are tried again."""
        waiting = dict(starting)
        while waiting:
            for slot, episode in waiting.items():
                self.running[slot] = episode
                self.actor.reset(slot, episode.seed)
                episode.recorded = self.recorder is not None and self.recorder.begin(episode.seed)
            wanted = {slot: self.actor.needs_images(slot) for slot in waiting}
            render = self._render(wanted)
            seeds = {slot: episode.seed for slot, episode in waiting.items()}
            frames, lost = self.pool.reset(seeds, render)
            for slot, frame in frames.items():
                if slot not in lost:
                    self._see(slot, frame, wanted[slot])
            waiting = {slot: self._lose(slot) for slot in sorted(lost)}

    def step(self) -> tuple[dict[int, EpisodeResult], dict[int, _Running]]:
        """One control step in every running slot: (episodes that ended, episodes to run again)."""
        actions = self.actor.act(self.frames)
        for slot in self.frames:
            self._check_action(slot, actions)
        wanted = {slot: self.actor.needs_images(slot) for slot in actions}
        results, lost = self.pool.step(actions, self._render(wanted))
        ended = {}
        for slot in sorted(results):
            if slot not in lost:
                result = self._advance(slot, results[slot], wanted[slot])
                if result is not None:
                    ended[slot] = result
        return ended, {slot: self._lose(slot) for slot in sorted(lost)}

    def _render(self, wanted: Mapping[int, bool]) -> dict[int, bool]:
        return {slot: wants or self.running[slot].recorded for slot, wants in wanted.items()}

    def _see(self, slot: int, frame: Frame, wanted: bool) -> None:
        episode = self.running[slot]
        if episode.recorded and self.recorder is not None:
            self.recorder.add(episode.seed, frame)
        # Images that only the recorder asked for are withheld, so filming cannot change the outcome.
        self.frames[slot] = frame if wanted else Frame({}, frame.state)

    def _advance(self, slot: int, result: StepResult, wanted: bool) -> EpisodeResult | None:
        episode = self.running[slot]
        episode.steps += 1
        episode.episode_return += float(result.reward)
        episode.success |= bool(result.success)
        self._see(slot, result.frame, wanted)
        if not result.done:
            return None
        del self.running[slot], self.frames[slot]
        ended = EpisodeResult(
            seed=episode.seed,
            success=episode.success,
            steps=episode.steps,
            episode_return=episode.episode_return,
            restarts=episode.restarts,
        )
        if episode.recorded and self.recorder is not None:
            ended.video = self.recorder.end(episode.seed, ended.success)
        return ended

    def _lose(self, slot: int) -> _Running:
        episode = self.running.pop(slot)
        self.frames.pop(slot, None)
        if episode.recorded and self.recorder is not None:
            self.recorder.discard(episode.seed)
        if episode.restarts >= self.max_restarts:
            raise UserError(
                f"The episode of seed {episode.seed} lost its simulator worker {episode.restarts + 1} times "
                f"(evaluate.max_restarts={self.max_restarts}). Use fewer evaluate.workers if memory is short, "
                "or raise evaluate.step_timeout_s if the machine is slow."
            )
        return episode.again()

    def abandon(self) -> None:
        """Leave the running episodes unfinished."""
        for episode in self.running.values():
            if episode.recorded and self.recorder is not None:
                self.recorder.discard(episode.seed)
        self.running.clear()
        self.frames.clear()

    def _check_action(self, slot: int, actions: Mapping[int, np.ndarray]) -> None:
        action, expected = np.asarray(actions[slot]), (self.pool.spec.action_dim,)
        episode = self.running[slot]
        where = f"at step {episode.steps} of the episode of seed {episode.seed}"
        if action.shape != expected:
            raise UserError(f"The policy gave an action of shape {action.shape} {where}, expected {expected}.")
        if not np.isfinite(action).all():
            raise UserError(f"The policy gave a non-finite action {where}: its training has probably diverged.")


def run_episodes(
    pool: EnvPool,
    actor: Actor,
    seeds: Sequence[int],
    *,
    recorder: EpisodeRecorder | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    enough: Callable[[], bool] = lambda: False,
    max_restarts: int = 3,
) -> list[EpisodeResult]:
    """Play one episode per seed and return the results in the order of `seeds`.

    All running slots step together; a slot whose episode ended takes the next seed. Which slot plays
    which seed therefore follows from the episodes' lengths alone, never from the speed or number of
    workers. An episode whose worker died is run again from its seed. `on_episode` sees each result
    as it ends, which is not the order of `seeds`. An episode succeeds if any of its steps does. Once `enough`
    says so the rest is not played, and the results are those of the episodes that had ended.

    Raises UserError on duplicated seeds, on actions of the wrong shape or not finite, and when one
    episode loses its worker more than `max_restarts` times.
    """
    repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1}) if len(set(seeds)) < len(seeds) else []
    if repeated:
        raise UserError(f"Evaluation seeds must differ from one another; given more than once: {repeated[:5]}.")
    rollout = _Rollout(pool, actor, recorder, max_restarts)
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
        if ended and enough():
            rollout.abandon()
        else:
            rollout.start(starting)
    return [finished[seed] for seed in seeds if seed in finished]
