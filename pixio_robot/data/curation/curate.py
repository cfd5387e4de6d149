"""Score every frame, select frames, and write the report: everything that `pixio-robot curate` does.

out/
  scores/            one column per score (`columns`)
  sidecars/          Pixio's JSON, one file per shard (`sidecars`)
  selection.json ... the selection for pretraining (`selection`)
  curation.html      histograms and pictures for setting the thresholds (`report`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixio_robot.data.curation.pixel_scores import pixel_column
from pixio_robot.data.curation.report import Scores, write_report
from pixio_robot.data.curation.score_columns import ScoreColumn, Workers, compute_column, data_digest
from pixio_robot.data.curation.selection import ACCEPTANCE, REASONS, SELECTION, write_selection
from pixio_robot.data.curation.sidecars import read_losses, write_sidecars
from pixio_robot.data.curation.thresholds import RULES, Thresholds, judge
from pixio_robot.data.images.shards import FrameShards
from pixio_robot.data.jobs.executor import Executor
from pixio_robot.errors import UserError
from pixio_robot.fields import number
from pixio_robot.files import read_json, write_json

MAE_LOSS, EMBEDDING = "mae_loss", "embedding"
"""Names of the columns computed by models: float32 (n,), and float16 (n, d) of unit length."""
REPORT = "curation.html"


@dataclasses.dataclass(kw_only=True)
class CurateConfig(Thresholds):
    data: str = ""
    """Folder of frame shards. Its training split is curated; the folder itself is not changed."""
    out: str | None = None
    """Output folder; null: `<data>.curation`, beside the shards."""
    sidecars: str | None = None
    """Folder of sidecars to read `mae_loss` from instead of computing it."""
    executor: Executor = Executor.PROCESSES
    workers: int = number(0, at_least=0)
    """Number of scoring processes; 0: one per core, with Ray one per core of the cluster."""
    timeout_s: float = number(300.0, above=0)
    """A worker that makes no progress for this many seconds is abandoned."""

    def output_directory(self) -> Path:
        """The output folder."""
        if self.out is not None:
            return Path(self.out)
        data = Path(self.data).absolute()
        return data.with_name(f"{data.name}.curation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurateReport:
    """What `out` contains now; `changed` is false if it was already up to date."""

    out: Path
    changed: bool
    frames: int
    kept: int
    expected_epoch_frames: float
    dropped: dict[str, int]


def curate(config: CurateConfig, models: Sequence[ScoreColumn] = (), *, device: str = "cpu") -> CurateReport:
    """Bring `config.output_directory()` up to date. If interrupted, the next call continues. Do not run
    two calls at once.

    `models`: columns named MAE_LOSS and EMBEDDING, or fewer. `device`: where to search for near-duplicates.
    Raises UserError if there are no shards, sidecars do not match, or workers failed.
    """
    if not config.data:
        raise UserError("data is empty; give a folder of frame shards, as written by `pixio-robot ingest`.")
    shards = FrameShards.open(config.data)
    out = config.output_directory()
    if out.resolve().is_relative_to(shards.path.resolve()):
        raise UserError(f"out={str(out)!r} lies within the shards, which are never changed; choose another.")
    workers = Workers(executor=config.executor, workers=config.workers, timeout_s=config.timeout_s)
    by_name = {column.name: column for column in models}
    if config.sidecars is not None and MAE_LOSS in by_name:
        raise UserError("Both the Pixio checkpoint and the sidecars provide mae_loss; give only one of them.")
    settings = config.values() | {
        "rules": RULES,
        "scores": {column.name: dict(column.settings) for column in (pixel_column(), *models)},
        "sidecars": config.sidecars,
    }
    columns = {
        column.name: compute_column(column, shards, out / "scores", workers) for column in (pixel_column(), *models)
    }
    losses = columns.get(MAE_LOSS)
    if config.sidecars is not None:
        losses = read_losses(Path(config.sidecars), shards)
    # Sidecars may be changed by others without notice; reading them was most of the work anyway.
    changed = config.sidecars is not None or not _up_to_date(out, settings, shards)
    if changed:
        records = shards.reader.records
        verdict = judge(config, columns["pixels"], records, columns.get(EMBEDDING), device)
        _update_sidecars(out, shards, settings, columns["pixels"], losses)
        scores = Scores(pixels=columns["pixels"], losses=losses, verdict=verdict)
        # The selection goes last: its presence means that everything else is complete.
        write_report(out / REPORT, shards, config, scores)
        write_selection(out, shards, settings, verdict.reasons, losses)
    shards.close()
    info = read_json(out / SELECTION)
    return CurateReport(
        out=out,
        changed=changed,
        frames=info["frames"],
        kept=info["kept"],
        expected_epoch_frames=info["expected_epoch_frames"],
        dropped=info["dropped"],
    )


def _update_sidecars(
    out: Path, shards: FrameShards, settings: Mapping[str, Any], pixels: np.ndarray, losses: np.ndarray | None
) -> None:
    """Write the sidecars unless they contain these scores already: other thresholds do not change them."""
    scores = {name: of for name, of in settings["scores"].items() if name != EMBEDDING}
    contain, note = {"data": data_digest(shards), "scores": scores}, out / "scores" / "sidecars.json"
    names = [(out / "sidecars" / name).with_suffix(".json") for name in shards.reader.shards]
    own_scores = settings["sidecars"] is None  # others may change without notice
    if own_scores and note.is_file() and read_json(note) == contain and all(name.is_file() for name in names):
        return
    note.unlink(missing_ok=True)
    write_sidecars(out / "sidecars", shards, pixels, losses)
    if own_scores:
        write_json(note, contain)


def _up_to_date(out: Path, settings: dict, shards: FrameShards) -> bool:
    if not all((out / name).is_file() for name in (SELECTION, ACCEPTANCE, REASONS, REPORT)):
        return False
    info = read_json(out / SELECTION)
    same_arrays = len(np.load(out / REASONS, mmap_mode="r", allow_pickle=False)) == info["frames"]
    return same_arrays and info["settings"] == settings and info["data"] == data_digest(shards)
