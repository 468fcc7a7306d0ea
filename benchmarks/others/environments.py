"""Where the programs of others are installed: each in an environment of its own, in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.support.servers import ServiceMissing

NAMES: Final = ("dbos", "restate", "celery")
_REQUIREMENTS: Final = Path(__file__).parent / "requirements"
_SERVER: Final = "restate-server"
_WHOLE: Final = ".installed"


def python_of(name: str) -> str:
    """The Python that has it. Raises `ServiceMissing`."""
    python = _folder(f"{name}.txt") / "bin" / "python"
    if not (python.parents[1] / _WHOLE).exists():
        raise ServiceMissing(f"{name} is not installed: run python -m benchmarks others --install")
    return str(python)


def restate_server() -> str:
    """The program of Restate's server. Raises `ServiceMissing`."""
    found = sorted(_folder(f"{_SERVER}.json").glob(f"node_modules/@restatedev/{_SERVER}-*/bin/{_SERVER}"))
    if not found:
        raise ServiceMissing("Restate's server is not installed: run python -m benchmarks others --install")
    return str(found[0])


def install() -> None:
    """Get what is not there, from PyPI and npm. Raises `ServiceMissing` for the first that cannot be had."""
    for name in NAMES:
        folder, file = _folder(f"{name}.txt"), _REQUIREMENTS / f"{name}.txt"
        if not (folder / _WHOLE).exists():
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            _run(*pip, "-r", str(file))
            (folder / _WHOLE).touch()
    folder = _folder(f"{_SERVER}.json")
    if not (folder / _WHOLE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_REQUIREMENTS / f"{_SERVER}.json", folder / "package.json")
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder))
        (folder / _WHOLE).touch()


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServiceMissing(f"{' '.join(command)} failed: {error}") from error


def _folder(requirements: str) -> Path:
    """One for each wording of the requirements."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = sha256((_REQUIREMENTS / requirements).read_bytes()).hexdigest()[:12]
    return cache / "amends" / "others" / f"{requirements.partition('.')[0]}-{digest}"
