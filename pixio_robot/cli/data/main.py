"""`pixio-robot data ACTION ...`: inspect, check, edit, import and export demonstration stores."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from pixio_robot.errors import unknown_name


@dataclass(frozen=True)
class Action:
    module: str
    """A module of pixio_robot.cli.data."""
    function: str
    """Takes list[str], returns an exit code."""
    usage: str
    summary: str


FORMATS = "LeRobot, robomimic, diffusion_policy, or folders of npz and mp4"
IMPORTED = f"ALOHA, CortexBench, LIBERO, ManiSkill, {FORMATS}"
ACTIONS_WITH_OWN_HELP = ("import", "export")
"""Actions that print their own help, with the settings of every format."""

ACTIONS = {
    "inspect": Action(
        "inspect",
        "inspect",
        "PATH [html=FILE]",
        "summarise episodes, lengths, cameras and ranges; html= writes a page",
    ),
    "view": Action("inspect", "view", "PATH [episode=N] [save=FILE.rrd]", "stream an episode to rerun"),
    "verify": Action(
        "verify", "verify", "PATH [actions=LOW..HIGH]", "read and check all data; exit code 1 if there are problems"
    ),
    "migrate": Action("verify", "migrate", "PATH", "upgrade a store from an older version of the format"),
    "merge": Action("edit", "merge", "PATH PATH ... out=PATH [twins=drop]", "combine the episodes of several stores"),
    "split": Action(
        "edit",
        "split",
        "PATH out=DIR [validation_share= seed=] [by=task]",
        "write DIR/train and DIR/validation; by=task: one store per task",
    ),
    "filter": Action(
        "edit", "filter", "PATH out=PATH where='success and length<90'", "keep the episodes that match a condition"
    ),
    "subsample": Action(
        "edit",
        "subsample",
        "PATH out=PATH [episodes=N] [stride=K actions=HOW]",
        "keep N random episodes, every K-th step, or both",
    ),
    "trim": Action(
        "edit",
        "trim",
        "PATH out=PATH [keep_s=0] [end=true]",
        "cut the pauses with which episodes begin (end=true: also those at their ends)",
    ),
    "rename": Action(
        "edit",
        "rename",
        "PATH out=PATH [OLD=NEW ...] [action_names=a,b,... state_names= robot= controller= task=]",
        "rename cameras, columns, robot, controller or task",
    ),
    "resize": Action("edit", "resize", "PATH out=PATH size=PIXELS [cameras=a,b]", "resize images"),
    "actions": Action(
        "edit",
        "actions",
        "PATH out=PATH [to=delta|absolute] [rotation=axis_angle|quat|rot6d|...]",
        "convert actions between absolute and delta poses, or between rotation forms",
    ),
    "pack": Action(
        "edit",
        "pack",
        "PATH out=PATH [codec=zstd|jpegxl|jpeg|raw]",
        "change the image codec: compress a store, or decompress it (raw)",
    ),
    "replay": Action(
        "replay",
        "replay",
        "FILE.hdf5 [demos=N] [tolerance_mm=]",
        "check that replaying robomimic's actions reproduces the states",
    ),
    "import": Action("import_export", "import_demos", "SRC out=PATH [format=NAME ...]", f"import from {IMPORTED}"),
    "export": Action("import_export", "export_demos", "PATH out=PATH format=NAME [...]", f"export to {FORMATS}"),
}


def usage() -> str:
    rows = [(f"pixio-robot data {name} {action.usage}", action.summary) for name, action in ACTIONS.items()]
    lines = "\n".join(f"  {words}\n      {summary}" for words, summary in rows)
    return f"usage:\n{lines}\n\nEdits never change their sources: they write a new store, complete or not at all."


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, *rest = arguments
    if name not in ACTIONS:
        raise unknown_name("`data` action", name, ACTIONS)
    action = ACTIONS[name]
    if ("-h" in rest or "--help" in rest) and name not in ACTIONS_WITH_OWN_HELP:
        print(f"usage: pixio-robot data {name} {action.usage}\n{action.summary}")
        return 0
    return getattr(importlib.import_module(f"pixio_robot.cli.data.{action.module}"), action.function)(rest)
