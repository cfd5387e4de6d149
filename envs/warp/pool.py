"""An environment pool whose slots are the worlds of one MuJoCo Warp simulation, on a GPU if there is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from envs.config import EnvConfig
from envs.rendering.views import object_columns
from envs.spec import make_env_spec, max_episode_steps
from envs.tabletop.env import is_success
from envs.warp.worlds import WarpWorlds
from pixio_robot.errors import UserError
from pixio_robot.types import DemoSpec, Frame, StepResult


class WarpPool:
    """Implements `pixio_robot.types.EnvPool`: `num_slots` worlds in this process, stepped and rendered together.

    Slots are never lost. Images are rendered for all worlds, or for none if no slot needs them. A slot in an episode
    that receives no action keeps its state.
    """

    restarts = 0

    def __init__(self, config: EnvConfig, num_slots: int, device: str | None = None) -> None:
        """device: a Warp device name; None for the first GPU, or the CPU. Raises UserError if Warp is not installed."""
        if num_slots < 1:
            raise UserError(f"num_slots must be at least 1, not {num_slots}.")
        self.config = config
        self.spec = make_env_spec(config)
        self._horizon = max_episode_steps(config)
        self.num_slots = num_slots
        self._worlds: WarpWorlds | None = WarpWorlds(config, num_slots, device)
        self._steps = np.zeros(num_slots, int)
        self._running = np.zeros(num_slots, bool)

    @property
    def worker_pids(self) -> list[int]:
        return []

    @property
    def worlds(self) -> WarpWorlds:
        if self._worlds is None:
            raise RuntimeError("This pool is closed.")
        return self._worlds

    def slot(self, slot: int) -> WarpSlot:
        """The view of one slot that experts use."""
        return WarpSlot(self, slot)

    def reset(self, seeds: Mapping[int, int], render: Mapping[int, bool]) -> tuple[dict[int, Frame], set[int]]:
        self._check_slots(seeds)
        self.worlds.reset(seeds)
        slots = list(seeds)
        self._steps[slots], self._running[slots] = 0, True
        return self._frames(slots, render), set()

    def step(
        self, actions: Mapping[int, np.ndarray], render: Mapping[int, bool]
    ) -> tuple[dict[int, StepResult], set[int]]:
        self._check_slots(actions)
        slots, commands = list(actions), np.zeros((self.num_slots, self.spec.action_dim), np.float32)
        commands[slots] = self._stack_actions(actions)
        frozen = self._running.copy()
        frozen[slots] = False
        worlds = self.worlds
        worlds.step(commands, np.flatnonzero(frozen).tolist())
        self._steps[slots] += 1
        zeros = np.zeros_like(worlds.eef)
        cube, target = (worlds.body_pos.get(name, zeros) for name in ("cube", "target"))
        success = is_success(self.config.task, worlds.eef, cube, target)
        done = success | (self._steps >= self._horizon)
        self._running[slots] = ~done[slots]
        frames = self._frames(slots, render)
        results = {
            slot: StepResult(frames[slot], float(success[slot]), bool(success[slot]), bool(done[slot]))
            for slot in slots
        }
        return results, set()

    def _check_slots(self, payload: Mapping[int, object]) -> None:
        for slot in payload:
            if not 0 <= slot < self.num_slots:
                raise ValueError(f"Slot {slot} does not exist; slots are 0 to {self.num_slots - 1}.")

    def _stack_actions(self, actions: Mapping[int, np.ndarray]) -> np.ndarray:
        for slot, action in actions.items():
            if not self._running[slot]:
                raise ValueError(f"The episode of slot {slot} is over (or none was started): call reset first.")
            if np.shape(action) != (self.spec.action_dim,):
                raise ValueError(f"The action must have shape ({self.spec.action_dim},), not {np.shape(action)}.")
        stacked = np.array(list(actions.values()), np.float32).reshape(len(actions), self.spec.action_dim)
        if not np.isfinite(stacked).all():
            raise ValueError(f"The action is not finite: {stacked[~np.isfinite(stacked).all(1)][0]}.")
        return stacked

    def _frames(self, slots: list[int], render: Mapping[int, bool]) -> dict[int, Frame]:
        worlds = self.worlds
        state = np.concatenate([worlds.eef, worlds.fingers, *self._object_state()], axis=1)
        seen = [slot for slot in slots if render.get(slot, True)]
        rendered = worlds.render() if seen else {}
        images = {slot: {name: batch[slot] for name, batch in rendered.items()} for slot in seen}
        return {slot: Frame(images.get(slot, {}), state[slot].copy()) for slot in slots}

    def _object_state(self) -> list[np.ndarray]:
        """What `object_state` adds to the states of all worlds."""
        if not self.config.object_state:
            return []
        worlds, names = self.worlds, list(self.worlds.body_pos)
        poses = (np.stack([of[name] for name in names], axis=1) for of in (worlds.body_pos, worlds.body_mat))
        return [object_columns(*poses)]

    def close(self) -> None:
        """Free the worlds; may be called more than once."""
        self._worlds = None

    def __enter__(self) -> WarpPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclasses.dataclass
class WarpSlot:
    """One slot as seen by an expert: its configuration, DemoSpec and privileged poses."""

    pool: WarpPool
    index: int

    @property
    def config(self) -> EnvConfig:
        return self.pool.config

    @property
    def spec(self) -> DemoSpec:
        return self.pool.spec

    def privileged(self) -> dict[str, np.ndarray]:
        worlds, index = self.pool.worlds, self.index
        poses = {"eef_pos": worlds.eef[index], "eef_mat": worlds.eef_mat[index]}
        for name in worlds.body_pos:
            poses |= {f"{name}_pos": worlds.body_pos[name][index], f"{name}_mat": worlds.body_mat[name][index]}
        return {name: value.astype(np.float64) for name, value in poses.items()}
