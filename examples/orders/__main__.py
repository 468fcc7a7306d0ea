"""`python -m examples.orders`: run it all, and see that it adds up."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import structlog
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from amends.contracts import AmendsError

from . import audit
from .home import BROKER, STORE, surroundings
from .processes import KINDS, ProcessEnded, roles
from .run import Kills, Result, run
from .world import Ending, generate_orders, read_orders

FINE, DOES_NOT_ADD_UP, FAILED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example with command-line arguments; gives the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    with ExitStack() as stack:
        stack.enter_context(surroundings({BROKER: options.broker or "", STORE: options.store or ""}))
        home: Path = options.home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amends-orders-")))
        try:
            orders = read_orders(options.orders) if options.orders else generate_orders(options.count, options.seed)
            source = f"from {options.orders}" if options.orders else f"of seed {options.seed}"
            where = _where(options)
            console.print(f"{len(orders):,} orders {source}; {where}; everything in {home}", highlight=False)
            if options.in_process:
                _keep_log(stack, home)
            ours = not options.in_process and not options.elsewhere
            kills = Kills(tuple(options.kill) if ours else (), options.kill_every)
            result = asyncio.run(
                run(
                    home.resolve(),
                    orders,
                    kills,
                    console,
                    in_process=options.in_process,
                    elsewhere=options.elsewhere,
                    replicas=options.replicas,
                )
            )
        except KeyboardInterrupt:
            console.print(
                "interrupted; all processes are stopped. With the same --home, the next run goes on from here"
            )
            return INTERRUPTED
        except (ExceptionGroup, AmendsError, ProcessEnded, OSError, ValueError) as error:
            console.print(f"[red]✗[/] {_first(error)}", highlight=False, markup=True)
            return FAILED
    show(result, console)
    return DOES_NOT_ADD_UP if result.problems else FINE


def _where(options: argparse.Namespace) -> str:
    if options.elsewhere:
        return "the services and coordinators run elsewhere"
    return "in this process" if options.in_process else f"{len(roles(options.replicas))} processes"


def _keep_log(stack: ExitStack, home: Path) -> None:
    """Let the services in this process write into a file what would go across the progress bars."""
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = stack.enter_context((logs / "in-process.log").open("a", encoding="utf-8"))
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    stack.callback(structlog.reset_defaults)
    structlog.configure([structlog.processors.add_log_level, plain], logger_factory=structlog.WriteLoggerFactory(log))


def _first(error: Exception) -> Exception:
    """What went wrong first, of tasks that ran side by side."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("examples.orders", description=__doc__)
    parser.add_argument("--orders", type=Path, metavar="FILE", help="a CSV file: order_id, customer_id, order_status")
    parser.add_argument("--count", type=int, default=300, metavar="N", help="or make up so many orders (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="of which seed (%(default)s)")
    parser.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        help="where the databases are kept; with the same one again nothing happens twice",
    )
    parser.add_argument("--broker", metavar="URL", help="the broker; without it, a file at home")
    parser.add_argument("--store", metavar="URL", help="the store of the sagas; without it, the same file")
    parser.add_argument(
        "--kill",
        type=_kinds,
        default=["participants"],
        metavar="KINDS",
        help=f"kill -9 these midway: {','.join(KINDS)}",
    )
    parser.add_argument("--kill-every", type=_seconds, metavar="SECONDS", help="kill them again and again, in turn")
    parser.add_argument(
        "--replicas", type=_count, default=1, metavar="N", help="how many processes each service has (%(default)s)"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--in-process", action="store_true", help="run it all in this process; nothing is killed then")
    place.add_argument(
        "--elsewhere",
        action="store_true",
        help="the services and coordinators run already, with the same home, broker and store: only place the orders",
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time to wait; give seconds, such as 3")
    return seconds


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} are too few; give 1 or more")
    return count


def _kinds(text: str) -> list[str]:
    kinds = [kind for kind in text.split(",") if kind]
    if unknown := set(kinds).difference(KINDS):
        raise argparse.ArgumentTypeError(
            f"no such processes: {', '.join(sorted(unknown))}; there are {','.join(KINDS)}"
        )
    return kinds


def show(result: Result, console: Console) -> None:
    """What became of the orders, and the proof."""
    table = Table(title="What became of the orders", box=SIMPLE)
    table.add_column("")
    table.add_column("orders", justify="right")
    table.add_column("expected", justify="right")
    for where in dict.fromkeys((*Ending, *result.found)):
        if not result.found[where] and not result.expected[where]:
            continue
        table.add_row(where, f"{result.found[where]:,}", f"{result.expected[where]:,}")
    console.print(table)
    audit.show(result.findings, console)
    if result.existing:
        console.print(
            f"[green]✓[/] {result.existing:,} of the orders were there already; nothing happened twice", highlight=False
        )
    for problem in result.problems[: audit.SHOWN]:
        if problem not in result.findings.problems:
            console.print(f"[red]✗[/] {problem}", highlight=False)
    total = result.found.total()
    problems = len(result.problems)
    verdict = f"[red]✗ {problems:,} problem{'s' * (problems != 1)}[/]" if problems else "[green]✓[/] it adds up"
    console.print(
        f"{verdict}: {total:,} orders in {result.seconds:.1f} s ({total / result.seconds:,.0f} a second), "
        f"{result.kills} kill{'s' * (result.kills != 1)}",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
