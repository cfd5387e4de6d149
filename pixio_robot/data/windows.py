"""Which frames and actions make up training sample number i: pure arithmetic on episode lengths.

A window belongs to one step t of one episode. It consists of frames t-observation_steps+1 .. t (before the start, the
first frame is repeated) and actions t .. t+horizon-1 (past the end, the last one is repeated: padding), as in diffusion
policy (Chi et al., IJRR). With `past_actions` = p, the actions start at t-p.

The loss ignores the padding, unless it is to be learned: then `max_padding` excludes the steps t near an episode's end
whose chunk would contain more of it than that. It also ignores the actions after an overridden step from t on
(`demos.overridden_steps`), which react to what nothing foretold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from pixio_robot.errors import UserError


@dataclasses.dataclass(frozen=True)
class WindowIndices:
    """b windows: episode (b,), frames (b, t), actions (b, horizon), ignored by the loss (b, horizon).

    first_row (b, 1): the row of the episode's first step, all episodes concatenated.
    """

    episode: np.ndarray
    first_row: np.ndarray
    frames: np.ndarray
    actions: np.ndarray
    ignored: np.ndarray


class Windows:
    """One window for every step of the chosen episodes, except those that `max_padding` excludes.

    max_padding: None ignores the padding, of which there may be any number then. overridden bool (steps of all
    episodes of `lengths`): which steps were overridden; None: none.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        observation_steps: int,
        horizon: int,
        episodes: Sequence[int] | None = None,
        past_actions: int = 0,
        max_padding: int | None = None,
        overridden: np.ndarray | None = None,
    ):
        if max_padding is not None and max_padding < 0:
            raise UserError(f"max_padding={max_padding} must not be negative.")
        if not 0 <= past_actions < max(horizon, 1):
            raise UserError(f"past_actions={past_actions} must lie in 0..{horizon - 1}, below the horizon.")
        if observation_steps < 1 or horizon < 1:
            raise UserError(f"observation_steps={observation_steps} and horizon={horizon} must be at least 1.")
        self.episodes = np.arange(len(lengths)) if episodes is None else check_episode_numbers(episodes, len(lengths))
        if not len(self.episodes):
            raise UserError("There are no episodes to take windows from.")
        self.observation_steps = observation_steps
        self.horizon = horizon
        self.past_actions = past_actions
        self._lengths = np.asarray(lengths, np.int64)
        self._learns_padding = max_padding is not None
        self._first_rows = np.cumsum(self._lengths) - self._lengths
        overridden = np.zeros(self._lengths.sum(), bool) if overridden is None else overridden
        # Overridden steps before each row of all episodes concatenated.
        self._overridden_before = np.cumsum(overridden) - overridden
        counts = chosen = self._lengths[self.episodes]
        if max_padding is not None:
            counts = np.clip(chosen - (horizon - 1 - past_actions) + max_padding, 0, chosen)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        if not self._ends[-1]:
            raise UserError(
                f"Chunks of {horizon} actions with at most {max_padding} repeated ones (policy.learn_padding) "
                f"do not fit into episodes of up to {chosen.max()} steps."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, indices: np.ndarray) -> WindowIndices:
        """The windows with the given numbers (b,). Raises IndexError unless all are in [0, len)."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"There are windows 0..{len(self) - 1}; {indices.min()}..{indices.max()} were requested.")
        index = np.searchsorted(self._ends, indices, side="right")
        episode = self.episodes[index]
        length = self._lengths[episode]
        step = indices - self._starts[index]
        frames = step[:, None] + np.arange(1 - self.observation_steps, 1)
        actions = step[:, None] + np.arange(self.horizon) - self.past_actions
        known = np.clip(actions, 0, length[:, None] - 1)
        ignored = np.zeros(actions.shape, bool) if self._learns_padding else known != actions
        first_row = self._first_rows[episode][:, None]
        ignored |= self._overridden_before[first_row + known] > self._overridden_before[first_row + step[:, None]]
        return WindowIndices(episode, first_row, np.maximum(frames, 0), known, ignored)


def check_episode_numbers(episodes: Iterable[int], count: int) -> np.ndarray:
    """Numbers int64 (e,) of episodes of a store that has `count`. Raises UserError unless they are different integers
    in [0, count)."""
    numbers = np.asarray(episodes if isinstance(episodes, np.ndarray) else list(episodes))
    if not numbers.size:
        return np.zeros(0, np.int64)
    if numbers.dtype == bool:
        raise UserError("episodes is a mask, but must be the episodes' numbers: np.flatnonzero(mask).")
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(f"episodes must be a list of whole numbers, not {numbers.dtype} of shape {numbers.shape}.")
    if numbers.min() < 0 or numbers.max() >= count:
        wrong = numbers[(numbers < 0) | (numbers >= count)][0]
        raise UserError(f"There is no episode {wrong}: the store has episodes 0..{count - 1}.")
    values, times = np.unique(numbers, return_counts=True)
    if len(values) < len(numbers):
        raise UserError(f"Episode {values[times > 1][0]} is chosen more than once.")
    return numbers.astype(np.int64)


def split_episodes(
    count: int, validation_share: float, seed: int, learned: Collection[int] = ()
) -> tuple[list[int], list[int]]:
    """Disjoint training and validation episodes; with at least two episodes and a share above 0, neither is empty.

    Episodes in `learned` (trained on before) are never held out, even if that leaves fewer than the share, or none.
    """
    if not 0 <= validation_share < 1:
        raise UserError(f"validation_share={validation_share} must lie in [0, 1).")
    order = np.random.default_rng(seed).permutation(count).tolist()
    size = round(count * validation_share)
    if validation_share > 0:
        size = max(size, 1)
    size = max(min(size, count - 1), 0)
    held_out = [episode for episode in order if episode not in learned][:size]
    return sorted(set(order) - set(held_out)), sorted(held_out)
