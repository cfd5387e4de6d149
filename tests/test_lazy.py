"""Names that packages hand on: each is there, checkers of types see the same ones, and none costs anything unasked."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ["envs", "policies", *(f"pixio_robot.{room}" for room in ("data", "evaluation", "serving", "vision"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_lazy_exports_match_the_names_for_type_checkers(package):
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text())
    checked = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in checked[0].body for alias in node.names}
    assert sorted(seen) == dir(module)
    for name, where in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(where), name)
    starred: dict = {}
    exec(f"from {package} import *", starred)
    assert seen.keys() <= starred.keys()
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_importing_packages_does_not_import_their_lazy_exports():
    code = f"import sys, {', '.join(PACKAGES)}; print('torch' in sys.modules, 'mujoco' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False False"
