"""Records expert episodes in a MuJoCo Warp simulation, in many worlds at once."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from envs.config import EnvConfig
from envs.experts.disturbance import Disturbance
from envs.recording.episodes import ExpertEpisodeRecorder
from envs.warp.pool import WarpPool
from pixio_robot.types import Episode


def warp_episodes(
    config: EnvConfig, disturbance: Disturbance, seeds: Iterable[int], worlds: int
) -> Generator[tuple[int, Episode], None, None]:
    """Yield (seed, episode) in the order of `seeds`, which may be endless; close it to stop.

    A world whose episode has ended starts the next seed immediately. Episodes that end before that of an earlier seed
    wait for it, so at most a few times `worlds` episodes are held in memory.
    """
    source = enumerate(seeds)
    with WarpPool(config, worlds) as pool:
        recorders: dict[int, tuple[int, int, ExpertEpisodeRecorder]] = {}
        ended: dict[int, tuple[int, Episode]] = {}
        due = 0

        def fill() -> None:
            starting = {}
            for slot in range(worlds):
                if slot not in recorders and slot not in starting and (following := next(source, None)):
                    starting[slot] = following
            if starting:
                frames, _ = pool.reset({slot: seed for slot, (_, seed) in starting.items()}, {})
                for slot, (number, seed) in starting.items():
                    recorders[slot] = (
                        number,
                        seed,
                        ExpertEpisodeRecorder(pool.slot(slot), seed, frames[slot], disturbance),
                    )

        fill()
        while recorders:
            results, _ = pool.step({slot: recorder.act() for slot, (_, _, recorder) in recorders.items()}, {})
            for slot, result in results.items():
                number, seed, recorder = recorders[slot]
                recorder.add(result)
                if result.done:
                    ended[number] = (seed, recorder.episode())
                    del recorders[slot]
            while due in ended:
                yield ended.pop(due)
                due += 1
            fill()
