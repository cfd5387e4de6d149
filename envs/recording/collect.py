"""Collects demonstrations of a scripted expert in a Zarr store, which does not depend on the number of processes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

from envs.config import Engine, EnvConfig
from envs.experts.disturbance import Disturbance
from envs.experts.registry import make_expert
from envs.pool.parallel_map import ordered_map
from envs.recording.episodes import record_seed
from envs.recording.takeovers import Takeovers
from envs.simulator_imports import load_mujoco
from envs.spec import make_env_spec
from pixio_robot.data.demos.spec_differences import describe_other_version
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number
from pixio_robot.files import read_json, write_json
from pixio_robot.json_values import to_json_value
from pixio_robot.progress import Progress
from pixio_robot.types import DemoSpec, Episode

JOURNAL_FILE = "collect.json"


@dataclasses.dataclass(kw_only=True)
class CollectConfig:
    """Which expert episodes to record, and where. A store of the same configuration with fewer episodes is
    continued."""

    out: str = "demos"
    """Directory of the Zarr store."""
    episodes: int = number(100, at_least=1)
    """Number of episodes to keep: the first successful ones, with seeds counted up from `first_seed`. With a larger
    number the same command adds to its finished store."""
    first_seed: int = number(0, at_least=0)
    """Seed of the first episode; each further episode uses the next seed."""
    noise: float = number(0.1, at_least=0, at_most=1)
    """Standard deviation of Gaussian noise added to the executed action, except the gripper's dimension (action range
    -1 to 1). The expert's own action is recorded, so the data shows how to recover from small errors (DART, Laskey et
    al. 2017)."""
    mistakes: float = number(0.0, at_least=0, at_most=1)
    """Probability per step that the arm drifts off for 4 to 10 steps; in half of these cases the gripper opens too. The
    expert's own action is recorded."""
    success_only: bool = True
    """Discard failed episodes."""
    max_failures: int = number(20, at_least=1)
    """Stop with an error after this many failures in a row."""
    workers: int = number(0, at_least=0)
    """Number of simulator processes; 0: one per core."""
    timeout_s: float = number(600.0, above=0)
    """Seconds without a finished episode after which its simulator is considered dead and replaced."""
    worlds: int = number(64, at_least=1)
    """Number of worlds simulated at once with env.engine=warp."""
    overwrite: bool = False
    """Replace the store at `out` if it was created by pixio-robot."""

    def __post_init__(self) -> None:
        if not self.out:
            raise UserError("out must name the directory of the store.")
        check_fields(self)

    @property
    def disturbance(self) -> Disturbance:
        return Disturbance(noise=self.noise, mistakes=self.mistakes)


@dataclasses.dataclass(kw_only=True)
class CollectReport:
    """The content of the store."""

    out: str
    kept: int
    failed: int
    seeds: list[int]
    failed_seeds: list[int]
    spec: DemoSpec


def collect(env_config: EnvConfig, config: CollectConfig, takeovers: Takeovers | None = None) -> CollectReport:
    """Record expert episodes until `config.episodes` are kept; `takeovers`: in which a policy takes over at times.

    Raises UserError if the store belongs to another configuration or the expert fails too often. If killed or
    interrupted, the store contains complete episodes only, and calling it again continues with the next seed.
    """
    make_expert(env_config)  # fails for a task without an expert before anything is created
    out = Path(config.out)
    settings = _content_settings(env_config, config, takeovers)
    # `source` describes how the data was made; policies are not checked against it.
    env_spec = make_env_spec(env_config)
    overridden = f", takeovers {takeovers.probability} of policy {takeovers.fingerprint}" if takeovers else ""
    spec = dataclasses.replace(env_spec, source=f"scripted expert, {config.disturbance}{overridden}; {env_spec.source}")
    store, failed = _open_store(out, spec, settings, config.overwrite)
    if len(store) and (note := describe_other_version(str(out), store.spec, spec)):
        print(f"collect: {note}")
    next_seed = max([config.first_seed - 1, *store.seeds, *failed]) + 1
    with (
        Progress(f"collect {env_config.task}", config.episodes, done=len(store)) as progress,
        contextlib.closing(_episodes(env_config, config, takeovers, next_seed)) as episodes,
    ):
        consecutive_failures = 0
        while (kept := len(store)) < config.episodes:
            seed, episode = next(episodes)
            if episode.success or not config.success_only:
                if store.append(episode) != kept:
                    raise UserError(f"Another process is also writing to {out}: stop one of them.")
                consecutive_failures = 0
                progress.advance(remark=f"{len(failed)} failed" if failed else "")
                continue
            # Written before the next append, so that resuming knows all failures before the last kept seed.
            failed.append(seed)
            write_json(out / JOURNAL_FILE, settings | {"failed_seeds": failed})
            consecutive_failures += 1
            if consecutive_failures >= config.max_failures:
                others = f", mistakes ({config.mistakes})" if config.mistakes else ""
                others += f", takeovers ({takeovers.probability})" if takeovers else ""
                raise UserError(
                    f"The expert failed {consecutive_failures} episodes in a row (seeds up to {seed}) with "
                    f"{kept} of {config.episodes} kept in {out}. Lower noise ({config.noise}){others} or "
                    f"env.start_spread ({env_config.start_spread}), or raise env.horizon."
                )
    return CollectReport(
        out=str(out), kept=len(store), failed=len(failed), seeds=store.seeds, failed_seeds=failed, spec=store.spec
    )


def _episodes(
    env_config: EnvConfig, config: CollectConfig, takeovers: Takeovers | None, first_seed: int
) -> Generator[tuple[int, Episode], None, None]:
    """An endless sequence of (seed, episode), in order of the seeds, starting at `first_seed`."""
    seeds = itertools.count(first_seed)
    if env_config.engine is Engine.WARP:
        load_mujoco()
        from envs.warp.episodes import warp_episodes

        return warp_episodes(env_config, config.disturbance, seeds, config.worlds)
    run = functools.partial(record_seed, env_config, config.disturbance, takeovers)
    return ordered_map(run, seeds, config.workers, config.timeout_s)


def _content_settings(env_config: EnvConfig, config: CollectConfig, takeovers: Takeovers | None) -> dict[str, Any]:
    """The settings that determine the content of the store; `episodes` may grow, workers and worlds do not matter."""
    settings = {name: getattr(config, name) for name in ("first_seed", "noise", "mistakes", "success_only")}
    policy = {"policy": takeovers.fingerprint, "takeovers": takeovers.probability} if takeovers else {"policy": None}
    return {"env": to_json_value(env_config), "collect": settings | policy}


def _open_store(out: Path, spec: DemoSpec, journal: dict[str, Any], overwrite: bool) -> tuple[DemoStore, list[int]]:
    if out.is_dir() and overwrite:
        if any(out.iterdir()) and not (out / JOURNAL_FILE).exists():
            raise UserError(f"{out} was not created by collect: remove it yourself, or choose another out=.")
        shutil.rmtree(out)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    if not out.exists():
        DemoStore.create(out, spec)
    if not (out / JOURNAL_FILE).exists():
        store = DemoStore.open(out)
        # An empty store was interrupted right after its creation.
        if len(store):
            raise UserError(f"{out} contains demonstrations that were not made by collect: choose another out=.")
        write_json(out / JOURNAL_FILE, journal | {"failed_seeds": []})
        return store, []
    recorded = read_json(out / JOURNAL_FILE)
    failed = recorded.pop("failed_seeds", [])
    for part, settings in journal.items():
        for name, value in settings.items():
            before = recorded.get(part, {}).get(name)
            if before != value:
                setting = f"env.{name}" if part == "env" else name
                raise UserError(
                    f"{out} was collected with {setting}={before!r}, not {value!r}: choose another out=, "
                    "or set overwrite=true to start over."
                )
    return DemoStore.open(out), failed
