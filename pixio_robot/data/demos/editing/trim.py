"""Cutting the pauses with which episodes begin and end."""

from __future__ import annotations

import dataclasses
from typing import Any

from pixio_robot.data.demos.editing.rewrite import Edit
from pixio_robot.data.demos.overridden_steps import cut_overridden_steps
from pixio_robot.data.demos.pauses import PauseFinder
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.verify import TIMESTAMPS
from pixio_robot.errors import UserError
from pixio_robot.types import Episode


def trim_pauses(store: DemoStore, *, end: bool, keep_s: float) -> Edit:
    """Cut the pause at the start of every episode but for its last `keep_s` seconds; with `end`, also that at the end
    but for its first. An episode in which nothing moves stays whole. Raises UserError if there is nothing to cut."""
    if keep_s < 0:
        raise UserError(f"keep_s={keep_s:g} must not be negative.")
    finder, keep = PauseFinder(store), round(keep_s * store.spec.control_hz)

    def bounds(state: Any, actions: Any) -> tuple[int, int]:
        pauses, length = finder.find(state, actions), len(actions)
        if pauses.total == length:
            return 0, length
        return max(0, pauses.start - keep), length - (max(0, pauses.end - keep) if end else 0)

    def change(episode: Episode) -> Episode:
        return _cut(episode, *bounds(episode.state, episode.actions))

    kept = [bounds(store.state(number), store.actions(number)) for number in range(len(store))]
    before, after = int(store.lengths.sum()), sum(last - first for first, last in kept)
    if before == after:
        raise UserError(f"No episode of {store.path} begins {'or ends ' * end}with a pause of more than {keep_s:g} s.")
    shortened = sum(last - first < length for (first, last), length in zip(kept, store.lengths, strict=True))
    notes = (f"cut {before - after} of {before} steps from {shortened} of {len(store)} episodes",)
    return Edit(store.spec, change, notes)


def _cut(episode: Episode, first: int, last: int) -> Episode:
    """The steps from `first` up to but excluding `last`."""
    info = {**episode.info, **cut_overridden_steps(episode.info, len(episode), first, last)}
    if isinstance(times := info.get(TIMESTAMPS), list):
        info[TIMESTAMPS] = times[first:last]
    return dataclasses.replace(
        episode,
        images={camera: frames[first:last] for camera, frames in episode.images.items()},
        state=episode.state[first:last],
        actions=episode.actions[first:last],
        rewards=episode.rewards[first:last],
        info=info,
    )
