"""`pixio-robot pretrain` killed by SIGKILL at random moments and started again ends as if nothing had happened."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from pixio_robot.data.ingest.pipeline import IngestConfig, ingest

SETTINGS = [
    "encoder={size: tiny, patch: 8, image_size: 32, class_tokens: 2, drop_path: 0.1}",
    "decoder={width: 32, depth: 2, heads: 2}",
    "mask.block=1",
    "batch_size=8",
    "loop={steps: 160, log_every: 7, save_every: 9, keep_checkpoints: 2}",
    "panels_every=80",
    "panel_images=2",
    "validation_batches=1",
    "workers=2",
    "device=cpu",
]
KILLS = 6
CLOCKS = ("seconds", "examples_per_second", "data_wait_share")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small smooth pictures, one of them broken after the ingest."""
    root = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)
    for number in range(40):
        image = cv2.resize(random.integers(0, 255, (4, 4, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
        (root / "in" / str(number % 8)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "in" / str(number % 8) / f"{number:02d}.png"), image)
    ingest(IngestConfig(source=str(root / "in"), out=str(root / "out"), validation_share=0.25, workers=1))
    (tar,) = sorted((root / "out").rglob("*train*.tar"))[:1] or sorted((root / "out").rglob("*.tar"))[:1]
    content = tar.read_bytes()
    start = content.index(b"\xff\xd8\xff")
    tar.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    return root / "out"


def start(shards: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pixio_robot.cli.main", "pretrain", f"data=[{shards}]", f"out={out}", *SETTINGS]
    return subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def metrics(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


def results(out: Path) -> dict[str, bytes | dict[str, bytes]]:
    """Every weight, the whole of the last training state, and the pictures."""
    found: dict[str, bytes | dict[str, bytes]] = {}
    for path in sorted(out.rglob("*")):
        if path.suffix == ".png":
            found[str(path.relative_to(out))] = path.read_bytes()
        elif path.suffix == ".safetensors":  # the order of what is said in its header is not fixed
            tensors = load_file(path).items()
            found[str(path.relative_to(out))] = {name: value.numpy().tobytes() for name, value in tensors}
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_and_resumed(shards: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert "Skipped an unreadable image" in finish(start(shards, whole))
    dice, kills, reached = random.Random(7), 0, set()
    for _ in range(40):
        process = start(shards, killed)
        before = len(metrics(killed)) if (killed / "metrics.jsonl").is_file() else 0
        # Past the start-up, so that every try can get somewhere, then anywhere: also while a checkpoint is written.
        while process.poll() is None:
            if (killed / "metrics.jsonl").is_file() and len(
                (killed / "metrics.jsonl").read_bytes().splitlines()
            ) > before:
                break
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.6))
        process.kill()
        kills += process.wait() < 0
        process.communicate()
        reached.add(tuple(sorted(path.name for path in (killed / "checkpoints").glob("step_*"))))
        if kills == KILLS or (killed / "result.json").is_file():
            break
    assert kills >= KILLS / 2
    assert len(reached) > 1
    finish(start(shards, killed))
    assert metrics(whole) == metrics(killed)
    assert results(whole) == results(killed)
    assert not list(killed.rglob(".tmp-*"))
