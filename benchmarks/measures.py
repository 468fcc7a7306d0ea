"""What a benchmark reports, and how it is measured."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Self

from msgspec import Struct


class Measure(Struct, frozen=True, kw_only=True):
    """One run of one thing. `rate` is things per second; the rest is what it cost, where that is known.

    `cpu_s` is the processor time of all processes for 1,000 of them, `bytes` what one leaves in the file. Times to the
    end of one are in milliseconds.
    """

    rate: float | None = None
    cpu_s: float | None = None
    bytes: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


class Stopwatch:
    """Measures the time of a `with`, on the wall and on the processor."""

    def __enter__(self) -> Self:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._took, self._spent = time.perf_counter() - self._began, time.process_time() - self._cpu

    def measure(self, things: int, *, bytes: int | None = None, cpu_elsewhere_s: float = 0.0) -> Measure:
        spent = self._spent + cpu_elsewhere_s
        left = None if bytes is None else bytes / things
        return Measure(rate=things / self._took, cpu_s=1000 * spent / things, bytes=left)


def latency(seconds: list[float]) -> Measure:
    """The middle one, and the one that 99 of 100 do not exceed."""
    ordered = sorted(seconds)
    return Measure(p50_ms=1000 * median(ordered), p99_ms=1000 * ordered[max(0, -(-len(ordered) * 99 // 100) - 1)])


def middle(measures: list[Measure]) -> Measure:
    """The medians of several runs, each figure by itself."""
    found = {name: [getattr(one, name) for one in measures] for name in Measure.__struct_fields__}
    return Measure(**{name: median(values) for name, values in found.items() if None not in values})


def bytes_of(file: Path) -> int:
    """The size of a database, with what is in its log still."""
    with closing(sqlite3.connect(file)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(size)
