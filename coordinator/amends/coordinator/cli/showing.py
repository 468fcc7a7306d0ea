"""The command that shows what amends does, without anything to write first."""

from __future__ import annotations

from typing import Annotated

import typer

from amends.coordinator.cli.options import LOCAL, Call, command
from amends.coordinator.demo import run_demo


def demo(
    call: Call,
    count: Annotated[int, typer.Option("--count", help="How many orders to make up.")] = 300,
    orders: Annotated[str | None, typer.Option("--orders", metavar="FILE", help="Or a CSV file of orders.")] = None,
    home: Annotated[str | None, typer.Option("--home", metavar="DIR", help="Keep its files here.")] = None,
) -> int:
    """Place orders with three services, kill the services midway, and prove that stock and money balance."""
    arguments = ["--count", str(count)]
    arguments += ["--orders", orders] if orders else []
    arguments += ["--home", home] if home else []
    return run_demo(arguments)


def add_to(app: typer.Typer) -> None:
    command(app, "demo", LOCAL)(demo)
