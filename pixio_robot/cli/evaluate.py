"""`pixio-robot evaluate`: evaluate a policy, its training checkpoints, or random actions in a simulator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import MISSING

from envs.config import EnvConfig
from envs.pool.process_worker import StartMethod
from envs.robomimic.task import ROBOMIMIC_PREFIX
from envs.spec import action_bounds, make_env_spec
from envs.tasks import THIRD_PARTY
from pixio_robot.cli.clipped_actions import clipped_actions_note
from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.evaluation_target import (
    RANDOM,
    EvaluationTarget,
    finished_policy,
    random_actions,
    training_checkpoints,
)
from pixio_robot.cli.fitting_settings import suggest_settings
from pixio_robot.cli.policy_directory import policy_directory, policy_name
from pixio_robot.cli.settings import StageSettings
from pixio_robot.cli.stages.stage import Stage, run_stage
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.name_mapping import NameMapping, NameMappingConfig, map_names
from pixio_robot.evaluation.results import EPISODES, EvaluationSummary, read_outcomes
from pixio_robot.evaluation.scenes import other_scene_note
from pixio_robot.evaluation.sequential import StopRule
from pixio_robot.observation_checks import check_task
from pixio_robot.progress import Progress
from pixio_robot.types import Actor, DemoSpec, EnvPool, EpisodeResult
from policies.acting import ActingConfig

ROBOMIMIC_HINT = (
    " A policy trained on imported robomimic data must be evaluated in its recording environment: "
    "env.task=robomimic:STORE, where STORE is the training store."
)


@dataclass(kw_only=True)
class EvaluateCommand(EvaluateConfig, ActingConfig, NameMappingConfig, StageSettings):
    """Closed-loop rollouts from fixed initial states: success rate with interval, episodes.jsonl, videos."""

    checkpoint: str = MISSING
    """Output directory of `train`, or `random` for uniformly random actions."""
    every_checkpoint: bool = False
    """Evaluate every kept training checkpoint on the same seeds; reports last, best, and mean of the last ten."""
    out: str = ""
    """Results directory; empty: `evaluations/NAME` in the run; NAME is the policy's directory name, or `random`."""
    record: str | None = None
    """Demonstration store to add every episode to, with all images; `data filter` can then keep the successful ones."""
    env: EnvConfig = field(default_factory=EnvConfig)
    executor: Executor = Executor.PROCESSES
    """Where the simulators run: processes on this machine, or the Ray cluster at RAY_ADDRESS. Same results."""
    start_method: StartMethod = StartMethod.SPAWN
    """How worker processes are started."""
    egl_devices: list[int] = field(default_factory=list)
    """GPUs to render on, as indices in EGL's device list (shown by `doctor`), assigned to workers in turn; empty: all
    GPUs that are available to both EGL and CUDA."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if available."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.out = self.out or str(Path(self.run) / "evaluations" / policy_name(self.checkpoint))
        if self.every_checkpoint and self.checkpoint == RANDOM:
            raise UserError("every_checkpoint=true needs a trained policy: checkpoint=random has no checkpoints.")
        if self.checkpoint == RANDOM and (mapping_words := self.to_arguments()):
            raise UserError(f"{mapping_words} only applies to policies: leave it out with checkpoint=random.")
        if self.every_checkpoint and self.stop.rule is not StopRule.NEVER:
            raise UserError("every_checkpoint=true compares checkpoints on the same episodes; leave out stop.rule.")
        if self.every_checkpoint and self.record is not None:
            raise UserError("record= keeps the episodes of one policy; leave out every_checkpoint=true.")


def _evaluation_targets(command: EvaluateCommand) -> list[EvaluationTarget]:
    name = Path(command.out).name
    if command.checkpoint == RANDOM:
        return [random_actions(name, action_bounds(command.env))]
    if command.every_checkpoint:
        return training_checkpoints(command.checkpoint, name)
    return [finished_policy(command.checkpoint, name)]


def _map_names(command: EvaluateCommand, target: EvaluationTarget, env_spec: DemoSpec) -> NameMapping:
    """Map the environment's observations to the policy's inputs. Raises UserError if they are incompatible."""
    from pixio_robot.evaluation.evaluate import check_spec

    spec = target.spec_for_task(command.task or env_spec.task)
    if spec is None:
        return NameMapping(env_spec, {}, None)
    if command.task and target.tasks:
        check_task(command.task, target.tasks, spec.task)
    names = map_names(spec, env_spec, command)
    hint = ""
    if spec.differences(names.spec):
        robomimic = any(name.startswith("robot0_") for name in spec.state_names)
        hint = suggest_settings(spec, command.env, command, target.tasks) + (ROBOMIMIC_HINT if robomimic else "")
    check_spec(spec, names.spec, hint)
    if unknown := sorted(set(spec.unknown_fields()) - set(env_spec.unknown_fields())):
        print(
            f"evaluate: the demonstrations do not specify {', '.join(unknown)}: assuming the same as in the environment"
        )
    if note := other_scene_note(spec, env_spec):
        print(f"evaluate: this is {note}", flush=True)
    if target.action_range and (note := clipped_actions_note(spec.action_names, *target.action_range, command.env)):
        print(f"evaluate: {note}", flush=True)
    return names


def _evaluate(command: EvaluateCommand) -> bool:
    from envs.pool.worker_pool import make_pool
    from envs.third_party.reproducibility import check_distinct_initial_states, is_reproducible, limitations
    from pixio_robot.evaluation.checkpoint_series import checkpoint_directory, series_text, write_series
    from pixio_robot.training.device import pick_device

    device = pick_device(command.device)
    targets = _evaluation_targets(command)
    env_spec = make_env_spec(command.env)
    # Checked before any simulator starts, so that an incompatible policy fails at once.
    names = _map_names(command, targets[0], env_spec)
    repeating = True
    if command.env.simulator in THIRD_PARTY:
        check_distinct_initial_states(command.env, command.seed_list())
        repeating = is_reproducible(command.env)
        for note in limitations(command.env, repeating):
            print(f"evaluate: {note}")
    actors = (target.make_actor(names.spec.task, command, command.num_slots, device) for target in targets)
    # The first is loaded before any simulator starts, so that damaged weights are told at once.
    actors = itertools.chain([next(actors)], actors)
    pool = make_pool(
        command.env,
        command.workers,
        command.num_slots,
        command.step_timeout_s,
        executor=command.executor,
        start_method=command.start_method,
        egl_devices=command.egl_devices,
    )
    out = Path(command.out)
    with pool:
        for target, (actor, acting) in zip(targets, actors, strict=True):
            step = target.policy.training_step
            directory = out if step is None else out / checkpoint_directory(step)
            who = replace(target.policy, acting=acting, sight=command.to_arguments())
            _evaluate_target(command, pool, replace(target, policy=who), names.actor(actor), directory, repeating)
    if command.every_checkpoint:
        print(f"evaluate: {targets[0].policy.label}: {series_text(write_series(out))}")
    return True


def _evaluate_target(
    command: EvaluateCommand, pool: EnvPool, target: EvaluationTarget, actor: Actor, directory: Path, repeating: bool
) -> None:
    from pixio_robot.evaluation.evaluate import evaluate

    successes = 0

    def resume(earlier: list[EpisodeResult]) -> None:
        nonlocal successes
        successes = sum(result.success for result in earlier)
        progress.resume(len(earlier))

    def count(result: EpisodeResult) -> None:
        nonlocal successes
        successes += result.success
        progress.advance(remark=f"{successes} succeeded")

    with Progress(f"evaluate {target.policy.label}", len(command.seed_list())) as progress:
        summary = evaluate(
            pool,
            actor,
            target.policy,
            command,
            directory,
            train_seeds=target.train_seeds,
            repeats=repeating,
            record=Path(command.record) if command.record else None,
            on_resume=resume,
            on_episode=count,
        )
    undone = sum(map(_was_undone, read_outcomes(directory, summary.seeds)))
    at = "" if summary.training_step is None else f" after {summary.training_step:,} steps"
    print(
        f"evaluate: {summary.label}{at}: {summary.successes} of {summary.episodes} succeeded "
        f"({summary.rate:.0%}, 95 % interval {summary.low:.0%} to {summary.high:.0%})"
        + (_reward_text(summary) if command.env.simulator in THIRD_PARTY else "")
        + (
            f"; {undone} more were solved, but no longer at their last step (first_success in {EPISODES})"
            * bool(undone)
        )
        + (f"; stopped early because {summary.stopped}" if summary.stopped else "")
        + (f"; {summary.restarts} episodes were repeated because a worker died" if summary.restarts else "")
        + f" -> {directory}",
        flush=True,
    )


def _was_undone(result: EpisodeResult) -> bool:
    """Whether the episode was solved before its end, but not at it. LeRobot counts that as a success."""
    return not result.success and result.first_success is not None


def _reward_text(summary: EvaluationSummary) -> str:
    """Rewards, for environments that may not report success."""
    return (
        f"; mean return {summary.mean_return:.4g}, "
        f"mean of each episode's highest reward {summary.mean_highest_reward:.4g}"
    )


def _run(command: EvaluateCommand) -> int:
    inputs = {} if command.checkpoint == RANDOM else {"checkpoint": str(policy_directory(command.checkpoint))}
    if command.env.task.startswith(ROBOMIMIC_PREFIX):
        inputs["env.task"] = command.env.task.removeprefix(ROBOMIMIC_PREFIX)
    if command.stop.rule is StopRule.VERSUS:
        inputs["stop.versus"] = str(Path(command.stop.versus or "") / EPISODES)
    stage = Stage(
        "evaluate",
        command.out,
        command,
        inputs,
        overwrite=command.overwrite,
        may_grow=("episodes",),
        grows_in_place=True,
    )
    return run_stage(stage, lambda: _evaluate(command))


def main(arguments: list[str]) -> int:
    return run_command_line("evaluate", EvaluateCommand, _run, arguments)
