"""The goal of each task as a vector: one-hot, or a precomputed embedding of its instruction."""

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
"""{task: vector}, all of the same length."""


def one_hot_goals(tasks: Sequence[str]) -> Goals:
    """One dimension per task; the linear layer that follows then is a learned task embedding."""
    return {task: np.eye(len(tasks))[index].tolist() for index, task in enumerate(tasks)}


def read_goals(path: str, tasks: Sequence[str]) -> Goals:
    """Read embeddings from a JSON file {task: [numbers]} or a safetensors file with one vector per task.

    Tasks in the file that are not in `tasks` are included: the policy may need them later. Raises UserError if the file
    is neither, vectors differ in length or have values that are not finite, or a task is missing.
    """
    vectors = {str(task): np.asarray(vector) for task, vector in _read_vectors(Path(path)).items()}
    for task, vector in vectors.items():
        if vector.ndim != 1 or not len(vector) or vector.dtype.kind not in "fiu" or not np.isfinite(vector).all():
            raise UserError(f"{path}: the goal of task {task!r} must be a list of finite numbers.")
    if len({len(vector) for vector in vectors.values()}) > 1:
        lengths = ", ".join(f"{task} {len(vector)}" for task, vector in vectors.items())
        raise UserError(f"{path}: all goals must have the same length, not {lengths}.")
    if lacking := [task for task in tasks if task not in vectors]:
        raise UserError(
            f"{path} has no numbers for {'the task' if len(lacking) == 1 else 'the tasks'} "
            f"{', '.join(map(repr, lacking))} of the demonstrations; it has {', '.join(map(repr, vectors)) or 'none'}."
        )
    return {task: vector.astype(np.float64).tolist() for task, vector in vectors.items()}


def _read_vectors(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"There is no goals file {path}.")
    if path.suffix == ".json":
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path} must be a JSON object with a list of numbers for each task.")
        return value
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is neither a .json file nor a readable safetensors file ({error}).") from error
