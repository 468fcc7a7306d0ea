"""`python -m benchmarks [core|embedded|latency]… [--sagas N] [--rounds N] [--json]`

Everything is measured in one run, a few rounds of it, one thing after the other in each round, so that what else the
machine does concerns all of them alike; the medians of the rounds are told. Compare ratios, not figures of different
runs.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
from rich.console import Console
from rich.table import Table

from amends.coordinator.cli.runner import run
from benchmarks.bare import bare, bare_latency
from benchmarks.core import core
from benchmarks.embedded import low_load, one_process, two_processes
from benchmarks.measures import Measure, middle
from benchmarks.order import shop_in_transactions, shop_with_claims

Benchmark = Callable[[Path, int], Measure]

_PER_SECOND: Final = 10.0
_BARE: Final = "bare loop, all rows"
_BARE_LATENCY: Final = "bare loop, one saga at a time"

THROUGHPUT: Final[dict[str, dict[str, Benchmark]]] = {
    "core": {"the core alone, transitions": lambda file, sagas: core(sagas)},
    "embedded": {
        _BARE: bare,
        "one process": lambda file, sagas: run(one_process(file, sagas, shop_in_transactions())),
        "one process, handlers with claims": lambda file, sagas: run(one_process(file, sagas, shop_with_claims())),
        "coordinator | participant": lambda file, sagas: run(two_processes(file, sagas)),
    },
}
LATENCY: Final[dict[str, Benchmark]] = {
    _BARE_LATENCY: bare_latency,
    "one process, 10 sagas per second": lambda file, sagas: run(low_load(file, sagas, _PER_SECOND)),
}
WHAT: Final = (*THROUGHPUT, "latency")


def measure(what: Sequence[str], sagas: int, rounds: int, trickled: int) -> dict[str, Measure]:
    """The medians, by name. `sagas` for each throughput, `trickled` for each latency."""
    jobs = [(name, job, sagas) for group in THROUGHPUT if group in what for name, job in THROUGHPUT[group].items()]
    if "latency" in what:
        jobs += [(name, job, trickled) for name, job in LATENCY.items()]
    found: dict[str, list[Measure]] = {name: [] for name, _, _ in jobs}
    for _ in range(rounds):
        for name, job, count in jobs:
            gc.collect()
            with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
                found[name].append(job(Path(folder) / "amends.db", count))
    return {name: middle(measures) for name, measures in found.items()}


def ratios(measures: dict[str, Measure]) -> dict[str, float]:
    """Each figure as a share of the bare loop's: of its rate, or (for a latency) of its median."""
    found = {}
    for name, one in measures.items():
        rate, middle_ms = one.rate, one.p50_ms
        if rate is not None and name in THROUGHPUT["embedded"] and (floor := measures[_BARE].rate):
            found[name] = rate / floor
        elif middle_ms is not None and (floor := measures[_BARE_LATENCY].p50_ms):
            found[name] = middle_ms / floor
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast, beside what the parts allow.")
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(WHAT)}; all of them by default")
    parser.add_argument("--sagas", type=int, default=5000, help="how many sagas for each throughput")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trickled", type=int, default=50, help="how many sagas for each latency")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.what) - set(WHAT):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(WHAT)}")
    measures = measure(asked.what or WHAT, asked.sagas, asked.rounds, asked.trickled)
    shares = ratios(measures)
    if asked.json:
        print(msgspec.json.encode({"measures": measures, "ratios": shares}).decode())
    else:
        _show(measures, shares)
    return 0


def _show(measures: dict[str, Measure], shares: dict[str, float]) -> None:
    table = Table("", "per second", "ratio", "CPU s per 1,000", "bytes each", "p50 ms", "p99 ms")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in measures.items():
        table.add_row(
            name,
            _number(one.rate, 0),
            _number(shares.get(name), 2),
            _number(one.cpu_s, 3),
            _number(one.bytes, 0),
            _number(one.p50_ms, 1),
            _number(one.p99_ms, 1),
        )
    Console(width=110).print(table)


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:,.{places}f}"


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sys.exit(main(sys.argv[1:]))
