"""The policies of a run that did best on held-out episodes.

    RUN/best/step_00001000/     a saved policy, as it was validated
    RUN/best/ranking.json       those that are kept, best first, and of how many

The lowest of many losses is too low: what was chosen by it is to be judged by something else.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pixio_robot.errors import UserError
from pixio_robot.files import read_json, sweep_temporaries, write_json
from pixio_robot.training.distributed import current

DIRECTORY, RANKING = "best", "ranking.json"
KIND, FORMAT_VERSION = "best_by_validation", 1
MEASURES = ("validation_action_error", "validation_loss")


@dataclasses.dataclass(frozen=True)
class _Look:
    step: int
    value: float | None
    """None where it is not finite: such a policy is not kept."""


class Best:
    """A look at held-out episodes that keeps the policies of the `keep` lowest values of `measure`.

    Called with the step of the run, on every process, as a hook is. What a part of the run that was lost had kept is
    forgotten when its steps are trained again. Where these come to the same values, as they do on a CPU, an interrupted
    run keeps what an uninterrupted one does.
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
        """Steps, best first; of equal ones the later, which has learned more. Those that a part of the run pushed out
        which was lost since, with the look that was better, are gone: the first process says which are there."""
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
        raise UserError(f"{path} is no ranking of format_version {FORMAT_VERSION}; remove {path.parent} to begin anew.")
    if ranking["measure"] != measure:
        raise UserError(f"{path} ranks by {ranking['measure']}, not by {measure}; remove {path.parent} to begin anew.")
    return [_Look(**look) for look in ranking["looks"]]
