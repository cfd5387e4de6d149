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

from pixio_robot.errors import UserError
from pixio_robot.files import read_json, sweep_temporaries, write_json
from pixio_robot.training.distributed.processes import current

DIRECTORY, RANKING = "best", "ranking.json"
KIND, FORMAT_VERSION = "best_by_validation", 1
MEASURES = ("validation_action_error", "validation_loss")


@dataclasses.dataclass(frozen=True)
class _Look:
    step: int
    value: float | None
    """None if it is not finite; such a policy is not kept."""


class Best:
    """A validation hook that keeps the policies with the `keep` lowest values of `measure`.

    Called with the current step on every process, like any hook. When a resumed run repeats steps, their earlier
    entries are discarded. If the repeated steps give the same values, as on a CPU, an interrupted run keeps the same
    policies as an uninterrupted one.
    """

    def __init__(
        self,
        run_dir: Path | str,
        keep: int,
        measure: str,
        look: Callable[[int], Mapping[str, float]],
        save: Callable[[Path], None],
    ) -> None:
        self._directory = Path(run_dir) / DIRECTORY
        self._keep, self._measure, self._look, self._save = keep, measure, look, save
        self._looks = _read(self._directory / RANKING, measure)

    def __call__(self, step: int) -> Mapping[str, float]:
        values = self._look(step)
        value = values[self._measure]
        self._looks = [look for look in self._looks if look.step < step]
        self._looks.append(_Look(step, value if math.isfinite(value) else None))
        kept = self._kept()
        if step in kept:
            self._save(self._place(step))
        if current().first:
            self._write(kept)
        return values

    def _kept(self) -> list[int]:
        """Steps to keep, best first; ties go to the later step, which has trained longer. Policies that were removed in
        favour of one that has since been discarded are gone; the first process determines which still exist."""
        now = self._looks[-1].step
        there = current().gather([look.step for look in self._looks if self._place(look.step).is_dir()])[0]
        found = [look for look in self._looks if look.value is not None and look.step in {*there, now}]
        ranked = sorted(found, key=lambda look: (look.value, -look.step))
        return [look.step for look in ranked[: self._keep]]

    def _place(self, step: int) -> Path:
        return self._directory / f"step_{step:08d}"

    def _write(self, kept: list[int]) -> None:
        write_json(
            self._directory / RANKING,
            {
                "kind": KIND,
                "format_version": FORMAT_VERSION,
                "measure": self._measure,
                "kept": kept,
                "looks": [dataclasses.asdict(look) for look in self._looks],
            },
        )
        sweep_temporaries(self._directory)
        places = {self._place(step) for step in kept}
        for path in self._directory.glob("step_*"):
            if path not in places:
                shutil.rmtree(path)


def _read(path: Path, measure: str) -> list[_Look]:
    if not path.is_file():
        return []
    ranking = read_json(path)
    if not isinstance(ranking, dict) or ranking.get("kind") != KIND or ranking.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path} is no ranking of format_version {FORMAT_VERSION}; remove {path.parent} to start over.")
    if ranking["measure"] != measure:
        raise UserError(f"{path} ranks by {ranking['measure']}, not by {measure}; remove {path.parent} to start over.")
    return [_Look(**look) for look in ranking["looks"]]
