"""Reading the documentation: its pages, their code blocks, and what their commands are said to print.

The convention: a Python block whose first line is `# file: NAME` is that file, in the folder that the commands of the
page run in; other Python blocks are fragments. A `console` block holds commands after `$ ` and what they print; a line
`…` stands for lines that were left out. Blocks of other kinds (`sh`, `text`) are not run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

LEFT_OUT = "…"


class Block(NamedTuple):
    language: str
    line: int
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is, if it is one."""
        first = self.text.partition("\n")[0]
        return first.removeprefix("# file: ").strip() if first.startswith("# file: ") else None


class Command(NamedTuple):
    line: int
    text: str
    prints: list[str]


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    language: str | None = None
    start, lines = 0, list[str]()
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if language is None and line.startswith("```"):
            language, start, lines = line[3:].strip(), number, []
        elif language is not None and line == "```":
            found.append(Block(language, start, "\n".join(lines) + "\n"))
            language = None
        elif language is not None:
            lines.append(line)
    assert language is None, f"{page.name}, line {start}: the block has no end"
    return found


def commands(page: Path) -> list[Command]:
    """The commands of all console blocks of a page, in order."""
    found: list[Command] = []
    for block in blocks(page):
        if block.language != "console":
            continue
        for number, line in enumerate(block.text.splitlines(), block.line + 1):
            if line.startswith("$ "):
                found.append(Command(number, line[2:], []))
            else:
                found[-1].prints.append(line)
    return found


def write_files(page: Path, folder: Path) -> list[Path]:
    """Write the files that a page holds into a folder."""
    written = []
    for block in blocks(page):
        if block.language == "python" and block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
            written.append(path)
    return written


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What can stand behind `#` in a link to a page, as GitHub makes it of the headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


_VARYING = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( UTC|Z)?", "TIME"),
    (r"~[0-9a-f]{18}/", "~INCARNATION/"),
    (r"in \d+\.\d+s", "in SECONDS"),
    (r"\s+", " "),
)
"""What differs from run to run."""

_SHELLS_OWN = re.compile(r"(\S+: (line )?\d+: +(\d+ )?)?(Killed|Terminated)\b")
"""What shells say of their children on their own."""


def _plain(lines: list[str]) -> list[str]:
    plain = []
    for line in lines:
        if _SHELLS_OWN.match(line):
            continue
        for pattern, word in _VARYING:
            line = re.sub(pattern, word, line)
        if line.strip():
            plain.append(line.strip())
    return plain


def is_shown(shown: list[str], printed: list[str]) -> bool:
    """Whether what a page shows is what was printed, but for times, ids, blank lines, and what `…` stands for."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == LEFT_OUT else f"{re.escape(line)}\n" for line in _plain(shown)
    )  # fmt: skip
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _plain(printed))) is not None
