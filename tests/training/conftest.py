"""`lab`: the small real things that the tests of this directory train; `shards`: pictures to pretrain on."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from pixio_robot.data.ingest.pipeline import IngestConfig, ingest


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """lab.py beside this file; pytest's importlib mode knows no sibling modules."""
    spec = importlib.util.spec_from_file_location("tests_training_lab", Path(__file__).with_name("lab.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> str:
    """48 smooth random pictures in 8 folders, a quarter of which is held out."""
    root = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)
    for number in range(48):
        image = cv2.resize(random.integers(0, 255, (4, 4, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
        folder = root / "in" / str(number % 8)
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number:02d}.png"), image)
    ingest(IngestConfig(source=str(root / "in"), out=str(root / "out"), validation_share=0.25, workers=1))
    return str(root / "out")
