"""The commands that speak to sagas through a coordinator."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import typer

from amends.contracts import JSON, UsageError
from amends.contracts.payloads import Recorded
from amends.coordinator.cli.errors import Exit, complain
from amends.coordinator.cli.inputs import plain_input, read_object, saga_input
from amends.coordinator.cli.options import ASKING, CONNECTED, By, Call, SagaId, command
from amends.coordinator.cli.output import Output, waiting
from amends.coordinator.cli.records import outcome_record
from amends.coordinator.client import Handle, SagaClient
from amends.coordinator.core.snapshot import RunStatus, Snapshot
from amends.coordinator.loading import load_saga
from amends.coordinator.outcome import Outcome

_LOOK_S = 0.5
"""How often a saga that is waited for is looked at, to show its step and to notice that it is stuck."""

Reason = Annotated[str, typer.Option("--reason", help="Why; it goes into the journal.")]
Saw = Annotated[
    int | None, typer.Option("--saw", metavar="VERSION", help="Refuse when the saga is no longer at this version.")
]
Step = Annotated[str, typer.Argument(metavar="STEP", help="The name of a stuck step.")]


@asynccontextmanager
async def _client(call: Call) -> AsyncIterator[SagaClient]:
    settings = call.settings
    async with SagaClient(broker=settings.broker, store=settings.store, timeout=settings.timeout) as client:
        yield client


def _operator(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _done(call: Call, saga_id: str, what: str, note: str = "") -> None:
    told = f"{saga_id}: {what}{f' ({note})' if note else ''}"
    call.out.result({"id": saga_id, "done": what, "note": note}, lambda out: out.line(told))


async def start(
    call: Call,
    saga: Annotated[str, typer.Argument(metavar="NAME|MODULE:SAGA", help="A saga's name, or its class.")],
    fields: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE…", help="Its input, field by field.")
    ] = None,
    *,
    id: Annotated[str, typer.Option("--id", help="The id to start it under. Starting again is harmless.")],
    input: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Its input: JSON, @file, or - for standard input.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", help="With a name: which version; else the newest.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code tells how it went.")] = False,
    within: Annotated[
        float | None, typer.Option("--within", metavar="SECONDS", help="Wait, but not longer than this.")
    ] = None,
) -> int | None:
    """Start a saga, and wait for its end if asked to.

    With a name, a VALUE is read as JSON where it can be, else as text: write sku='"007"' for a text of digits. With a
    class it is read as the type of its field.
    """
    pairs = fields or []
    if wait and any(pair.replace(".", "", 1).isdigit() for pair in pairs):
        raise UsageError("--wait takes no number. Write --within SECONDS for a limit")
    made: Any = None
    if ":" in saga:
        if version is not None:
            raise UsageError("--version goes with a saga's name: a class has its own version")
        made = saga_input(load_saga(saga), input, pairs)
    data = {} if made is not None else plain_input(input, pairs, "--input")
    async with _client(call) as client:
        if made is not None:
            handle: Handle[Any] = await client.start(made, id=id)
        else:
            handle = await client.start(saga, data, id=id, version=version)
        if not wait and within is None:
            told = "is there already, with this input" if handle.existing else "started"
            call.out.result({"id": id, "existing": handle.existing}, lambda out: out.line(f"{id}: {told}"))
            return None
        return _ended(call, await _wait(client, handle, within), handle.existing)


async def _wait(client: SagaClient, handle: Handle[Any], within: float | None) -> Outcome[Any]:
    """The outcome once the saga has ended, or is stuck: then it ends only if somebody does something."""
    result = asyncio.create_task(handle.result(timeout=within))
    try:
        with waiting(f"{handle.id}: running") as show:
            while not result.done():
                await asyncio.wait([result], timeout=_LOOK_S)
                snapshot = await client.snapshot(handle.id)
                if snapshot.stuck:
                    return await handle.outcome()
                show(_progress(snapshot))
        return await result
    finally:
        result.cancel()
        await asyncio.gather(result, return_exceptions=True)


def _progress(snapshot: Snapshot) -> str:
    under_way = ", ".join(f"{run.step} {run.status}" for run in snapshot.runs.values() if run.ended_at is None)
    return f"{snapshot.id}: {snapshot.phase}{f' ({under_way})' if under_way else ''}"


def _ended(call: Call, outcome: Outcome[Any], existing: bool) -> int | None:
    def show(out: Output) -> None:
        flags = "".join(f", {flag}" for flag in ("stuck", "paused") if getattr(outcome, flag))
        out.line(f"{outcome.saga_id}: {outcome.status}{flags}")
        if outcome.failure is not None:
            out.line(f"  because of {outcome.failure.error}: {outcome.failure.message}".rstrip(": "))
        for waived in outcome.waived:
            out.line(f"  waived {waived.step}, by {waived.by}: {waived.reason}")

    call.out.result({**outcome_record(outcome), "existing": existing}, show)
    if outcome.stuck:
        complain(f"{outcome.saga_id!r} is stuck: look with `amends show`, then retry, skip or resolve the step")
    return None if outcome.status == "completed" else Exit.FAILED


async def wait(
    call: Call,
    saga_id: SagaId,
    within: Annotated[
        float | None, typer.Option("--within", metavar="SECONDS", help="Wait no longer than this.")
    ] = None,
) -> int | None:
    """Wait for the end of a saga."""
    async with _client(call) as client:
        return _ended(call, await _wait(client, client.handle(saga_id), within), existing=True)


async def signal(
    call: Call,
    saga_id: SagaId,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="The stable name of the signal, such as approve.v1.")],
    data: Annotated[list[str] | None, typer.Argument(metavar="JSON|FIELD=VALUE…", help="What it says.")] = None,
    message_id: Annotated[
        str | None, typer.Option("--message-id", help="Makes repeating it harmless: one id is heard once.")
    ] = None,
) -> None:
    """Give a saga a word from outside. It is kept until a step awaits it."""
    given = data or []
    as_json = len(given) == 1 and given[0].startswith(("{", "@", "-"))
    content = read_object(given[0], "the signal") if as_json else plain_input(None, given, "the signal")
    async with _client(call) as client:
        await client.signal_raw(saga_id, type, content, id=message_id)
    _done(call, saga_id, "signalled")


async def cancel(call: Call, saga_id: SagaId, reason: Reason, by: By = None) -> None:
    """Make a saga undo what it did, and end. Refused once its pivot is done."""
    async with _client(call) as client:
        note = await client.cancel(saga_id, reason=reason, by=_operator(by))
    _done(call, saga_id, "cancelled", note)


async def pause(
    call: Call,
    saga_id: SagaId,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the journal.")] = "",
    by: By = None,
) -> None:
    """Hold a saga. It sends nothing until it is resumed, and keeps what comes in."""
    async with _client(call) as client:
        await client.pause(saga_id, reason=reason, by=_operator(by))
    _done(call, saga_id, "paused")


async def resume(call: Call, saga_id: SagaId, by: By = None) -> None:
    """Let a paused saga go on."""
    async with _client(call) as client:
        await client.resume(saga_id, by=_operator(by))
    _done(call, saga_id, "resumed")


async def retry(
    call: Call,
    saga_id: SagaId,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="One stuck step; else all.")] = None,
    by: By = None,
    saw: Saw = None,
) -> None:
    """Try what is stuck again."""
    async with _client(call) as client:
        await client.retry(saga_id, step, by=_operator(by), expected_version=saw)
        stuck = await _still_stuck(client, saga_id)
    _done(call, saga_id, "retried", stuck)


async def skip(call: Call, saga_id: SagaId, step: Step, reason: Reason, by: By = None, saw: Saw = None) -> None:
    """Leave a stuck step, or undo, as it is. The saga lists it as waived for ever."""
    async with _client(call) as client:
        await client.skip(saga_id, step, reason=reason, by=_operator(by), expected_version=saw)
        stuck = await _still_stuck(client, saga_id)
    _done(call, saga_id, "skipped", "; ".join(filter(None, (step, stuck))))


async def resolve(
    call: Call,
    saga_id: SagaId,
    step: Step,
    *,
    forward: Annotated[
        bool, typer.Option("--forward/--back", help="It is done; or: it never happened, or was undone by hand.")
    ],
    reason: Reason,
    reply: Annotated[
        str | None,
        typer.Option("--reply", metavar="JSON", help="With --forward: what the participant would have said."),
    ] = None,
    type: Annotated[str | None, typer.Option("--type", metavar="TAG", help="The stable name of that reply.")] = None,
    by: By = None,
    saw: Saw = None,
) -> None:
    """Say what became of a stuck step."""
    if (reply is not None or type is not None) and not forward:
        raise UsageError("--reply and --type go with --forward: what never happened has no reply")
    if reply is not None and type is None:
        raise UsageError("--reply needs --type, the stable name of the reply (`amends graph --format json` lists them)")
    who = _operator(by)
    async with _client(call) as client:
        if forward:
            content = {} if reply is None else read_object(reply, "--reply")
            told = None if type is None else Recorded(type, msgspec.Raw(JSON.encode(content)))
            await client.resolve_forward(saga_id, step, told, reason=reason, by=who, expected_version=saw)
        else:
            await client.resolve_back(saga_id, step, reason=reason, by=who, expected_version=saw)
        stuck = await _still_stuck(client, saga_id)
    _done(call, saga_id, "resolved", "; ".join(filter(None, (f"{step} {'forward' if forward else 'back'}", stuck))))


async def _still_stuck(client: SagaClient, saga_id: str) -> str:
    """What is stuck now, after an operator's word was applied; it may be the same step again."""
    snapshot = await client.snapshot(saga_id)
    runs = [run for run in snapshot.runs.values() if run.status in (RunStatus.STUCK, RunStatus.UNDO_STUCK)]
    told = [f"{run.step} ({run.failure.error}: {run.failure.message})" if run.failure else run.step for run in runs]
    return f"stuck now: {', '.join(told)}" if told else ""


def add_to(app: typer.Typer) -> None:
    for fn in (start, wait, signal, cancel, pause, resume, retry, skip, resolve):
        # waiting asks nobody, so there is no answer that could take too long: --within is its one limit
        command(app, fn.__name__, CONNECTED if fn is wait else ASKING)(fn)
