"""The README's commands, word for word; links of all pages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def commands() -> list[str]:
    """Lines that start with `$ ` in blocks marked `console test`."""
    blocks = re.findall(r"```console test\n(.*?)```", README.read_text(), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.timeout(600)
def test_commands_run(tmp_path: Path) -> None:
    assert len(commands()) >= 7
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        result = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    assert (tmp_path / "runs" / "smoke" / "report.html").is_file()


def test_the_scripts_it_names_exist() -> None:
    scripts = set(re.findall(r"\./(scripts/\w+)", README.read_text()))
    assert {"scripts/quickstart", "scripts/test"} <= scripts
    assert all(os.access(README.parent / script, os.X_OK) for script in scripts)


@pytest.mark.parametrize("page", [README, *sorted((README.parent / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_the_files_and_headings_that_pages_link_to_exist(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        name, _, heading = link.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), link
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE) if heading else [""]
        # As hosts of repositories make anchors of headings.
        assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings], link
