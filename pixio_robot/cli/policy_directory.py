"""Find the saved policy in a path given by the user."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pixio_robot.errors import UserError

BEST, TRIALS = "best", "trials"
"""Subdirectories with policies of earlier training steps: see training/best_checkpoints.py, training/trials.py."""


def policy_directory(checkpoint: str) -> Path:
    """The saved policy inside a training run, or the path itself if it is a saved policy."""
    path = Path(checkpoint)
    if not path.is_dir():
        raise UserError(f"There is no policy directory {path}; `pixio-robot train out={path}` creates it.")
    if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
        return path
    if (path / "model").is_dir():
        return path / "model"
    if (path / "checkpoints").is_dir():
        raise UserError(
            f"The training run in {path} is not finished: run the same `train` command again to continue it."
        )
    raise UserError(f"{path} contains no policy: neither config.json with model.safetensors, nor model/.")


def policy_name(checkpoint: str) -> str:
    """Name of a policy, derived from its path: `foo` for `policies/foo` and `policies/foo/model`; `foo-step_00001000`
    for the policy of a step kept in `best` or `trials`."""
    path = Path(checkpoint).resolve()
    path = path.parent if path.name == "model" else path
    return (
        f"{path.parents[1].name}-{path.name}"
        if path.parent.name in (BEST, TRIALS) and path.name.startswith("step_")
        else path.name
    )


def weights_fingerprint(directory: Path) -> str:
    """Hash of a policy's weights."""
    with (directory / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
