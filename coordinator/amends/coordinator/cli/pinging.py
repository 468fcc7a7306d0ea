"""`amends ping`: whether what the settings name can be reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import typer
from msgspec import Struct

from amends.brokers.connect import connect_broker
from amends.brokers.settings import Settings, file_of, without_password
from amends.contracts import TransientError
from amends.coordinator.cli.errors import Exit
from amends.coordinator.cli.options import ASKING, Call, Inbox, command
from amends.coordinator.cli.output import Output
from amends.coordinator.stores import connect_store
from amends.participants.connect import connect_inbox


class Pinged(Struct, frozen=True):
    """What became of one part. `problem` is None when it answered."""

    part: str
    url: str
    ms: float
    problem: str | None = None


async def ping(call: Call) -> int | None:
    """Say whether broker, store and inbox can be reached. Exits with 5 when one cannot.

    It connects as a process would, and writes something to the store; files that are not there are not made. It does
    not ask whether anybody else is connected. The inbox counts when it is named.
    """
    settings = call.settings
    parts = [("broker", settings.broker, _broker), ("store", settings.store, _store)]
    if settings.inbox is not None:
        parts.append(("inbox", settings.inbox, _inbox))
    pinged = [await _ping(part, url, reach, settings) for part, url, reach in parts]
    ok = all(one.problem is None for one in pinged)

    def show(out: Output) -> None:
        rows = [(one.part, one.url, f"{one.ms:.0f} ms" if one.problem is None else one.problem) for one in pinged]
        out.table(("", "", ""), rows)

    call.out.result({"ok": ok, "parts": pinged}, show)
    return None if ok else Exit.TRY_AGAIN


async def _ping(part: str, url: str, reach: Callable[[str], Awaitable[None]], settings: Settings) -> Pinged:
    began = time.monotonic()
    problem = None
    file = file_of(url)
    if file is not None and not file.exists():
        problem = f"there is no file {file} yet"
    else:
        try:
            async with asyncio.timeout(settings.timeout):
                await reach(url)
        except TransientError as error:
            problem = str(error)
        except TimeoutError:
            problem = f"no answer within {settings.timeout:g} s"
    return Pinged(part, without_password(url), 1000 * (time.monotonic() - began), problem)


async def _broker(url: str) -> None:
    broker = await connect_broker(url)
    await broker.close()


async def _store(url: str) -> None:
    store = await connect_store(url)
    try:
        await store.ping()
    finally:
        await store.close()


async def _inbox(url: str) -> None:
    inbox = await connect_inbox(url)
    await inbox.close()


def add_to(app: typer.Typer) -> None:
    command(app, "ping", {"inbox": Inbox, **ASKING})(ping)
