"""How results are shown: tables and lines for people, one JSON document with `--json`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 100_000
"""As many columns as a table may want where no terminal limits it: what is piped on must not be cut."""


def _console(stream: Any) -> Console:
    terminal = stream.isatty()
    return Console(
        file=stream,
        width=None if terminal else _WIDE,
        no_color=None if terminal else True,
        force_terminal=None if terminal else False,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=not terminal,
    )


class Output:
    """Standard output, for people or for programs."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._console = _console(sys.stdout)

    def result(self, document: Any, show: Callable[[Output], None]) -> None:
        """The result of a command: the document with `--json`, else whatever `show` says."""
        if self.json:
            self.document(document)
        else:
            show(self)
        sys.stdout.flush()

    def document(self, document: Any) -> None:
        """One JSON document: on one line, but for people at a terminal."""
        text = msgspec.json.encode(document)
        if sys.stdout.isatty():
            text = msgspec.json.format(text, indent=2)
        sys.stdout.write(text.decode() + "\n")

    def line(self, text: str = "") -> None:
        self._console.print(Text(plain(text)), soft_wrap=True)

    def data(self, title: str, value: Any) -> None:
        """A value as indented JSON under a title."""
        self.line()
        self.line(title)
        for line in msgspec.json.format(msgspec.json.encode(value), indent=2).decode().splitlines():
            self.line(f"  {line}")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
        """A table; columns that are empty throughout are left out, and so is a header of nothing."""
        cells = [[_cell(value) for value in row] for row in rows]
        kept = [i for i in range(len(columns)) if any(row[i].plain for row in cells) or not cells]
        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns), padding=(0, 2, 0, 0))
        for index in kept:
            table.add_column(columns[index], overflow="fold")
        for row in cells:
            table.add_row(*(row[index] for index in kept))
        if title:
            self.line()
            self.line(title)
        with self._console.capture() as captured:
            self._console.print(table)
        for line in captured.get().splitlines():
            sys.stdout.write(line.rstrip(" ") + "\n")


_STYLES = {
    "completed": "green",
    "done": "green",
    "compensated": "yellow",
    "compensating": "yellow",
    "undone": "yellow",
    "stuck": "bold red",
    "undo-stuck": "bold red",
    "error": "bold red",
    "warning": "yellow",
    "paused": "cyan",
    "not reached": "dim",
}


def _cell(value: object) -> Text:
    text = moment(value) if isinstance(value, datetime) else "" if value is None else plain(str(value))
    return Text(text, style=_STYLES.get(text.partition(",")[0], ""))


def plain(text: str) -> str:
    """Text that cannot steer a terminal: what cannot be printed is shown escaped, a line break too."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def moment(time: datetime) -> str:
    """A time for people, in UTC and to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


@contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """Shows that something is being waited for, on a terminal only; gives what changes the text."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda text: None
        return
    with _console(sys.stderr).status(plain(text)) as status:
        yield lambda text: status.update(plain(text))
