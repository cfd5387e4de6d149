"""Command-line entry point: `pixio-robot COMMAND key=value ...`.

All errors are formatted here. Heavy modules are imported only once the command is known.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from dataclasses import dataclass

from pixio_robot.cli.signals import INTERRUPTED, SignalInterrupt, signals_raise_interrupt
from pixio_robot.cli.stages.stage import remember_command
from pixio_robot.errors import UserError, printable, unknown_name
from pixio_robot.files import is_disk_full


@dataclass(frozen=True)
class Command:
    module: str
    """Module with a function `main(arguments: list[str]) -> int`."""
    summary: str


COMMANDS = {
    "doctor": Command("pixio_robot.cli.doctor", "check this machine: Python, torch, GPUs, rendering, simulators"),
    "quickstart": Command("pixio_robot.cli.quickstart", "run all stages below, from footage to report.html"),
    "collect": Command("pixio_robot.cli.collect", "record demonstrations of a scripted expert to a Zarr store"),
    "footage": Command("pixio_robot.cli.footage", "record egocentric video of expert and random motion"),
    "ingest": Command("pixio_robot.cli.ingest", "decode videos and images into shards of frames"),
    "curate": Command("pixio_robot.cli.curate", "score, filter, deduplicate and weight ingested frames"),
    "pretrain": Command("pixio_robot.cli.pretrain", "train a Pixio encoder on shards and demonstrations"),
    "distill": Command("pixio_robot.cli.distill", "distil a trained encoder into smaller ones"),
    "train": Command("pixio_robot.cli.train", "train a policy on demonstrations"),
    "evaluate": Command("pixio_robot.cli.evaluate", "evaluate a policy with rollouts in a simulator"),
    "probe": Command("pixio_robot.cli.probe", "evaluate an encoder with probes: depth, segmentation, positions"),
    "report": Command("pixio_robot.cli.report", "write a self-contained report.html of a run"),
    "serve": Command("pixio_robot.cli.serve", "serve a trained policy over a websocket, for clients without torch"),
    "weights": Command("pixio_robot.cli.weights", "convert, inspect and export encoder weights"),
    "data": Command("pixio_robot.cli.data.main", "demonstration stores: inspect, verify, edit, import, export"),
}

USAGE = """\
usage: pixio-robot COMMAND [key=value ...]

{commands}

`pixio-robot COMMAND --help` explains a command's settings; `--debug` anywhere shows tracebacks.
`experiment=NAME` applies the settings of configs/experiment/NAME; other keys override them."""


def usage() -> str:
    width = max(map(len, COMMANDS))
    return USAGE.format(commands="\n".join(f"  {name:<{width}}  {c.summary}" for name, c in COMMANDS.items()))


def dispatch(arguments: list[str]) -> int:
    """Run one command in this process, for scripts; returns 0, or the findings' code of `doctor` and `data verify`.

    Its exceptions propagate: UserError for a mistake in the arguments, KeyboardInterrupt if Ctrl-C ended it, even where
    it has saved its state.
    """
    code = run_command(arguments)
    if code == INTERRUPTED:
        raise SignalInterrupt(signal.SIGINT)
    return code


def run_command(arguments: list[str]) -> int:
    """Run one command in this process; returns its exit code."""
    name, *rest = arguments
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    remember_command(arguments)
    return importlib.import_module(COMMANDS[name].module).main(rest)


HELP = ("-h", "--help", "help")


def _asking_for_help(arguments: list[str]) -> list[str]:
    """Rewrite `help train` and `train help` as `train --help`; empty if no command is named."""
    if arguments and arguments[0] in HELP:
        rest = [word for word in arguments if word not in HELP]
        return [*rest, "--help"] if rest else []
    if arguments[1:2] == ["help"]:
        return [arguments[0], *arguments[2:], "--help"]
    return arguments


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    arguments = _asking_for_help(arguments)
    # Must be set before the first `import mujoco`; a value set by the user is kept.
    os.environ.setdefault("MUJOCO_GL", "egl")
    # Spinning torch threads made a policy call 8 times slower while simulators used the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        if not arguments:
            print(usage())
            return 0
        with signals_raise_interrupt():
            return run_command(arguments)
    except UserError as error:
        if debug:
            raise
        print(printable(f"pixio-robot: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt as end:
        if debug:
            raise
        end = end if isinstance(end, SignalInterrupt) else SignalInterrupt(signal.SIGINT)
        print(f"\npixio-robot: interrupted. {end.advice}", file=sys.stderr)
        return 128 + end.number
    except BrokenPipeError:
        # The reader closed the pipe (`pixio-robot ... | head`), which is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except BaseException as error:
        if debug or (sentence := _disk_error_message(error)) is None:
            raise
        print(f"pixio-robot: {sentence}", file=sys.stderr)
        return 2


def _disk_error_message(error: BaseException) -> str | None:
    """The message for a full disk or a missing permission; None for other errors."""
    if is_disk_full(error):
        return "The disk is full. Free some space and run the same command again."
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        return f"{error.strerror}: {error.filename}. Choose another folder or fix its permissions."
    return None


if __name__ == "__main__":
    sys.exit(main())
