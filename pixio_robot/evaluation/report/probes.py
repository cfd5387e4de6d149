"""Compare encoders: write `probes.html` and `probes.csv` from the probe.json files in a directory."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.evaluation.report.templating import render, write_page
from pixio_robot.files import atomic_file, read_json
from pixio_robot.html_pages import data_uri

_SIDE = 128
_CLASS_COLOURS = np.array(
    [[38, 50, 56], [120, 144, 156], [255, 167, 38], [239, 83, 80], [66, 165, 245], [102, 187, 106], [171, 71, 188]],
    np.uint8,
)
PICTURE_COLUMNS = ("image", "true depth", "predicted depth", "true classes", "predicted classes")


class Pictures(Protocol):
    """Frames, uint8 (n, h, w, 3), with true and predicted depth (n, h, w) and classes (n, h, w)."""

    images: np.ndarray
    depth: np.ndarray
    predicted_depth: np.ndarray
    classes: np.ndarray
    predicted_classes: np.ndarray


def write_picture_strip(pictures: Pictures, count: int, path: Path) -> None:
    """Write `count` evenly spaced frames as rows of PICTURE_COLUMNS; depth colours span the true range."""
    rows = []
    for index in np.linspace(0, len(pictures.images) - 1, min(count, len(pictures.images))).astype(int):
        low, high = pictures.depth[index].min(), pictures.depth[index].max()

        def colour(depth: np.ndarray, low: float = low, high: float = high) -> np.ndarray:
            level = np.clip((depth - low) / max(high - low, 1e-6), 0, 1)
            return cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]

        def paint(classes: np.ndarray) -> np.ndarray:
            return _CLASS_COLOURS[classes % len(_CLASS_COLOURS)]

        tiles = [pictures.images[index], colour(pictures.depth[index]), colour(pictures.predicted_depth[index])]
        tiles += [paint(pictures.classes[index]), paint(pictures.predicted_classes[index])]
        resized = [cv2.resize(tile, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST) for tile in tiles]
        rows.append(np.concatenate(resized, 1))
    encoded, content = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not encoded:
        raise UserError(f"{path} could not be written as PNG.")
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.tobytes())


def picture_name(variation: str) -> str:
    """File name of the pictures of a variation level, beside `probe.json`."""
    return f"pictures_{variation}.png"


def write_probe_page(directory: Path) -> Path:
    """Write the page and the table of all probes below `directory`; returns the page.

    Raises UserError if there is none, or if one was written by an incompatible version.
    """
    cards = [_read_card(path) for path in sorted(directory.glob("*/probe.json"))]
    if not cards:
        raise UserError(f"{directory} contains no probe.json; run `pixio-robot probe` first.")
    rows = [_Row(card, level) for card in cards for level in card["levels"]]
    # A table contains only results measured on the same frames by the same version of the probes.
    groups: dict[tuple[int, str], list[_Row]] = {}
    for row in sorted(rows, key=lambda row: row.level["own"]["linear"]["depth_rmse_m"]):
        groups.setdefault((row.card["version"], row.level["truth"]), []).append(row)
    levelled: dict[tuple[int, *tuple[str, ...]], list[dict[str, Any]]] = {}
    for card in cards:
        if len(card["levels"]) > 1:
            levelled.setdefault((card["version"], *(level["truth"] for level in card["levels"])), []).append(card)
    html = render(
        "probes.html.j2",
        autoescape=True,
        groups=list(groups.values()),
        levelled=list(levelled.values()),
        newest=max(card["version"] for card in cards),
        columns=PICTURE_COLUMNS,
        objects_cm=objects_cm,
    )
    page = directory / "probes.html"
    write_page(page, html, {directory / "probes.csv": _csv(cards)})
    return page


@dataclasses.dataclass(frozen=True)
class _Row:
    """One encoder at one variation level."""

    card: dict[str, Any]
    level: dict[str, Any]


def objects_cm(result: dict[str, Any], way: str = "patches") -> float | None:
    """Mean error of the object positions for one readout (default: patch map); None if there are no objects."""
    found = [errors[way] for name, errors in result["positions"].items() if name not in ("eef", "camera")]
    return float(np.mean(found)) if found else None


def _read_card(path: Path) -> dict[str, Any]:
    card = read_json(path)
    if not isinstance(card, dict) or "levels" not in card:
        raise UserError(f"{path} was written by an incompatible version; probe that encoder again with overwrite=true.")
    for level in card["levels"]:
        picture = path.with_name(picture_name(level["variation"]))
        level["picture"] = data_uri("image/png", picture.read_bytes()) if picture.is_file() else ""
    return card


def _csv(cards: list[dict[str, Any]]) -> str:
    """One row per encoder, level, level of fitting (this one or the first), and readout."""
    results = [
        (card, level, fitted, level[key])
        for card in cards
        for level in card["levels"]
        for key, fitted in (("own", level["variation"]), ("carried", card["levels"][0]["variation"]))
        if level[key] is not None
    ]
    names = sorted({name for *_, result in results for name in result["positions"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["label", "task", "camera", "variation", "fitted_on", "way", "depth_rmse_m", "depth_delta1", "miou"]
    writer.writerow([*head, *(f"{name}_cm" for name in names), "camera_degrees", "contact_auc", "version"])
    for card, level, fitted, result in results:
        for way, whole in (("linear", "patches"), ("knn", "knn"), ("no_features", "mean")):
            plain = [card["label"], card["task"], card["camera"], level["variation"], fitted, way]
            numbers = [result[way][key] for key in ("depth_rmse_m", "depth_delta1", "miou")]
            errors = [result["positions"].get(name, {}).get(whole, "") for name in names]
            others = [(result[key] or {}).get(whole, "") for key in ("camera_angle", "contact")]
            writer.writerow([*plain, *numbers, *errors, *others, card["version"]])
    return text.getvalue()
