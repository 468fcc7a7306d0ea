"""The commands that look at what is stored. They need no coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, NoReturn

import typer

from amends.brokers.settings import file_of
from amends.contracts import UsageError
from amends.coordinator.cli.errors import Exit, Failed
from amends.coordinator.cli.history import as_of
from amends.coordinator.cli.inputs import read_key, read_moment
from amends.coordinator.cli.options import STORED, Call, SagaId, command
from amends.coordinator.cli.output import Output
from amends.coordinator.cli.records import (
    journal_record,
    remaining,
    snapshot_record,
    state_of,
    summary_record,
    timers,
)
from amends.coordinator.core.journal import JournalRecord
from amends.coordinator.core.snapshot import Phase, Snapshot, StepRun
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.loading import load_sagas
from amends.coordinator.outcome import UnknownSagaId
from amends.coordinator.store import SagaQuery, SagaStore, SagaSummary
from amends.coordinator.stores import connect_store

Name = Annotated[str | None, typer.Option("--saga", metavar="NAME", help="Only sagas of this name.")]
InPhase = Annotated[Phase | None, typer.Option("--phase", help="Only sagas in this phase.")]
Stuck = Annotated[bool | None, typer.Option("--stuck/--not-stuck", help="Only those that are stuck, or are not.")]
Paused = Annotated[bool | None, typer.Option("--paused/--not-paused", help="Only those that are paused, or are not.")]
WithWaived = Annotated[
    bool | None, typer.Option("--waived/--not-waived", help="Only those in which an operator waived something, or not.")
]
Key = Annotated[
    str | None, typer.Option("--key", metavar="NAME=VALUE", help="Only sagas with this business key: order_id=42.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Only those started then or later: 2026-01-31, 2026-01-31T12:00, 2h."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Only those started before then.")]
Prefix = Annotated[str | None, typer.Option("--id-prefix", metavar="TEXT", help="Only ids that begin so.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]

_PARKED_READ: Final = 100_000


@asynccontextmanager
async def _store(call: Call) -> AsyncIterator[SagaStore]:
    """The store, which looking does not make: in the wrong folder, an empty one would only hide the mistake."""
    url = call.settings.store
    file = file_of(url)
    if file is not None and not file.exists():
        raise Failed(
            f"there is no store at {file} yet. Is this the right folder? `amends run MODULE` makes it", Exit.TRY_AGAIN
        )
    store = await connect_store(url)
    try:
        yield store
    finally:
        await store.close()


async def list_sagas(
    call: Call,
    saga: Name = None,
    phase: InPhase = None,
    stuck: Stuck = None,
    paused: Paused = None,
    waived: WithWaived = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    id_prefix: Prefix = None,
    limit: Limit = 100,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first; else the newest.")] = False,
) -> None:
    """List sagas by when they started. The list may lag behind by a moment.

    Messages that wait for a version that no coordinator has are told below it. --json prints {"sagas": […], "more":
    true|false, "parked": […]}.
    """
    query = SagaQuery(
        saga=saga, phase=phase, stuck=stuck, paused=paused, waived=waived, key=read_key(key),
        started_after=read_moment(since, "--since"), started_before=read_moment(until, "--until"), id_prefix=id_prefix,
        order="oldest" if oldest else "newest", limit=limit + 1,
    )  # fmt: skip
    async with _store(call) as store:
        found = await store.find(query)
        counted = await store.count_parked()
    more = len(found) > limit
    found = found[:limit]
    parked = [(name, version, count) for (name, version), count in counted.items() if saga in (None, name)]

    def show(out: Output) -> None:
        if found:
            columns = ("id", "saga", "phase", "started", "updated", "next timer", "keys")
            rows = [(s.id, s.saga, _phase(s), s.started_at, s.updated_at, s.wake_at, _keys(s.keys)) for s in found]
            out.table(columns, rows)
        else:
            out.line("no sagas")
        if more:
            out.line(f"There are more than these {limit}: narrow it down, or give --limit")
        for name, version, count in parked:
            out.line(_waiting(count, name, version))

    kept = [{"saga": name, "definition_version": version, "messages": count} for name, version, count in parked]
    call.out.result({"sagas": [summary_record(s) for s in found], "more": more, "parked": kept}, show)


def _waiting(count: int, name: str, version: int) -> str:
    messages = "1 message waits" if count == 1 else f"{count} messages wait"
    return f"{messages} for a coordinator that has {name} version {version}"


def _keys(keys: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in keys.items())


def _phase(saga: SagaSummary | Snapshot) -> str:
    flags = [flag for flag in ("stuck", "paused") if getattr(saga, flag)]
    return ", ".join([str(saga.phase), *flags, *(["waived"] if saga.waived else [])])


async def count(
    call: Call,
    saga: Name = None,
    phase: InPhase = None,
    stuck: Stuck = None,
    paused: Paused = None,
    waived: WithWaived = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    id_prefix: Prefix = None,
) -> None:
    """Count sagas."""
    query = SagaQuery(
        saga=saga, phase=phase, stuck=stuck, paused=paused, waived=waived, key=read_key(key),
        started_after=read_moment(since, "--since"), started_before=read_moment(until, "--until"), id_prefix=id_prefix,
    )  # fmt: skip
    async with _store(call) as store:
        number = await store.count(query)
    call.out.result({"count": number}, lambda out: out.line(str(number)))


async def show_saga(
    call: Call,
    saga_id: SagaId,
    module: Annotated[
        list[str] | None,
        typer.Option("--module", metavar="MODULE", help="Where its class is, to show the steps that remain."),
    ] = None,
) -> None:
    """Show one saga. Where it stands, its steps, what is due, and its state."""
    sagas = load_sagas(module or [])
    async with _store(call) as store:
        (stored,) = await store.load([saga_id])
        if stored.snapshot is None:
            await _explain_absence(store, saga_id)
        snapshot = stored.snapshot
        parked = await _parked(store, snapshot.saga, snapshot.definition_version, saga_id)
    definition = _definition(snapshot, [definition_of(s) for s in sagas]) if sagas else None
    document = {**snapshot_record(snapshot, definition), "parked": parked}
    call.out.result(document, lambda out: _show(out, snapshot, definition, parked))


async def _explain_absence(store: SagaStore, saga_id: str) -> NoReturn:
    """There is no such saga; it may be that its start waits for its version."""
    for name, version in await store.count_parked():
        if await _parked(store, name, version, saga_id):
            raise Failed(
                f"{saga_id!r} is not started yet: it waits for a coordinator that has {name} version {version}",
                Exit.TRY_AGAIN,
            )
    raise UnknownSagaId(saga_id)


async def _parked(store: SagaStore, name: str, version: int, saga_id: str) -> int:
    """How many of the first 100,000 messages that wait for a version are for this saga."""
    parked = await store.unpark(name, version, _PARKED_READ)
    return sum(one.message.envelope.subject == saga_id for one in parked)


def _definition(snapshot: Snapshot, loaded: Sequence[Definition]) -> Definition:
    for definition in loaded:
        if (definition.name, definition.version) == (snapshot.saga, snapshot.definition_version):
            return definition
    raise UsageError(
        f"{snapshot.id!r} is a {snapshot.saga} version {snapshot.definition_version}, which --module does not hold; "
        f"it holds {', '.join(definition.tag for definition in loaded)}"
    )


def _show(out: Output, snapshot: Snapshot, definition: Definition | None, parked: int = 0) -> None:
    out.line(f"{snapshot.id}: {_phase(snapshot)}")
    out.line(f"  {snapshot.saga} version {snapshot.definition_version}, at version {snapshot.version} of its own")
    if parked:
        out.line(f"  {_waiting(parked, snapshot.saga, snapshot.definition_version)}, with these steps")
    times = [("  started", snapshot.started_at), ("  updated", snapshot.clock), ("  ended", snapshot.ended_at)]
    out.table(("", ""), [(what, at) for what, at in times if at is not None])
    if snapshot.keys:
        out.line(f"  found by {_keys(snapshot.keys)}")
    if snapshot.failure is not None:
        out.line(f"  goes back because of {snapshot.failure.error}: {snapshot.failure.message}")
    elif snapshot.aborting is not None:
        reason = f"{snapshot.aborting.error}: {snapshot.aborting.message}".rstrip(": ")
        out.line(f"  will go back, unless its pivot is done, because of {reason}")
    if snapshot.suspect is not None:
        since = f"{snapshot.suspect.since:%Y-%m-%d %H:%M:%S} UTC"
        out.line(f"  commits after {since} may be lost, and its participants are asked: {snapshot.suspect.why}")
    if snapshot.committed:
        out.line("  its pivot was done in a lost commit: it only goes forward")
    for waived in snapshot.waived:
        out.line(f"  waived {waived.step}, by {waived.by or 'somebody'}: {waived.reason}")
    steps = [_step(run) for run in snapshot.runs.values()]
    if definition is not None:
        steps += [(name, "not reached", "", "", "", "") for name in remaining(snapshot, definition)]
    if steps:
        out.table(("step", "status", "attempts", "service", "ended", "what is wrong"), steps, title="Steps")
    if due := sorted(timers(snapshot)):
        out.table(("at", "what"), due, title="Timers")
    out.data("State", state_of(snapshot.state))


def _step(run: StepRun) -> tuple[object, ...]:
    attempts = (
        "" if run.command is None else f"{run.attempt}, {run.undo_attempt} back" if run.undo else str(run.attempt)
    )
    wrong = f"{run.failure.error}: {run.failure.message}" if run.failure is not None else run.note
    awaits = f"awaiting {run.awaits.type}" if run.awaits is not None and run.status == "awaiting" else str(run.status)
    return run.key.removesuffix("#0"), awaits, attempts, run.service, run.ended_at, wrong


async def journal(
    call: Call,
    saga_id: SagaId,
    at: Annotated[
        int | None, typer.Option("--at", metavar="VERSION", help="Show the saga as it was at this version.")
    ] = None,
) -> None:
    """Show what happened to a saga. With --at: how it stood at one version."""
    async with _store(call) as store:
        records = await store.journal(saga_id)
    if not records:
        raise UnknownSagaId(saga_id)
    if at is not None:
        _moment(call, saga_id, records, at)
        return
    document = {"id": saga_id, "records": [journal_record(record) for record in records]}
    call.out.result(document, lambda out: _show_journal(out, records))


def _show_journal(out: Output, records: Sequence[JournalRecord]) -> None:
    rows: list[tuple[Any, ...]] = []
    for record in records:
        for number, entry in enumerate(record.entries):
            first = number == 0
            step = entry.step.removesuffix("#0")
            rows.append((record.version if first else "", record.at if first else "", entry.what, step, entry.detail))
    out.table(("version", "at", "what", "step", "detail"), rows)


def _moment(call: Call, saga_id: str, records: Sequence[JournalRecord], version: int) -> None:
    moment = as_of(records, version)

    def show(out: Output) -> None:
        out.line(f"{saga_id}: {moment.phase}{', paused' if moment.paused else ''}, at version {moment.version}")
        out.table(("step", "last told"), [(k.removesuffix("#0"), v) for k, v in moment.steps.items()], title="Steps")
        out.data("State", moment.state)

    call.out.result({"id": saga_id, "moment": moment}, show)


async def list_timers(
    call: Call,
    saga: Name = None,
    limit: Limit = 100,
) -> None:
    """List the sagas that will do something by themselves, the next first.

    --json prints {"timers": […]}.
    """
    async with _store(call) as store:
        found: list[SagaSummary] = []
        for phase in (Phase.RUNNING, Phase.COMPENSATING):
            found += await store.find(SagaQuery(saga=saga, phase=phase, limit=1_000_000))
    due = sorted((s.wake_at, s.id, s) for s in found if s.wake_at is not None)[:limit]

    def show(out: Output) -> None:
        if not due:
            out.line("no timers")
            return
        out.table(("next", "id", "saga", "phase"), [(at, id, s.saga, _phase(s)) for at, id, s in due])

    records = [{"next_timer_at": at, "id": id, "saga": s.saga, "phase": s.phase} for at, id, s in due]
    call.out.result({"timers": records}, show)


def add_to(app: typer.Typer) -> None:
    command(app, "list", STORED)(list_sagas)
    command(app, "show", STORED)(show_saga)
    for fn in (journal, count):
        command(app, fn.__name__, STORED)(fn)
    group = typer.Typer(help="Look at timers.", no_args_is_help=True)
    command(group, "list", STORED)(list_timers)
    app.add_typer(group, name="timers")
