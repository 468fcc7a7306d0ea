"""The commands that look at dead letters: messages that nobody could process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from amends.brokers import DeadLetter
from amends.brokers.connect import connect_broker
from amends.coordinator.cli.errors import Exit, Failed
from amends.coordinator.cli.options import CARRIED, Call, command
from amends.coordinator.cli.output import Output
from amends.coordinator.cli.records import letter_record, readable

_ALL = 1_000_000


async def _letters(call: Call, limit: int) -> Sequence[DeadLetter]:
    broker = await connect_broker(call.settings.broker)
    try:
        return await broker.dead_letters(limit)
    finally:
        await broker.close()


async def list_letters(
    call: Call, limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 100
) -> None:
    """List dead letters, the newest first.

    --json prints {"dead_letters": […]}.
    """
    letters = await _letters(call, limit)

    def show(out: Output) -> None:
        if not letters:
            out.line("no dead letters")
            return
        rows = []
        for letter in letters:
            saga_id, type = ("", "") if letter.envelope is None else (letter.envelope.subject, letter.envelope.type)
            rows.append((letter.id, letter.at, letter.reason, letter.queue, type, saga_id, letter.detail))
        out.table(("number", "at", "reason", "queue", "type", "saga", "detail"), rows)

    call.out.result({"dead_letters": [letter_record(letter, whole=False) for letter in letters]}, show)


async def show_letter(call: Call, number: Annotated[int, typer.Argument(metavar="NUMBER")]) -> None:
    """Show one dead letter: its reason, its attributes and its data."""
    letter = next((letter for letter in await _letters(call, _ALL) if letter.id == number), None)
    if letter is None:
        raise Failed(f"there is no dead letter {number}; `amends dead list` shows them", Exit.UNKNOWN_ID)

    def show(out: Output) -> None:
        out.line(f"dead letter {letter.id}: {letter.reason}")
        out.line(f"  {letter.detail}")
        envelope = letter.envelope
        facts: list[tuple[str, object]] = [
            ("queue", letter.queue), ("at", letter.at), ("deliveries", letter.deliveries)
        ]  # fmt: skip
        if envelope is None:
            out.table(("what", "value"), facts)
            out.data("Body", letter.body.decode(errors="backslashreplace"))
            return
        out.table(("what", "value"), [*facts, *envelope.attributes().items()])
        out.data("Data", readable(envelope.data, envelope.content_type))

    call.out.result(letter_record(letter, whole=True), show)


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at messages that nobody could process.", no_args_is_help=True)
    command(group, "list", CARRIED)(list_letters)
    command(group, "show", CARRIED)(show_letter)
    app.add_typer(group, name="dead")
