"""`pixio-robot quickstart`: run the stages of an experiment in order, printing each as a command."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.cli.main import run_command
from pixio_robot.errors import UserError, unknown_name

HELP = """\
usage: pixio-robot quickstart [experiment=NAME] [run=DIR]

Runs the commands listed in configs/experiment/NAME/steps.yaml one after another. Each can also be run by
hand, and is skipped if its result already exists. The default experiment is `quickstart`; `quickstart_gpu` is
a larger one for a data-centre GPU."""
DEFAULT = "quickstart"


@dataclass(kw_only=True)
class Steps:
    """Contents of steps.yaml: `run` is the directory for all results."""

    run: str
    steps: list[str] = field(default_factory=list)


def load_steps(experiment: str, run: str | None) -> Steps:
    root = config_directory() / "experiment"
    path = root / experiment / "steps.yaml"
    if not path.is_file():
        raise unknown_name("experiment", experiment, (p.parent.name for p in root.glob("*/steps.yaml")))
    try:
        loaded = OmegaConf.merge(OmegaConf.structured(Steps), OmegaConf.load(path))
        if run is not None:
            loaded.run = run
        steps = OmegaConf.to_object(loaded)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error}") from error
    assert isinstance(steps, Steps)
    return steps


def main(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        print(HELP)
        return 0
    chosen: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in ("experiment", "run"):
            raise UserError(f"`quickstart` has no setting {argument!r}. Valid settings: experiment=NAME, run=DIR.")
        chosen[key] = value
    experiment = chosen.get("experiment") or DEFAULT
    steps = load_steps(experiment, chosen.get("run"))
    started = time.monotonic()
    for number, step in enumerate(steps.steps, start=1):
        command, *settings = shlex.split(step)
        words = [command, f"experiment={experiment}", f"run={steps.run}", *settings]
        print(f"\n[{number}/{len(steps.steps)}] pixio-robot {shlex.join(words)}", flush=True)
        code = run_command(words)
        if code:
            return code
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    report = Path(steps.run) / "report.html"
    print(f"\nDone in {minutes} min {seconds} s." + (f" Open {report.resolve()}" if report.is_file() else ""))
    return 0
