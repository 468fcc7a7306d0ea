"""`amends run`: coordinators and participants in one process or several, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from amends.brokers.connect import connect_broker
from amends.brokers.settings import Settings, without_password
from amends.contracts import InternalError, TransientError, UsageError
from amends.coordinator.cli.errors import Exit
from amends.coordinator.cli.logs import configure_logs
from amends.coordinator.cli.options import CONNECTED, Call, Inbox, Log, LogLevel, Workers, command
from amends.coordinator.cli.output import Output
from amends.coordinator.cli.runner import run as run_loop
from amends.coordinator.cli.supervisor import Supervisor
from amends.coordinator.cli.worker import Worker
from amends.coordinator.coordinator import Coordinator, Engine
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.loading import Parts, load_parts
from amends.coordinator.trouble import Trouble
from amends.participants import Participant

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_GRACE_S: Final = 30.0
"""How long handlers that are at work may still take once it is told to stop."""
_LAST_GRACE_S: Final = 5.0
"""How long a worker whose supervisor is gone may take beyond that, before it ends itself."""


class Only(StrEnum):
    SAGAS = "sagas"
    PARTICIPANTS = "participants"


def run(
    call: Call,
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE…", help="pkg.mod, pkg.mod:attribute, or the path of a .py file.")
    ],
    only: Annotated[Only | None, typer.Option("--only", help="Run only what is of this kind.")] = None,
    service: Annotated[
        list[str] | None, typer.Option("--service", metavar="NAME", help="Of the participants, run only this one.")
    ] = None,
) -> int | None:
    """Run the sagas and participants of modules. It ends with SIGTERM or Ctrl-C.

    Any number of such processes may share a broker and a store; --workers starts several, and replaces those that die.
    While broker or store is away, it waits, also at the start, and goes on by itself. Told to stop, it finishes what is
    in hand; told twice, it stops at once, and others do it again. --json prints one line that says what runs, once it
    does.
    """
    worker = Worker.of_a_supervisor(_GRACE_S + _LAST_GRACE_S)
    parts = _select(load_parts(modules), only, service or [], modules)
    if worker is not None:
        configure_logs(call.settings, worker.number, for_good=True)
        run_loop(_run(call, parts, worker))
        return None
    configure_logs(call.settings, for_good=True)
    if call.settings.workers > 1:
        _check_workers(call.settings, parts)
        return run_loop(_supervise(call, parts))
    run_loop(_run(call, parts))
    return None


def _select(parts: Parts, only: Only | None, services: list[str], modules: list[str]) -> Parts:
    """What of the parts is to run. Raises `UsageError` when that is nothing."""
    known = sorted({participant.service for participant in parts.participants})
    for name in services:
        if name not in known:
            raise UsageError(f"--service {name}: there is no such participant; known: {', '.join(known) or 'none'}")
    participants = [p for p in parts.participants if not services or p.service in services]
    selected = Parts(
        () if only is Only.PARTICIPANTS else parts.sagas, () if only is Only.SAGAS else tuple(participants)
    )
    if not selected.sagas and not selected.participants:
        raise UsageError(f"there are no {only} in {', '.join(modules)}, so there is nothing to run")
    return selected


def _check_workers(settings: Settings, parts: Parts) -> None:
    """Raise `UsageError` for what several processes cannot share."""
    if sys.platform == "win32":
        raise UsageError("--workers is not for Windows: start `amends run` several times")
    urls = {"broker": settings.broker, **({"store": settings.store} if parts.sagas else {})}
    for what, url in urls.items():
        if url.startswith("memory:"):
            raise UsageError(
                f"--workers {settings.workers} does not go with the {what} {url}: it is in the memory of one process, "
                f"so that each worker would have its own. Use a {what} that processes share, or --workers 1"
            )


async def _supervise(call: Call, parts: Parts) -> int:
    settings = call.settings
    with _told_to_stop() as stop:
        supervisor = Supervisor(call.arguments, settings.workers, stop)

        def tell() -> None:
            document = {**_document(settings, parts), "workers": supervisor.pids}
            call.out.result(document, lambda out: _tell(out, settings, parts))

        def tell_of_stopping() -> None:
            if not call.out.json:
                call.out.line("Stopping: finishing what is in hand")

        code = await supervisor.run(tell, tell_of_stopping)
    if code == Exit.OK and not call.out.json:
        call.out.line("Stopped")
    return code


async def _run(call: Call, parts: Parts, worker: Worker | None = None) -> None:
    settings = call.settings
    # of several workers, the supervisor is the one that tells
    tells = worker is None and not call.out.json
    with _told_to_stop() as stop:
        async with AsyncExitStack() as stack:
            engine = await _open_patiently(stack, settings, parts, stop)
            if stop.is_set():
                pass
            elif worker is None:
                call.out.result(_document(settings, parts), lambda out: _tell(out, settings, parts))
            else:
                worker.ready()
            waits: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
            if engine is not None:
                waits.append(asyncio.create_task(engine.stopped()))
            try:
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()
            if not stop.is_set():
                for task in done:
                    task.result()
                raise InternalError("the coordinator has stopped by itself")
            if tells:
                call.out.line("Stopping: finishing what is in hand")
    if tells:
        call.out.line("Stopped")


async def _open_patiently(
    stack: AsyncExitStack, settings: Settings, parts: Parts, stop: asyncio.Event
) -> Engine | None:
    """Begin to work, once broker, store and inbox are there. What is away is told once."""
    trouble = Trouble("the start")
    while not stop.is_set():
        try:
            async with AsyncExitStack() as opened:
                engine = await _open(opened, settings, parts)
                stack.push_async_exit(opened.pop_all())
        except TransientError as error:
            trouble.report(error)
        else:
            trouble.over()
            return engine
        with suppress(TimeoutError):
            async with asyncio.timeout(trouble.next_wait()):
                await stop.wait()
    return None


async def _open(stack: AsyncExitStack, settings: Settings, parts: Parts) -> Engine | None:
    """Begin to work; gives the coordinator, if there are sagas. Raises `TransientError` for what is away."""
    broker = await connect_broker(settings.broker)
    stack.push_async_callback(broker.close)
    for participant in parts.participants:
        inbox = participant.inbox or settings.inbox
        await stack.enter_async_context(participant.running(broker, inbox=inbox, grace=_GRACE_S))
    if not parts.sagas:
        return None
    return await stack.enter_async_context(Coordinator(parts.sagas, broker=broker, store=settings.store).running())


@contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """An event that is set by the first SIGTERM or SIGINT. The second ends the process on the spot: nothing is lost by
    that, since what was in hand is delivered again."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    told_before = False

    def told(number: int, _: object) -> None:
        nonlocal told_before
        if told_before:
            # not print(): this may have interrupted one
            os.write(2, b"amends: stopped at once; what was in hand is done again by the next run\n")
            os._exit(128 + number)
        told_before = True
        loop.call_soon_threadsafe(stop.set)

    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, told)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])


def _document(settings: Settings, parts: Parts) -> dict[str, Any]:
    return {
        "running": True,
        "pid": os.getpid(),
        "sagas": [definition_of(saga).tag for saga in parts.sagas],
        "participants": [
            {"service": participant.service, "handles": sorted(participant.handlers)}
            for participant in parts.participants
        ],
        "broker": without_password(settings.broker),
        "store": without_password(settings.store) if parts.sagas else None,
    }


def _tell(out: Output, settings: Settings, parts: Parts) -> None:
    rows = [("saga", definition_of(saga).tag, _steps(len(definition_of(saga).steps))) for saga in parts.sagas]
    rows += [("participant", one.service, _handlers(one)) for one in parts.participants]
    rows.append(("broker", without_password(settings.broker), ""))
    if parts.sagas:
        rows.append(("store", without_password(settings.store), ""))
    if settings.workers > 1:
        rows.append(("workers", str(settings.workers), ""))
    out.table(("", "", ""), rows)
    out.line("Running. Stop it with Ctrl-C or SIGTERM")


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _handlers(participant: Participant) -> str:
    undoing = sum(handler.compensates for handler in participant.handlers.values())
    doing = len(participant.handlers) - undoing
    return f"{doing} action{'' if doing == 1 else 's'}, {undoing} compensation{'' if undoing == 1 else 's'}"


def add_to(app: typer.Typer) -> None:
    command(app, "run", {"inbox": Inbox, "log": Log, "log_level": LogLevel, "workers": Workers, **CONNECTED})(run)
