"""`pixio-robot data ACTION ...`: demonstration stores, looked at, checked, edited, imported and exported."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from pixio_robot.errors import unknown_name


@dataclass(frozen=True)
class Action:
    module: str
    """A module of pixio_robot.cli."""
    function: str
    """Takes list[str], returns an exit code."""
    usage: str
    summary: str


FORMATS = "LeRobot, robomimic, diffusion_policy, or folders of npz and mp4"
IMPORTED = f"ALOHA, {FORMATS}"
OWN_HELP = ("import", "export")
"""Actions that list the settings of every format."""

ACTIONS = {
    "inspect": Action("data_look", "inspect", "PATH [html=FILE]", "episodes, lengths, cameras, ranges; a page with it"),
    "view": Action("data_look", "view", "PATH [episode=N] [save=FILE.rrd]", "stream an episode to rerun"),
    "verify": Action("data_check", "verify", "PATH [actions=LOW..HIGH]", "read and check everything; exit code 1"),
    "migrate": Action("data_check", "migrate", "PATH", "bring a store of an older version up to date"),
    "merge": Action("data_edit", "merge", "PATH PATH ... out=PATH [twins=drop]", "all episodes in one store"),
    "split": Action(
        "data_edit",
        "split",
        "PATH out=DIR [validation_share= seed=] [by=task]",
        "DIR/train, DIR/validation; or one a task",
    ),
    "filter": Action("data_edit", "filter", "PATH out=PATH where='success and length<90'", "the episodes that fit"),
    "subsample": Action("data_edit", "subsample", "PATH out=PATH [episodes=N] [stride=K actions=HOW]", "less of it"),
    "rename": Action(
        "data_edit",
        "rename",
        "PATH out=PATH [OLD=NEW ...] [action_names=a,b,... state_names= robot= controller= task=]",
        "other names for cameras, columns, robot, controller, task",
    ),
    "resize": Action("data_edit", "resize", "PATH out=PATH size=PIXELS [cameras=a,b]", "images of another size"),
    "actions": Action(
        "data_edit",
        "actions",
        "PATH out=PATH [to=delta|absolute] [rotation=axis_angle|quat|rot6d|...]",
        "poses said in another way",
    ),
    "pack": Action(
        "data_edit", "pack", "PATH out=PATH [codec=zstd|jpegxl|jpeg|raw]", "an archive, or an archive unpacked"
    ),
    "replay": Action(
        "data_replay", "replay", "FILE.hdf5 [demos=N] [tolerance_mm=]", "do robomimic's actions reproduce it?"
    ),
    "import": Action("data_interop", "import_demos", "SRC out=PATH [format=NAME ...]", f"from {IMPORTED}"),
    "export": Action("data_interop", "export_demos", "PATH out=PATH format=NAME [...]", f"to {FORMATS}"),
}


def usage() -> str:
    rows = [(f"pixio-robot data {name} {action.usage}", action.summary) for name, action in ACTIONS.items()]
    lines = "\n".join(f"  {words}\n      {summary}" for words, summary in rows)
    return (
        f"usage:\n{lines}\n\nEdits write a new store, which appears whole or not at all, and leave their sources alone."
    )


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = arguments
    if name not in ACTIONS:
        raise unknown_name("`data` action", name, ACTIONS)
    action = ACTIONS[name]
    if ("-h" in rest or "--help" in rest) and name not in OWN_HELP:
        print(f"usage: pixio-robot data {name} {action.usage}\n{action.summary}")
        return 0
    return getattr(importlib.import_module(f"pixio_robot.cli.{action.module}"), action.function)(rest)
