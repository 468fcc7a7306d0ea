"""`python -m benchmarks [core|embedded|latency|rabbitmq|kafka|others]… [--sagas N] [--rounds N] [--json]`

Everything is measured in one run, a few rounds of it, one thing after the other in each round, so that what else the
machine does concerns all of them alike; the medians of the rounds are told. Compare ratios, not figures of different
runs. Without words: all that needs no servers.
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
from tests.support.servers import ServiceMissing

from amends.coordinator.cli.runner import run
from benchmarks.bare import bare, bare_latency
from benchmarks.core import core
from benchmarks.embedded import low_load, one_process, two_processes
from benchmarks.measures import Measure, middle
from benchmarks.order import shop_in_transactions, shop_with_claims
from benchmarks.others.contest import OTHERS
from benchmarks.others.environments import install
from benchmarks.servers.contest import AMENDS, KAFKA, RABBITMQ, Contestant
from benchmarks.servers.results import Result, middle_result, number, tables

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
ALONE: Final = (*THROUGHPUT, "latency")
"""What needs no servers."""

SERVERS: Final[dict[str, dict[str, Contestant]]] = {"rabbitmq": RABBITMQ, "kafka": KAFKA, "others": OTHERS}
WHAT: Final = (*ALONE, *SERVERS)


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


def contest(what: Sequence[str], sagas: int, rounds: int, seconds: float) -> tuple[dict[str, Result], dict[str, str]]:
    """The medians of what runs on servers, and why what is missing was left out; by name."""
    jobs = {name: job for group in SERVERS if group in what for name, job in SERVERS[group].items()}
    found: dict[str, list[Result]] = {}
    left_out: dict[str, str] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            if name not in left_out:
                try:
                    result = job(sagas, seconds)
                except ServiceMissing as error:
                    left_out[name] = str(error)
                else:
                    found.setdefault(name, []).append(result)
                    # a round takes minutes
                    print(f"{name}: {result.rate:,.0f} per second", file=sys.stderr, flush=True)
    results = {name: middle_result(rounds) for name, rounds in found.items() if name not in left_out}
    return results, left_out


def shares(results: dict[str, Result]) -> dict[str, float]:
    """Each rate as a share of that of the first of its group, which is the bare loop; of others, of that of amends."""
    found = {}
    for name, group in SERVERS.items():
        first = AMENDS if name == "others" else next(iter(group))
        if first in results:
            found.update({name: results[name].rate / results[first].rate for name in group if name in results})
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast, beside what the parts allow.")
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(WHAT)}; {', '.join(ALONE)} by default")
    parser.add_argument("--sagas", type=int, default=5000, help="how many sagas for each throughput")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trickled", type=int, default=50, help="how many sagas for each latency without servers")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long for each latency on servers")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--install", action="store_true", help="get what `others` needs first, from PyPI and npm")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.what) - set(WHAT):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(WHAT)}")
    what = asked.what or ALONE
    if asked.install:
        install()
    measures = measure(what, asked.sagas, asked.rounds, asked.trickled)
    results, left_out = contest(what, asked.sagas, asked.rounds, asked.seconds)
    parts_of_bare = ratios(measures) | shares(results)
    if asked.json:
        told = {"measures": measures, "servers": results, "ratios": parts_of_bare, "left_out": left_out}
        print(msgspec.json.encode(told).decode())
    else:
        _show(measures, results, parts_of_bare)
    for name, reason in left_out.items():
        print(f"LEFT OUT: {name}: {reason}", file=sys.stderr)
    return 1 if left_out else 0


def _show(measures: dict[str, Measure], results: dict[str, Result], shares: dict[str, float]) -> None:
    console = Console(width=120)
    if measures:
        console.print(_table(measures, shares))
    if results:
        for table in tables(results, shares):
            console.print(table)
        for name, one in results.items():
            console.print(f"{name}: {one.note}")


def _table(measures: dict[str, Measure], shares: dict[str, float]) -> Table:
    table = Table("", "per second", "ratio", "CPU s per 1,000", "bytes each", "p50 ms", "p99 ms")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in measures.items():
        table.add_row(
            name,
            number(one.rate, 0),
            number(shares.get(name), 2),
            number(one.cpu_s, 3),
            number(one.bytes, 0),
            number(one.p50_ms, 1),
            number(one.p99_ms, 1),
        )
    return table


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sys.exit(main(sys.argv[1:]))
