"""`make chaos`: the orders on real brokers and stores, while processes and servers are killed, paused and restarted.

Each run has two coordinators, two processes of each service, the customers, and servers of its own. When it is over,
every saga must have ended legally, the books of the services must balance, no effect may have happened twice, and
nothing may be left anywhere. The seed fixes what is done to it and in which order, by how many orders are at rest;
what it meets there is up to the machine. Redis runs with `appendfsync always`: with `everysec` a `kill -9` may take the
last second of commits with it.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tests.chaos.customers import Source
from tests.chaos.ground import TITLES, Ground, ground
from tests.chaos.plan import Kind
from tests.chaos.run import Report, run
from tests.support.servers import ServiceMissing

FINE, FOUND, FAILED, INTERRUPTED = 0, 1, 2, 130
SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    reports: defaultdict[str, list[Report]] = defaultdict(list)
    grounds: list[str] = options.on
    try:
        for on in grounds:
            reports[on] = _runs(on, options, console)
    except ServiceMissing as missing:
        console.print(f"[red]✗[/] {missing}")
        return FAILED
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return INTERRUPTED
    _show(reports, console)
    return FOUND if any(report.findings for runs in reports.values() for report in runs) else FINE


def _runs(on: str, options: argparse.Namespace, console: Console) -> list[Report]:
    """Run after run until the time is up, with one seed after the other; at least one."""
    until = time.monotonic() + 60 * options.minutes
    reports: list[Report] = []
    while not reports or time.monotonic() < until:
        seed = options.seed + len(reports)
        home = Path(tempfile.mkdtemp(prefix="amends-chaos-"))
        source = Source(options.file, options.orders, seed)
        with ground(on, options.lease, home) as here:
            orders = f"orders of {options.file}" if options.file else "orders"
            console.print(f"[bold]{here.title}[/], seed {seed}, {options.orders:,} {orders}; everything in {home}")
            report = asyncio.run(_run(here, home, source, seed, options, console))
        reports.append(report)
        _tell_verdict(on, report, home, options, console)
        if not report.findings and not options.keep:
            shutil.rmtree(home)
    return reports


async def _run(
    here: Ground, home: Path, source: Source, seed: int, options: argparse.Namespace, console: Console
) -> Report:
    began = time.monotonic()

    def tell(what: str) -> None:
        console.print(f"  {time.monotonic() - began:7.1f} s  {what}", soft_wrap=True)

    kinds = sorted(here.kinds)
    return await run(here, home, source, seed, kinds, options.disturbances or 2 * len(kinds), tell)


def _tell_verdict(on: str, report: Report, home: Path, options: argparse.Namespace, console: Console) -> None:
    if not report.findings:
        console.print(f"  [green]✓[/] {report.seconds:.0f} s, nothing found")
        return
    for finding in report.findings[:SHOWN]:
        console.print(f"  [red]✗[/] {escape(finding)}", soft_wrap=True)
    if len(report.findings) > SHOWN:
        console.print(f"  [red]✗[/] … and {len(report.findings) - SHOWN:,} more")
    file = f" ORDERS_FILE={options.file}" if options.file else ""
    again = f"make chaos ON={on} SEED={report.seed} ORDERS={options.orders}{file}"
    console.print(
        f"  seed {report.seed}: again with `{again}`; logs, books and the servers' data are in {home}", soft_wrap=True
    )


def _show(reports: dict[str, list[Report]], console: Console) -> None:
    table = Table(title="Chaos", box=SIMPLE, caption="Redis: append-only file, appendfsync always")
    table.add_column("")
    for on in reports:
        table.add_column(TITLES[on], justify="right")
    done = {on: _sum(report.done for report in runs) for on, runs in reports.items()}
    endings = {on: _sum(report.endings for report in runs) for on, runs in reports.items()}
    table.add_row("runs", *(str(len(runs)) for runs in reports.values()))
    table.add_section()
    for kind in Kind:
        table.add_row(kind, *(f"{done[on][kind]:,}" for on in reports))
    table.add_section()
    for ending in sorted({ending for counts in endings.values() for ending in counts}):
        table.add_row(f"orders {ending}", *(f"{endings[on][ending]:,}" for on in reports))
    table.add_section()
    table.add_row("seconds", *(f"{sum(run.seconds for run in runs):,.0f}" for runs in reports.values()))
    table.add_row(
        "longest standstill, s", *(f"{max(run.standstill_s for run in runs):,.1f}" for runs in reports.values())
    )
    found = [sum(len(run.findings) for run in runs) for runs in reports.values()]
    table.add_row("findings", *(f"[{'red' if count else 'green'}]{count:,}[/]" for count in found))
    console.print(table)


def _sum(counters: Iterable[Mapping[Any, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tests.chaos", description=__doc__)
    parser.add_argument("--on", type=_grounds, default=list(TITLES), metavar=",".join(TITLES), help="where (all)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what is done to it (%(default)s)")
    parser.add_argument("--orders", type=int, default=2500, metavar="N", help="how many orders (%(default)s)")
    parser.add_argument("--file", type=_file, metavar="CSV", help="real orders, for examples.orders --orders")
    parser.add_argument("--minutes", type=float, default=0.0, metavar="N", help="run again and again for so long, each")
    parser.add_argument("--disturbances", type=int, metavar="N", help="how many in a run (each kind twice)")
    parser.add_argument("--lease", type=float, default=10.0, metavar="SECONDS", help="of the brokers (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep logs and books of runs without findings, too")
    return parser


def _grounds(text: str) -> list[str]:
    chosen = [name for name in text.split(",") if name]
    if unknown := set(chosen) - TITLES.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(TITLES)}")
    return chosen


def _file(text: str) -> Path | None:
    if not text:
        return None
    file = Path(text).resolve()
    if not file.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return file


if __name__ == "__main__":
    sys.exit(main())
