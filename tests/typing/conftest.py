"""Runs the type checkers once, over a folder that holds all snippets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.typing.snippets import CHECKERS, FOLDER, Snippet, read_snippets

Complaints = dict[str, dict[str, dict[int, str]]]
"""Checker -> module -> line -> what it said."""

SHOP = Path(__file__).parents[1] / "unit/coordinator/declaration/shop.py"
SCRIPTS = Path(sys.executable).parent

# basedpyright is pyright packaged with a node of its own, so that the tests need nothing but PyPI; its mode "standard"
# is what pyright checks by default
_PYRIGHT_CONFIG = {"typeCheckingMode": "standard", "pythonVersion": "3.11", "include": ["."]}


@pytest.fixture(scope="session")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> Complaints:
    folder = tmp_path_factory.mktemp("snippets")
    (folder / "shop.py").write_text(SHOP.read_text())
    for topic in sorted(FOLDER.glob("*.txt")):
        for snippet in read_snippets(topic.stem):
            (folder / f"{snippet.module}.py").write_text(snippet.source)
    (folder / "pyrightconfig.json").write_text(json.dumps(_PYRIGHT_CONFIG))
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\npython_version = 3.11\n")
    mypy = subprocess.Popen(
        [SCRIPTS / "mypy", "--config-file", "mypy.ini", "--cache-dir", folder / "cache", "--no-error-summary", "."],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pyright = subprocess.run(
        [SCRIPTS / "basedpyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said, trouble = mypy.communicate()
    assert mypy.returncode in (0, 1), trouble or said
    assert pyright.returncode in (0, 1), pyright.stderr or pyright.stdout
    return {"mypy": _read_mypy(said), "pyright": _read_pyright(json.loads(pyright.stdout))}


def _read_mypy(text: str) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for line in text.splitlines():
        if match := re.match(r"(?:\./)?(\w+)\.py:(\d+): error: (.*)", line):
            module, number, message = match[1], int(match[2]), match[3]
            found[module][number] = f"{found[module].get(number, '')}\n{message}".strip()
    return found


def _read_pyright(report: dict[str, Any]) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for diagnostic in report["generalDiagnostics"]:
        if diagnostic["severity"] == "error":
            module, number = Path(diagnostic["file"]).stem, diagnostic["range"]["start"]["line"] + 1
            found[module][number] = f"{found[module].get(number, '')}\n{diagnostic['message']}".strip()
    return found


def check(snippet: Snippet, complaints: Complaints) -> None:
    """Assert that both checkers said what the snippet expects of them, where it does, and nothing else."""
    for checker in CHECKERS:
        said, expected = complaints[checker].get(snippet.module, {}), snippet.expected[checker]
        story = "\n".join(f"{number}: {message}" for number, message in said.items()) or "nothing"
        assert sorted(said) == sorted(expected), f"{checker} said\n{story}\nof\n{snippet.source}"
        for number, fragment in expected.items():
            assert fragment in said[number], f"{checker} said\n{story}"
