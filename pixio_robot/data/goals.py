"""What is wanted in each task, as numbers: one-hot, or embeddings of instructions that somebody computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pixio_robot.errors import UserError
from pixio_robot.files import read_json

Goals = dict[str, list[float]]
"""A task's name -> numbers, of the same length for all."""


def one_hot_goals(tasks: Sequence[str]) -> Goals:
    """Each task a dimension of its own; the linear map behind it then is a learned embedding of the task."""
    return {task: np.eye(len(tasks))[index].tolist() for index, task in enumerate(tasks)}


def read_goals(path: str, tasks: Sequence[str]) -> Goals:
    """The embeddings of all tasks in a JSON file {task: [numbers]}, or a safetensors file with a vector a task.

    Those of other tasks come along: the policy may be asked for them later. Raises UserError for a file that is
    neither, for vectors of different lengths or with a value that is not finite, and for a task that the file lacks.
    """
    found = {str(task): np.asarray(vector) for task, vector in _read(Path(path)).items()}
    for task, vector in found.items():
        if vector.ndim != 1 or not len(vector) or vector.dtype.kind not in "fiu" or not np.isfinite(vector).all():
            raise UserError(f"{path}: the goal of task {task!r} must be a list of finite numbers.")
    if len({len(vector) for vector in found.values()}) > 1:
        lengths = ", ".join(f"{task} {len(vector)}" for task, vector in found.items())
        raise UserError(f"{path}: the goals must have one length, not {lengths}.")
    if lacking := [task for task in tasks if task not in found]:
        raise UserError(
            f"{path} has no numbers for {'the task' if len(lacking) == 1 else 'the tasks'} "
            f"{', '.join(map(repr, lacking))} of the demonstrations; it has {', '.join(map(repr, found)) or 'none'}."
        )
    return {task: vector.astype(np.float64).tolist() for task, vector in found.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"There is no file of goals {path}.")
    if path.suffix == ".json":
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path} must be a JSON object of tasks, each with its list of numbers.")
        return value
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is neither a .json file nor a readable safetensors file ({error}).") from error
