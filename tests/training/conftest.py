"""`lab`: the small real things that the tests of this directory train."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


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


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
