"""A self-contained HTML page about a demonstration store; works offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pixio_robot.data.demos.editing.rewrite import episode_task
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.inspection.outliers import find_outliers, frozen_camera
from pixio_robot.data.inspection.pictures import contact_sheet, film
from pixio_robot.data.inspection.plots import curves, length_histogram
from pixio_robot.data.inspection.spec_text import describe_simulator
from pixio_robot.data.stats import Range, cached_statistics
from pixio_robot.errors import UserError
from pixio_robot.files import atomic_file
from pixio_robot.html_pages import data_uri, template_environment
from pixio_robot.types import SIMULATED

LISTED_OUTLIERS = 50


def write_page(store: DemoStore, path: Path, *, episodes: int = 6) -> None:
    """Write the page, showing `episodes` episodes: unusual ones first, the others evenly spaced.

    Keeps the images of only one episode in memory at a time. Raises UserError for an empty store.
    """
    if not len(store):
        raise UserError(f"{store.path} has no episodes yet, so there is nothing to show.")
    if episodes < 1:
        raise UserError(f"episodes={episodes} must be at least 1.")
    outliers = find_outliers(store)
    shown = _choose(len(store), sorted(outliers), episodes)
    statistics = cached_statistics(store, range(len(store)))
    spec, rate = store.spec, store.spec.control_hz
    labels = [f"episode {number}" for number in shown]
    state = [store.state(number) for number in shown]
    actions = [store.actions(number) for number in shown]
    values = {
        "path": store.path,
        "spec": spec,
        "simulator": describe_simulator(spec),
        "lengths": store.lengths,
        "successes": sum(store.successes),
        "codec": store.image_codec,
        "histogram": Markup(length_histogram(store.lengths)),
        "state": Markup(curves(spec.state_names, state, labels, statistics.state, rate)),
        "actions": Markup(curves(spec.action_names, actions, labels, statistics.actions, rate)),
        "ranges": {
            "state": _rows(spec.state_names, statistics.state),
            "actions": _rows(spec.action_names, statistics.actions),
        },
        "episodes": [_episode(store, number, outliers.get(number, [])) for number in shown],
        "outliers": list(outliers.items())[:LISTED_OUTLIERS],
        "more_outliers": max(0, len(outliers) - LISTED_OUTLIERS),
    }
    page = template_environment("pixio_robot.data.inspection").get_template("inspection.html.j2").render(values)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _choose(count: int, first: list[int], wanted: int) -> list[int]:
    """Choose `wanted` episodes: the ones in `first` for at most half of them, the others evenly spaced."""
    chosen = first[: max(1, wanted // 2)]
    rest = [number for number in range(count) if number not in set(chosen)]
    positions = np.linspace(0, len(rest) - 1, min(wanted - len(chosen), len(rest))).round().astype(int)
    return sorted(chosen + [rest[place] for place in positions.tolist()])


def _rows(names: Any, values: Range) -> list[tuple[str, list[float]]]:
    columns = (values.minimum, values.q01, values.q50, values.q99, values.maximum, values.mean, values.std)
    return [(name, [float(column[i]) for column in columns]) for i, name in enumerate(names)]


def _seed(store: DemoStore, number: int) -> int | None:
    """None if an importer made it up: episodes without a seed are numbered."""
    seed = store.seeds[number]
    return seed if SIMULATED in store.spec.source or seed != number else None


def _episode(store: DemoStore, number: int, unusual: list[str]) -> dict[str, Any]:
    cameras, remarks = [], list(unusual)
    for camera in store.spec.cameras:
        frames = store.images(number, camera)
        if (remark := frozen_camera(camera, frames)) is not None:
            remarks.append(remark)
        sheet, movie = contact_sheet(frames), film(frames, store.spec.control_hz)
        cameras.append({"name": camera, "sheet": data_uri("image/jpeg", sheet), "film": data_uri("video/mp4", movie)})
    return {
        "number": number,
        "task": episode_task(store, number),
        "length": int(store.lengths[number]),
        "seed": _seed(store, number),
        "success": store.successes[number],
        "remarks": remarks,
        "cameras": cameras,
    }
