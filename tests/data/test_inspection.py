"""The page shows every camera and dimension without a network, and flags what a person should look at."""

import base64
import dataclasses
import io
import re
import sys
from pathlib import Path

import av
import chromium as browser
import numpy as np
import pytest
from demo_data import SPEC, make_episode, make_store

from pixio_robot.cli.main import main
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.inspection.outliers import find_outliers, frozen_camera, robust_scores
from pixio_robot.data.inspection.page import write_page
from pixio_robot.data.inspection.pictures import contact_sheet, film
from pixio_robot.data.inspection.stream import stream
from pixio_robot.errors import UserError
from pixio_robot.types import CameraSpec


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", episodes=4)
    write_page(store, tmp_path / "deep" / "page.html", episodes=2)
    page = (tmp_path / "deep" / "page.html").read_text()
    for name in (*SPEC.cameras, *SPEC.state_names, *SPEC.action_names):
        assert name in page
    assert page.count("<video") == page.count("<img") == 2 * len(SPEC.cameras)
    assert page.count("<svg") == 1 + len(SPEC.state_names) + len(SPEC.action_names)
    sources = re.findall(r'(?:src|href)="([^"#]*)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources if not source.startswith("#"))
    mp4 = next(source for source in sources if source.startswith("data:video/mp4"))
    with av.open(io.BytesIO(base64.b64decode(mp4.partition(",")[2]))) as container:
        assert sum(1 for _ in container.decode(video=0)) in store.lengths


def test_seeds_are_shown_unless_an_import_made_them_up(tmp_path: Path) -> None:
    for source, number, shown in (("LeRobotDataset x", 0, None), ("simulated: y", 0, 0), ("LeRobotDataset x", 7, 7)):
        store = DemoStore.create(tmp_path / f"{source}{number}", dataclasses.replace(SPEC, source=source))
        store.append(make_episode(number))
        write_page(store, tmp_path / "page.html")
        assert re.findall(r", seed (\d+)", (tmp_path / "page.html").read_text()) == (
            [] if shown is None else [str(shown)]
        )


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, task="<script>alert(1)</script>", state_names=("<b>", "$x_$", "z"))
    DemoStore.create(tmp_path / "s", spec).append(make_episode(0))
    write_page(DemoStore.open(tmp_path / "s"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "<b>" not in page


def test_an_empty_store_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no episodes yet"):
        write_page(make_store(tmp_path / "s", episodes=0), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_film_keeps_length_rate_and_order() -> None:
    frames = np.repeat(np.arange(10, 240, 23, dtype=np.uint8), 12 * 10 * 3).reshape(-1, 12, 10, 3)
    with av.open(io.BytesIO(film(frames, 5.0))) as container:
        assert container.streams.video[0].average_rate == 5
        levels = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    np.testing.assert_allclose(levels, frames.mean((1, 2, 3)), atol=6)


def test_a_sheet_goes_from_the_first_frame_to_the_last() -> None:
    import simplejpeg

    frames = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 8 * 8 * 3).reshape(-1, 8, 8, 3)
    sheet = simplejpeg.decode_jpeg(contact_sheet(frames, tiles=5))
    tiles = sheet.reshape(96, 5, 96, 3).mean((0, 2, 3))
    np.testing.assert_allclose(tiles, [0, 60, 120, 180, 240], atol=3)


def test_the_odd_episode_is_named_and_the_others_are_not(tmp_path: Path) -> None:
    store = DemoStore.create(tmp_path / "s", SPEC)
    for seed in range(24):
        episode = make_episode(seed, length=60 if seed == 5 else 8 + seed % 3)
        state, actions = np.clip(episode.state, -1, 1), np.clip(episode.actions, -1, 1)
        if seed == 9:
            state[4, 1] = 40.0
        store.append(dataclasses.replace(episode, state=state, actions=actions))
    found = find_outliers(store)
    assert set(found) == {5, 9}
    assert found[5] == ["steps: 60 (usually 9)"]
    assert any("state y [m], largest value 40" in remark for remark in found[9])


def test_equal_values_and_few_episodes_are_quiet() -> None:
    assert not robust_scores(np.full(9, 3.0)).any()
    assert np.abs(robust_scores(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.3]))).max() < 5
    assert np.abs(robust_scores(np.append(np.ones(99), 0.3))).max() > 5


def test_frozen_cameras_are_told() -> None:
    moving = make_episode(0, length=8).images["front"]
    assert frozen_camera("front", moving) is None
    assert frozen_camera("front", np.repeat(moving[2:3], 8, 0)) == "camera front repeats 100% of its frames"
    assert frozen_camera("front", np.zeros_like(moving)) == "camera front shows a single colour only"


def test_an_episode_streams_to_rerun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s", episodes=2)
    monkeypatch.setattr(
        sys, "argv", ["pixio-robot", "data", "view", str(store.path), "episode=1", f"save={tmp_path / 'e.rrd'}"]
    )
    assert main() == 0
    content = (tmp_path / "e.rrd").read_bytes()
    assert content[:3] == b"RRF"
    for name in (b"images/front", b"images/hand", b"state", b"actions"):
        assert name in content
    with pytest.raises(UserError, match="no episode=2"):
        stream(store, 2, tmp_path / "x.rrd")


@pytest.mark.slow
@pytest.mark.skipif(browser.program() is None, reason="no Chromium here: apt-get install -y chromium")
def test_the_page_fits_a_phone_and_uses_a_desk(tmp_path: Path) -> None:
    names = tuple(f"robot0_gripper_position_{i} [m]" for i in range(4))
    spec = dataclasses.replace(SPEC, state_names=names, cameras={"front": CameraSpec(height=96, width=128)})
    store = DemoStore.create(tmp_path / "s", spec)
    for seed in range(2):
        images = {"front": np.zeros((40, 96, 128, 3), np.uint8)}
        store.append(dataclasses.replace(make_episode(seed, 40), state=np.ones((40, 4), np.float32), images=images))
    write_page(store, tmp_path / "page.html")
    columns = "getComputedStyle(document.querySelector('.plots')).gridTemplateColumns.split(' ').length"
    with browser.chromium(tmp_path / "profile") as tab:
        for width, side_by_side in ((390, 1), (1200, 3)):
            tab.open(tmp_path / "page.html", width)
            assert tab.errors == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(columns) == side_by_side
