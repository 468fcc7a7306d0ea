"""What the tests of the command share: calling it in this process, and a shop that runs in another one."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import structlog
from tests.support.processes import SHOP, running

from amends.coordinator.cli import main


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """The one JSON document it printed."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"<code {self.code}\nout: {self.out}\nerr: {self.err}>"


Amends: TypeAlias = Callable[..., Ended]


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """What a command sets up for its process is undone after the test."""
    config = structlog.get_config()
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    structlog.configure(**config)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def amends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], logs_as_before: None
) -> Callable[..., Ended]:
    """Calls the command in an empty folder, or in `cwd`. What it imports is forgotten after the test."""
    for name in [name for name in os.environ if name.startswith("AMENDS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", sys.modules)
    known = set(sys.modules)

    def call(*arguments: str, cwd: Path = tmp_path) -> Ended:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        for name in set(sys.modules) - known:
            if not name.startswith(("amends", "tests")) and _is_users(sys.modules[name], tmp_path):
                del sys.modules[name]
        assert isinstance(exit.value.code, int)
        return Ended(exit.value.code, *capsys.readouterr())

    return call


def _is_users(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None) or ""
    return file == SHOP or file.startswith(str(folder))


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which `amends run` runs the shop."""
    folder = tmp_path_factory.mktemp("shop")
    with running(SHOP, cwd=folder) as process:
        yield folder
        assert process.stop() == 0, process.lines


@pytest.fixture
def in_shop(amends: Amends, shop: Path) -> Amends:
    """Calls the command where the shop runs."""
    return lambda *arguments: amends(*arguments, cwd=shop)
