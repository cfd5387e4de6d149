"""Keep the policies of a run with the best validation metric.

    RUN/best/step_00001000/     a saved policy, as it was validated
    RUN/best/ranking.json       the kept policies, best first, and all validations

The lowest of many losses is biased downwards: evaluate the selected policies on something else.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pixio_robot.files import read_json, remove_temporaries, write_json
from pixio_robot.training.distributed.processes import current_processes

DIRECTORY, RANKING = "best", "ranking.json"
KIND, FORMAT_VERSION = "best_by_validation", 1
METRICS = ("validation_action_error", "validation_loss")


@dataclasses.dataclass(frozen=True)
class _Validation:
    step: int
    value: float | None
    """None if it is not finite; such a policy is not kept."""


class BestCheckpoints:
    """A validation hook that keeps the policies with the `keep` lowest values of `metric`.

    Called with the current step on every process, like any hook. When a resumed run repeats steps, their earlier
    entries are discarded. If the repeated steps give the same values, as on a CPU, an interrupted run keeps the same
    policies as an uninterrupted one.
    """

    def __init__(
        self,
        run_dir: Path | str,
        keep: int,
        metric: str,
        validate: Callable[[int], Mapping[str, float]],
        save: Callable[[Path], None],
    ) -> None:
        self._directory = Path(run_dir) / DIRECTORY
        self._keep, self._metric, self._validate, self._save = keep, metric, validate, save
        ranking = self._directory / RANKING
        earlier = read_json(ranking)["looks"] if ranking.is_file() else []
        self._validations = [_Validation(**validation) for validation in earlier]

    def __call__(self, step: int) -> Mapping[str, float]:
        values = self._validate(step)
        value = values[self._metric]
        self._validations = [validation for validation in self._validations if validation.step < step]
        self._validations.append(_Validation(step, value if math.isfinite(value) else None))
        kept = self._steps_to_keep()
        if step in kept:
            self._save(self._checkpoint_path(step))
        if current_processes().is_main:
            self._write_ranking(kept)
        return values

    def _steps_to_keep(self) -> list[int]:
        """Steps to keep, best first; ties go to the later step, which has trained longer. Policies that were removed in
        favour of one that has since been discarded are gone; the first process determines which still exist."""
        current_step = self._validations[-1].step
        saved = [each.step for each in self._validations if self._checkpoint_path(each.step).is_dir()]
        existing = current_processes().all_gather(saved)[0]
        candidates = [
            each for each in self._validations if each.value is not None and each.step in {*existing, current_step}
        ]
        ranked = sorted(candidates, key=lambda validation: (validation.value, -validation.step))
        return [validation.step for validation in ranked[: self._keep]]

    def _checkpoint_path(self, step: int) -> Path:
        return self._directory / f"step_{step:08d}"

    def _write_ranking(self, kept: list[int]) -> None:
        write_json(
            self._directory / RANKING,
            {
                "kind": KIND,
                "format_version": FORMAT_VERSION,
                "measure": self._metric,
                "kept": kept,
                "looks": [dataclasses.asdict(validation) for validation in self._validations],
            },
        )
        remove_temporaries(self._directory)
        kept_paths = {self._checkpoint_path(step) for step in kept}
        for path in self._directory.glob("step_*"):
            if path not in kept_paths:
                shutil.rmtree(path)
