"""The wheel: what it puts at the top level, and whether it runs away from the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return next(out.glob("*.whl"))


def test_top_level_names(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"pixio_robot", "envs", "policies"}


def test_every_file_that_is_not_python_is_inside(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "pixio_robot", "envs", "policies", "configs"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    expected = {f"pixio_robot/{name}" if name.startswith("configs/") else name for name in tracked}
    assert expected <= inside, sorted(expected - inside)


def test_the_installed_wheel_finds_its_configurations(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); sys.argv = ['pixio-robot', 'pretrain', '--help']\n"
        "import pixio_robot; assert 'site' in pixio_robot.__file__, pixio_robot.__file__\n"
        "from pixio_robot.cli.main import main; sys.exit(main())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "batch_size" in result.stdout
