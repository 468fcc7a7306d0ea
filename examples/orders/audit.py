"""The audit: do the books of the services agree with what became of the sagas?

What must be in every account follows from the sagas alone: what was there at first, and the effect of each step that
stands. What is there, and every single effect, is read from the services' own databases. Run it alone with
`python -m examples.orders.audit DIR`, where DIR is the `--home` of a run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .books import Book, read_books
from .status import Status, all_statuses, opened

SHOWN = 20
"""How many problems are printed."""


class Line(NamedTuple):
    """One book in one line, summed up over its accounts. `standing` is how many orders it stands for."""

    book: Book
    standing: int
    opening: int
    due: int
    found: int


class Findings(NamedTuple):
    lines: tuple[Line, ...]
    problems: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        return not self.problems


def audit(books: Iterable[Book], sagas: Sequence[Status]) -> Findings:
    """Compare the books with the sagas; every difference is named."""
    problems = [
        f"order {saga.order.order_id} is under way ({saga.undecided}): audit when it has come to rest"
        for saga in sagas
        if saga.undecided
    ]
    lines = []
    for book in books:
        standing = [saga.order for saga in sagas if book.step in saga.standing]
        due = Counter(book.opening)
        for order in standing:
            due[book.account_of(order)] += book.effect_of(order)
        problems += [*_balances(book, due), *_repeated(book), *_of_orders(book, sagas)]
        lines.append(Line(book, len(standing), sum(book.opening.values()), due.total(), sum(book.now.values())))
    return Findings(tuple(lines), tuple(problems))


def _balances(book: Book, due: Mapping[str, int]) -> Iterator[str]:
    """For every account: what was there at first, and the effect of each saga that stands, is what is there now."""
    for name in sorted({*due, *book.now}):
        should, does = due.get(name, 0), book.now.get(name, 0)
        if does != should:
            yield f"{book.title}: {name} should hold {should:,} {book.unit}, but holds {does:,} ({does - should:+,})"


def _repeated(book: Book) -> Iterator[str]:
    """Every effect key happened at most once."""
    for key, times in Counter(entry.key for entry in book.entries).items():
        if times > 1:
            yield f"{book.title}: the effect {key} happened {times} times"


def _of_orders(book: Book, sagas: Iterable[Status]) -> Iterator[str]:
    """Where its step stands, an order has had exactly that effect; where not, none, or the effect and its undo."""
    entries = defaultdict(list)
    for entry in book.entries:
        entries[entry.order_id].append(entry.amount)
    for saga in sagas:
        amounts, effect = sorted(entries.pop(saga.order.order_id, [])), book.effect_of(saga.order)
        stands = book.step in saga.standing
        right = [[effect]] if stands else [[], sorted([effect, -effect])]
        if not saga.undecided and amounts not in right:
            should = f"{effect:+,}" if stands else "no net effect"
            does = ", ".join(f"{amount:+,}" for amount in amounts) or "nothing"
            yield f"{book.title}: order {saga.order.order_id} should have {should} {book.unit}, but has {does}"
    for order_id, amounts in entries.items():
        yield f"{book.title}: {sum(amounts):+,} {book.unit} for order {order_id}, which has no saga"


def show(findings: Findings, console: Console) -> None:
    """The table for people, and the problems below it."""
    table = Table(title="The books", caption="due: what was at first, and what the orders have done to it", box=SIMPLE)
    table.add_column("", no_wrap=True)
    for column in ("orders", "at first", "due", "found", "off by"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in findings.lines:
        amounts = (line.opening, line.due, line.found, line.found - line.due)
        table.add_row(line.book.title, f"{line.standing:,}", *map(line.book.shown, amounts))
    console.print(table)
    for problem in findings.problems[:SHOWN]:
        console.print(f"[red]✗[/] {problem}", highlight=False)
    if len(findings.problems) > SHOWN:
        console.print(f"[red]✗[/] … and {len(findings.problems) - SHOWN:,} more")
    if findings.balanced:
        console.print("[green]✓[/] stock, money and shipments balance exactly, and no effect happened twice")


def main() -> int:
    parser = argparse.ArgumentParser("examples.orders.audit", description="Audit the home of a run.")
    parser.add_argument("home", type=Path, metavar="DIR")
    home: Path = parser.parse_args().home
    findings = audit(read_books(home), asyncio.run(_read_all(home)))
    show(findings, Console())
    return 0 if findings.balanced else 1


async def _read_all(home: Path) -> list[Status]:
    async with opened(home) as store:
        return list((await all_statuses(store)).values())


if __name__ == "__main__":
    sys.exit(main())
