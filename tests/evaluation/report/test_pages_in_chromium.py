"""Every kind of page in a real browser: it renders on a phone and a desk, asks for nothing, and its videos play."""

import dataclasses
import os
from pathlib import Path

import chromium as browser
import cv2
import numpy as np
import pytest
import torch

from pixio_robot.evaluation.baselines import RandomActor
from pixio_robot.evaluation.checkpoint_series import checkpoint_directory, write_series
from pixio_robot.evaluation.config import EvaluateConfig
from pixio_robot.evaluation.evaluate import evaluate
from pixio_robot.evaluation.report.build import write_report
from pixio_robot.evaluation.report.data import Stage, collect_comparison, collect_inputs
from pixio_robot.evaluation.report.probes import picture_name, write_picture_strip, write_probe_page
from pixio_robot.evaluation.results import EvaluatedPolicy
from pixio_robot.evaluation.sweep.collect import collect_sweep
from pixio_robot.evaluation.sweep.page import write_sweep
from pixio_robot.files import write_json
from pixio_robot.types import Features, GroundTruth
from pixio_robot.vision.probing.probes import VERSION, Probes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="no Chromium here: apt-get install -y chromium"),
]
PHONE, DESK = 360, 1280

# One video at a time: all at once, a busy machine decodes too slowly to keep up with any of them.
PLAY = """
(async video => {
  video.scrollIntoView();
  const error = await video.play().then(() => null, error => String(error));
  let state = 0, at = 0;  // the highest: a film that begins again is at 0, without data for a moment
  for (const began = performance.now(); performance.now() - began < 20000;) {
    state = Math.max(state, video.readyState);
    at = Math.max(at, video.currentTime);
    if (error || (at > 0 && state >= 2)) break;
    await new Promise(go => setTimeout(go, 50));
  }
  video.pause();
  return {error, state, duration: video.duration, at,
          width: video.videoWidth, shown: video.getBoundingClientRect().width};
})(document.querySelectorAll('video')[NUMBER])
"""


def write_card(directory: Path) -> None:
    """A report card of features that mean nothing, at two levels of variation."""
    rng = np.random.default_rng(0)
    n = 24
    truth = GroundTruth(
        images=rng.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8),
        depth=rng.uniform(0.5, 2.0, (n, 32, 32)).astype(np.float32),
        classes=rng.integers(0, 4, (n, 32, 32)).astype(np.int32),
        class_names=["background", "surface", "robot", "cube"],
        positions={name: rng.normal(size=(n, 3)).astype(np.float32) for name in ("cube", "eef", "camera")},
        camera_axes=np.linalg.qr(rng.normal(size=(n, 3, 3)))[0].astype(np.float32),
        contact=np.arange(n) % 3 == 0,
        episode=np.repeat(np.arange(8), 3),
    )
    features = Features(torch.from_numpy(rng.normal(size=(n, 2, 8))).float(), torch.randn(n, 4, 4, 8))
    probes = Probes(features, truth)
    result, pictures = probes.evaluate(features, truth)
    own, levels = dataclasses.asdict(result), []
    for variation, carried in (("none", None), ("all", own)):
        levels.append({"variation": variation, "truth": variation, "own": own, "carried": carried})
        write_picture_strip(pictures, 3, directory / picture_name(variation))
    card = {
        "label": directory.name,
        "task": "Lift",
        "camera": "front",
        "image_size": 32,
        "levels": levels,
        "version": VERSION,
    }
    write_json(directory / "probe.json", card)


@pytest.fixture(scope="module")
def pages(line_pool, seeking_actor, tmp_path_factory):
    """One page of each kind, with videos, of the point on the line: {kind: path}."""
    root = tmp_path_factory.mktemp("pages")
    for run in ("first", "second"):
        for name, encoder in (("bc_pixio", "pixio"), ("bc_random", "random"), ("actions", "none")):
            kind = "random" if name == "actions" else "bc"
            actor = RandomActor(1) if kind == "random" else seeking_actor(noise=0.8 if encoder == "pixio" else 4.0)
            label = {"pixio": "Frozen Pixio, a name that is rather long", "random": "Frozen random"}.get(
                encoder, "Random"
            )
            who = EvaluatedPolicy(name=name, label=label, policy=kind, encoder=encoder, training_seed=0)
            config = EvaluateConfig(episodes=20, num_slots=4, videos=4)
            evaluate(line_pool(4), actor, who, config, root / run / "evaluations" / name)
        for step in (100, 200, 300, 400):
            who = EvaluatedPolicy(name="s", label="Seeker", policy="bc", encoder="none", training_step=step)
            config = EvaluateConfig(episodes=10, videos=0)
            directory = root / run / "evaluations" / "series" / checkpoint_directory(step)
            evaluate(line_pool(4), seeking_actor(noise=400 / step), who, config, directory)
        write_series(root / run / "evaluations" / "series")
        (root / run / "pretrain" / "panels").mkdir(parents=True)
        image = np.random.default_rng(0).integers(0, 255, (96, 288, 3), dtype=np.uint8)
        cv2.imwrite(str(root / run / "pretrain" / "panels" / "step_10.png"), image)
        lines = [f'{{"step": {step}, "loss": {1 / step}, "seconds": {step}}}\n' for step in range(1, 120)]
        (root / run / "pretrain" / "metrics.jsonl").write_text("".join(lines))
    command = "pixio-robot train encoder=pixio out=runs/quickstart/policies/a-long-name-that-does-not-break"
    stage = Stage(stage="train", command=command, seconds=100.5)
    for encoder in ("pixio-with-a-name", "random"):
        write_card(root / "probes" / encoder)
    return {
        "probes": write_probe_page(root / "probes"),
        "report": write_report(collect_inputs(root / "first", stages=[stage]), root / "report.html"),
        "comparison": write_report(collect_comparison([root / "first", root / "second"]), root / "comparison.html"),
        "sweep": write_sweep(collect_sweep(root, lambda path: {"optim.lr": 1e-4}), "All", root / "sweep.html"),
    }


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("kind", ["report", "comparison", "sweep", "probes"])
def test_a_page_renders_and_asks_for_nothing(tab, pages, kind, width, tmp_path):
    tab.open(pages[kind], width)
    assert tab.errors == []
    assert tab.requests[0] == pages[kind].as_uri()
    assert all(address.startswith("data:") for address in tab.requests[1:])
    assert tab.evaluate("document.querySelector('h1').innerText") != ""
    # Nothing wider than the window, and nothing that reaches out of it.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    outside = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert tab.evaluate(f"{outside}.map(e => e.outerHTML.slice(0, 120))") == []
    # Text that can be read: body text of 14 px and more, nothing below 11.
    sizes = (
        "[...document.querySelectorAll('main p, main td, main dd')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(tab.evaluate(sizes)) >= 13
    images = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    assert tab.evaluate(images)
    keep = Path(os.environ.get("PIXIO_ROBOT_PICTURES", tmp_path))
    tab.picture(keep / f"{kind}_{width}.png")
    picture = cv2.imread(str(keep / f"{kind}_{width}.png"))
    assert picture.shape[1] == width
    assert picture.std() > 5  # not blank


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_videos_play(tab, pages, kind):
    tab.open(pages[kind], DESK)
    count = tab.evaluate("document.querySelectorAll('video').length")
    assert count > 4
    videos = [tab.evaluate(PLAY.replace("NUMBER", str(number))) for number in range(count)]
    for video in videos:
        assert video["error"] is None
        assert video["state"] >= 2  # HAVE_CURRENT_DATA
        assert video["duration"] > 0
        assert video["at"] > 0
        assert video["width"] > 0
        assert video["shown"] > 0


def test_dark_mode_is_dark(tab, pages):
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    tab.open(pages["report"], DESK)
    light = tab.evaluate(brightness)
    tab.open(pages["report"], DESK, dark=True)
    assert tab.evaluate(brightness) < 60 < 200 < light
