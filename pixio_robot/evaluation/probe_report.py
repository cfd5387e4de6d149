"""Encoders side by side: `probes.html` and `probes.csv` from the probe.json files of a directory."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from pixio_robot.errors import UserError
from pixio_robot.evaluation.templating import render
from pixio_robot.files import atomic_file, read_json

_SIDE = 128
_CLASS_COLOURS = np.array(
    [[38, 50, 56], [120, 144, 156], [255, 167, 38], [239, 83, 80], [66, 165, 245], [102, 187, 106], [171, 71, 188]],
    np.uint8,
)
PICTURE_COLUMNS = ("image", "true depth", "read depth", "true classes", "read classes")


class Pictures(Protocol):
    """Frames uint8 (n, h, w, 3) with true and read depth (n, h, w) and classes (n, h, w)."""

    images: np.ndarray
    depth: np.ndarray
    read_depth: np.ndarray
    classes: np.ndarray
    read_classes: np.ndarray


def strip(pictures: Pictures, count: int, path: Path) -> None:
    """Write `count` frames, spread over all, as rows of PICTURE_COLUMNS; colours of depth span its true range."""
    rows = []
    for index in np.linspace(0, len(pictures.images) - 1, min(count, len(pictures.images))).astype(int):
        low, high = pictures.depth[index].min(), pictures.depth[index].max()

        def colour(depth: np.ndarray, low: float = low, high: float = high) -> np.ndarray:
            level = np.clip((depth - low) / max(high - low, 1e-6), 0, 1)
            return cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]

        def paint(classes: np.ndarray) -> np.ndarray:
            return _CLASS_COLOURS[classes % len(_CLASS_COLOURS)]

        tiles = [pictures.images[index], colour(pictures.depth[index]), colour(pictures.read_depth[index])]
        tiles += [paint(pictures.classes[index]), paint(pictures.read_classes[index])]
        resized = [cv2.resize(tile, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST) for tile in tiles]
        rows.append(np.concatenate(resized, 1))
    encoded, content = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not encoded:
        raise UserError(f"{path} could not be written as PNG.")
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.tobytes())


def write_page(directory: Path) -> Path:
    """Write the page and the table of all probes below `directory`; returns the page.

    Raises UserError when there is none.
    """
    cards = [_card(path) for path in sorted(directory.glob("*/probe.json"))]
    if not cards:
        raise UserError(f"{directory} holds no probe.json: nothing was probed there.")
    groups: dict[str, list[dict[str, Any]]] = {}
    for card in sorted(cards, key=lambda card: card["depth_rmse_m"]):
        groups.setdefault(card["truth"], []).append(card)
    page = directory / "probes.html"
    html = render("probes.html.j2", autoescape=True, groups=list(groups.values()), columns=PICTURE_COLUMNS)
    for path, text in ((page, html), (directory / "probes.csv", _csv(cards))):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return page


def _card(path: Path) -> dict[str, Any]:
    picture = path.with_name("pictures.png")
    source = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else ""
    return read_json(path) | {"picture": source}


def _csv(cards: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = sorted({name for card in cards for name in card["positions"]})
    plain = ["label", "task", "variation", "camera", "depth_rmse_m", "depth_delta1", "miou"]
    writer.writerow([*plain, *(f"{name}_cm" for name in names)])
    for card in cards:
        errors = [card["positions"].get(name, {}).get("patches", "") for name in names]
        writer.writerow([*(card[key] for key in plain), *errors])
    return text.getvalue()
