"""The wheel, installed into a clean environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_of_every_root(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for root in ("contracts", "brokers", "participants", "choreography", "coordinator"):
        for source in (ROOT / root / "amends").rglob("*.py"):
            assert str(source.relative_to(ROOT / root)) in packed
        assert f"amends/{root}/py.typed" in packed
    assert "amends/__init__.py" not in packed


def test_every_module_can_be_imported_from_the_wheel_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    bin_ = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    install = [str(bin_ / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # the dependencies come from this environment, by a path file; amends itself does not
    (site,) = (tmp_path / "env").rglob("site-packages")
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("amends", "_amends", "pip", "setuptools")) and entry.suffix != ".pth":
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(str(dependencies))
    probe = """
import importlib, pkgutil, amends
names = [m.name for m in pkgutil.walk_packages(amends.__path__, "amends.") if not m.name.endswith("__main__")]
for name in names:
    module = importlib.import_module(name)
    assert "site-packages" in module.__file__, module.__file__
print(len(names))
"""
    command = [str(bin_ / "python"), "-I", "-W", "error", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60


def test_the_wheel_brings_the_amends_command(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in packed.namelist() if name.endswith("entry_points.txt"))
    assert "amends = amends.coordinator.cli:main" in packed.read(entry_points).decode()
