"""What came of a run on servers, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Final

from msgspec import Struct
from rich.table import Table


class Result(Struct, frozen=True, kw_only=True):
    """One contestant: sagas per second at full load, times to the end of one at half of that, in milliseconds.

    `cpu_s` are processor seconds and `bytes` bytes for 1,000 sagas at full load, for each part. `note` says what one
    must know of how it was run.
    """

    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_s: dict[str, float] = {}
    bytes: dict[str, float] = {}
    note: str = ""


_NUMBERS: Final = ("rate", "p50_ms", "p99_ms")
_TABLES: Final = ("cpu_s", "bytes")


def middle_result(results: Sequence[Result]) -> Result:
    """The medians of several rounds, each figure by itself."""
    found: dict[str, Any] = {name: _middle([getattr(one, name) for one in results]) for name in _NUMBERS}
    for table in _TABLES:
        rows = [getattr(one, table) for one in results]
        found[table] = {name: median([row[name] for row in rows]) for name in rows[0]}
    return Result(**found, note=results[0].note)


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def tables(results: dict[str, Result], shares: dict[str, float]) -> Iterable[Table]:
    """What came out, and what it cost."""
    yield _table(
        ("", "per second", "ratio", "p50 ms at half load", "p99 ms", "CPU s per 1,000"),
        [
            (
                name,
                f"{one.rate:,.0f}",
                number(shares.get(name), 2),
                number(one.p50_ms, 0),
                number(one.p99_ms, 0),
                number(sum(one.cpu_s.values()) if one.cpu_s else None, 2),
            )
            for name, one in results.items()
        ],
    )
    for title, table, factor, places in (
        ("CPU s per 1,000 sagas", "cpu_s", 1, 2),
        ("kB per 1,000 sagas", "bytes", 1e-3, 0),
    ):
        parts = list(dict.fromkeys(part for one in results.values() for part in getattr(one, table)))
        rows = []
        for name, one in results.items():
            costs = getattr(one, table)
            rows.append((name, *(number(costs[part] * factor if part in costs else None, places) for part in parts)))
        if parts:
            yield _table((title, *parts), rows)


def number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:,.{places}f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    return table
