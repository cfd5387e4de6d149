"""Reading what an ingest says of the files that it could not use."""

from __future__ import annotations

import json
from pathlib import Path


def read_failures(out: str | Path) -> list[dict[str, str]]:
    """The lines of `failures.jsonl`: `id` and `reason`."""
    return [json.loads(line) for line in (Path(out) / "failures.jsonl").read_text().splitlines()]
