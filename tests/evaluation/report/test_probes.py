"""Only encoders that were measured on the same frames stand in one table."""

import re

import pytest

from pixio_robot.errors import UserError
from pixio_robot.evaluation.report.probes import write_probe_page
from pixio_robot.files import write_json


def result(depth_m: float, frames: int) -> dict:
    dense = {"depth_rmse_m": depth_m, "depth_delta1": 0.9, "miou": 0.5, "iou": {"robot": 0.5}}
    errors = {"mean": 9.0, "knn": 8.0, "class_tokens": 7.0, "patches": 6.0, "patches_half_width": 0.5}
    return {
        "linear": dense,
        "knn": dense,
        "no_features": {"depth_rmse_m": 0.234, "depth_delta1": 0.81, "miou": 0.123, "iou": {"robot": 0.123}},
        "positions": {"cube": errors, "eef": errors},
        "camera_angle": None,
        "contact": None,
        "train_frames": frames,
        "test_frames": frames // 3,
    }


def test_encoders_measured_on_other_frames_have_tables_of_their_own(tmp_path) -> None:
    for name, frames in (("first", 30), ("second", 30), ("on_few", 9)):
        levels = [
            {"variation": level, "truth": f"{level} {frames}", "own": result(0.3, frames), "carried": carried}
            for level, carried in (("none", None), ("all", result(0.4, frames)))
        ]
        card = {"label": name, "task": "Lift", "camera": "front", "image_size": 96, "levels": levels, "version": 1}
        write_json(tmp_path / name / "probe.json", card)
    page = write_probe_page(tmp_path).read_text()
    summary = page[page.index("Levels of visual variation") : page.index("variation none")]
    tables = re.split("<h3>", summary)[1:]
    assert [[name for name in ("first", "second", "on_few") if name in table] for table in tables] == [
        ["first", "second"],
        ["on_few"],
    ]
    assert "30 frames for fitting, 10 for testing" in tables[0]
    assert "9 frames for fitting, 3 for testing" in tables[1]
    assert len((tmp_path / "probes.csv").read_text().splitlines()) == 1 + 3 * 3 * 3


def test_what_one_has_without_looking_stands_beside_it(tmp_path) -> None:
    level = {"variation": "none", "truth": "a", "own": result(0.3, 30), "carried": None}
    card = {"label": "one", "task": "Lift", "camera": "front", "image_size": 96, "levels": [level], "version": 1}
    write_json(tmp_path / "one" / "probe.json", card)
    page = write_probe_page(tmp_path).read_text()
    assert all(words in page for words in ("no features", "23.4 cm", "81.0 %", "12.3 %"))
    lines = (tmp_path / "probes.csv").read_text().splitlines()
    assert [line for line in lines if ",no_features," in line] == [
        "one,Lift,front,none,none,no_features,0.234,0.81,0.123,9.0,9.0,,,1"
    ]


def test_results_of_different_versions_of_the_probes_stand_apart(tmp_path) -> None:
    for name, version in (("old", 1), ("new", 2)):
        levels = [
            {"variation": level, "truth": level, "own": result(0.3, 30), "carried": carried}
            for level, carried in (("none", None), ("all", result(0.4, 30)))
        ]
        card = {
            "label": name,
            "task": "Lift",
            "camera": "front",
            "image_size": 96,
            "levels": levels,
            "version": version,
        }
        write_json(tmp_path / name / "probe.json", card)
    page = write_probe_page(tmp_path).read_text()
    tables = re.split("<table", page)[1:]
    assert not [table for table in tables if "<td>old</td>" in table and "<td>new</td>" in table]
    assert page.count("Measured by an earlier version") == 3
    (tmp_path / "new" / "probe.json").unlink()
    assert "Measured by an earlier version" not in write_probe_page(tmp_path).read_text()


def test_nothing_was_probed(tmp_path) -> None:
    with pytest.raises(UserError, match=r"contains no probe\.json"):
        write_probe_page(tmp_path)
