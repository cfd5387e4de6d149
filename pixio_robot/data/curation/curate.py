"""Score every frame, choose, and say why: the whole of `pixio-robot curate`.

out/
  scores/            one column a score (`columns`)
  sidecars/          Pixio's JSON, one file a shard (`sidecars`)
  selection.json ... what pretraining opens (`selection`)
  curation.html      what a person needs to set a threshold (`report`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixio_robot.data.curation.columns import Column, Workers, compute, data_digest
from pixio_robot.data.curation.pixel_scores import pixel_column
from pixio_robot.data.curation.report import Scores, write_report
from pixio_robot.data.curation.selection import ACCEPTANCE, REASONS, SELECTION, write_selection
from pixio_robot.data.curation.sidecars import read_losses, write_sidecars
from pixio_robot.data.curation.thresholds import Thresholds, judge
from pixio_robot.data.executor import Executor
from pixio_robot.data.shards import FrameShards
from pixio_robot.errors import UserError
from pixio_robot.files import read_json

MAE_LOSS, EMBEDDING = "mae_loss", "embedding"
"""Names of the columns that models compute: float32 (n,), and float16 (n, d) of length 1."""
REPORT = "curation.html"


@dataclasses.dataclass(kw_only=True)
class CurateConfig(Thresholds):
    data: str = ""
    """Folder of frame shards; its training split is curated, and the folder is not touched."""
    out: str | None = None
    """Folder to make; null: `<data>.curation`, beside the shards."""
    sidecars: str | None = None
    """Folder of sidecars to take `mae_loss` from, instead of computing it."""
    executor: Executor = Executor.PROCESSES
    """PROCESSES of this machine, or RAY: a cluster, on which `data` and `out` are shared storage."""
    workers: int = 0
    """Scoring processes; 0: one a core, or with Ray as many as the cluster has."""
    timeout_s: float = 300.0
    """A worker that makes no progress for that many seconds is given up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 0 or self.timeout_s <= 0:
            raise UserError(
                f"workers must not be negative and timeout_s above 0, not {self.workers} and {self.timeout_s}."
            )

    def place(self) -> Path:
        """Where the results go."""
        if self.out is not None:
            return Path(self.out)
        data = Path(self.data).absolute()
        return data.with_name(f"{data.name}.curation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurateReport:
    """What `out` holds now; `changed` is false when it was up to date already."""

    out: Path
    changed: bool
    frames: int
    kept: int
    expected_epoch_frames: float
    dropped: dict[str, int]


def curate(
    config: CurateConfig, models: Sequence[Column] = (), show_progress: bool = True, device: str = "cpu"
) -> CurateReport:
    """Bring `config.place()` up to date. Interrupted at any moment, the next call continues; not for two at once.

    `models`: columns named MAE_LOSS and EMBEDDING, or fewer. `device` searches for near-duplicates.
    Raises UserError: no shards, sidecars that do not fit, or workers that failed.
    """
    if not config.data:
        raise UserError("data is empty; it should be a folder of frame shards, such as `pixio-robot ingest` makes.")
    shards = FrameShards.open(config.data)
    out = config.place()
    if out.resolve().is_relative_to(shards.path.resolve()):
        raise UserError(f"out={str(out)!r} lies within the shards, which stay as they are; name a folder beside them.")
    workers = Workers(
        executor=config.executor, workers=config.workers, timeout_s=config.timeout_s, show_progress=show_progress
    )
    by_name = {column.name: column for column in models}
    if config.sidecars is not None and MAE_LOSS in by_name:
        raise UserError("Both a Pixio checkpoint and sidecars would give mae_loss; name one of them.")
    settings = config.values() | {
        "scores": {column.name: dict(column.settings) for column in (pixel_column(), *models)},
        "sidecars": config.sidecars,
    }
    columns = {column.name: compute(column, shards, out / "scores", workers) for column in (pixel_column(), *models)}
    losses = columns.get(MAE_LOSS)
    if config.sidecars is not None:
        losses = read_losses(Path(config.sidecars), shards)
    # Sidecars of others may change unseen; reading them is most of the work already.
    changed = config.sidecars is not None or not _up_to_date(out, settings, shards)
    if changed:
        records = shards.reader.records
        verdict = judge(config, columns["pixels"], records, columns.get(EMBEDDING), device)
        write_sidecars(out / "sidecars", shards, columns["pixels"], losses)
        scores = Scores(pixels=columns["pixels"], losses=losses, verdict=verdict)
        # The report goes first: an existing selection is the sign that all the rest is there.
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


def _up_to_date(out: Path, settings: dict, shards: FrameShards) -> bool:
    if not all((out / name).is_file() for name in (SELECTION, ACCEPTANCE, REASONS, REPORT)):
        return False
    info = read_json(out / SELECTION)
    same_arrays = len(np.load(out / REASONS, mmap_mode="r", allow_pickle=False)) == info["frames"]
    return same_arrays and info["settings"] == settings and info["data"] == data_digest(shards)
