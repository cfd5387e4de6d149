"""`pixio-robot data replay PATH`: check that the actions of a robomimic file reproduce its recorded states."""

from __future__ import annotations

from dataclasses import dataclass

from pixio_robot.cli.arguments import parse_one_path
from pixio_robot.fields import check_fields, number


@dataclass(kw_only=True)
class ReplaySettings:
    """demos: number of demonstrations to replay; 0: all. mask: replay only those of this filter key. tolerance_mm:
    largest allowed distance between the replayed and the recorded gripper at any step; a file recorded with the
    installed robosuite is reproduced exactly. actions: name of the action dataset; actions_abs are absolute poses.
    absolute: the actions are absolute poses although env_args say deltas, as in diffusion_policy's image_abs.hdf5."""

    demos: int = number(0, at_least=0)
    mask: str = ""
    tolerance_mm: float = number(5.0, at_least=0)
    actions: str = "actions"
    absolute: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


def replay(arguments: list[str]) -> int:
    """Replay demonstrations; returns exit code 1 if one deviates by more than the tolerance."""
    from envs.robomimic.replay import Replay
    from pixio_robot.interop.hdf5 import read_dataset
    from pixio_robot.interop.robomimic.env_metadata import ABSOLUTE_ACTIONS
    from pixio_robot.interop.robomimic.hdf5_file import RobomimicFile
    from pixio_robot.interop.robomimic.observations import get_model_file

    path, config = parse_one_path("data replay", arguments, ReplaySettings)
    with RobomimicFile(path) as file:
        demos = file.chosen(config.mask)[: config.demos or None]
        models = [get_model_file(file, demo) for demo in demos]
        simulation = Replay(file.env_args, config.absolute or config.actions == ABSOLUTE_ACTIONS)
        if simulation.task.unsupported_keywords:
            print(f"ignored, unknown to the installed robosuite: {', '.join(simulation.task.unsupported_keywords)}")
        strayed = worst_mm = solved = 0
        try:
            for demo, model in zip(demos, models, strict=True):
                group = file.demo(demo)
                file.length(demo)
                states, actions = (read_dataset(group, key, file.path) for key in ("states", config.actions))
                error = simulation.run(model, states, actions)
                hand_mm = 1000 * error.hand_m
                # Written so that NaN counts as a deviation.
                away = not hand_mm <= config.tolerance_mm
                strayed, worst_mm, solved = strayed + away, max(worst_mm, hand_mm), solved + error.success
                print(
                    f"{demo}: {error.steps} steps, gripper off by at most {hand_mm:.3g} mm, joints {error.position:.3g}"
                    f"{f' ({error.joint})' if error.joint else ''}, "
                    f"{'exact' if error.first_step is None else f'differs from step {error.first_step} on'}; "
                    f"{'solved' if error.success else 'not solved'} at the end"
                    + (f"  <- more than {config.tolerance_mm:g} mm" if away else ""),
                    flush=True,
                )
        finally:
            simulation.close()
    print(
        f"{path}: {len(demos)} demonstrations, {solved} solved, {strayed} deviated by more than "
        f"{config.tolerance_mm:g} mm, the worst by {worst_mm:.3g} mm"
    )
    return 1 if strayed else 0
