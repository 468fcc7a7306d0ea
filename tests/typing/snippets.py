"""Snippets of users' code, and what the type checkers are to say about them.

A snippet begins with `### title`. Lines that begin with `=== ` are imports for all snippets of a file. A trailing
`#! mypy: fragment ;; pyright: fragment` says that this checker complains on this line, in words that hold the fragment.
On every other line both must be silent.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).parent / "snippets"
CHECKERS = ("mypy", "pyright")

_IMPORTS = """\
from typing import Any, TypeVar, assert_type
from shop import *
"""


class Snippet(Struct, frozen=True):
    """`expected` maps a checker to the fragments that it must say, by line of `source`."""

    title: str
    module: str
    source: str
    expected: dict[str, dict[int, str]]


def read_snippets(topic: str) -> list[Snippet]:
    """The snippets of one file, such as `saga`."""
    head, *parts = (FOLDER / f"{topic}.txt").read_text().split("\n### ")
    imports = _IMPORTS + "".join(f"{line[4:]}\n" for line in head.splitlines() if line.startswith("=== "))
    return [_read(topic, index, imports, part) for index, part in enumerate(parts)]


def _read(topic: str, index: int, imports: str, part: str) -> Snippet:
    title, _, body = part.partition("\n")
    expected: dict[str, dict[int, str]] = {checker: {} for checker in CHECKERS}
    lines = (imports + body).splitlines()
    for number, line in enumerate(lines, 1):
        lines[number - 1], marker, says = line.partition("  #! ")
        for one in says.split(" ;; ") if marker else ():
            checker, _, fragment = one.partition(": ")
            expected[checker][number] = fragment
    return Snippet(title, f"{topic}_{index:02}", "\n".join(lines) + "\n", expected)
