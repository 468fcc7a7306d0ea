"""Small builders of what a saga store keeps: snapshots, their commits, and messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from amends.brokers import Outgoing
from amends.contracts import Envelope, Kind
from amends.coordinator.core.journal import Entry, JournalRecord, What
from amends.coordinator.core.snapshot import Phase, RunStatus, Snapshot, StepRun, Waived
from amends.coordinator.store import Commit, Interest, OutboxKey, Predecessor

T0 = datetime(2026, 1, 1, tzinfo=UTC)

_serial = count()


class HandClock:
    """A clock that a test moves."""

    def __init__(self, start: datetime = T0) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


def message(id: str | None = None, *, saga_id: str = "order-1", size: int = 0) -> Outgoing:
    """A message to some service."""
    envelope = Envelope(
        id=id or f"message-{next(_serial)}",
        kind=Kind.COMMAND,
        type="inventory.reserve-stock.v1",
        source="place-order",
        subject=saga_id,
        time=T0,
        data=b"x" * size,
    )
    return Outgoing("service:inventory", envelope)


def snapshot(
    id: str = "order-1",
    *,
    version: int = 1,
    incarnation: str | None = None,
    commit_id: str | None = None,
    saga: str = "place-order",
    phase: Phase = Phase.RUNNING,
    at: datetime = T0,
    started_at: datetime | None = None,
    wake_at: datetime | None = None,
    stuck: bool = False,
    paused: bool = False,
    waived: bool = False,
    state: bytes = b"\x80",
    keys: dict[str, str] | None = None,
    epoch: str = "",
) -> Snapshot:
    """A snapshot of one step `reserve`. Names that are not given are fresh; `at` is the time of its commit."""
    status = RunStatus.STUCK if stuck else RunStatus.ISSUED
    return Snapshot(
        saga=saga,
        definition_version=1,
        shape="shape",
        id=id,
        incarnation=incarnation or f"incarnation-{next(_serial)}",
        version=version,
        commit_id=commit_id or f"commit-{next(_serial)}",
        phase=phase,
        state=state,
        clock=at,
        started_at=started_at or at,
        runs={"reserve#0": StepRun("reserve", status, wake_at=wake_at)},
        epoch=epoch,
        ended_at=at if phase.ended else None,
        paused_at=at if paused else None,
        waived=(Waived("reserve", "no need", "ada"),) if waived else (),
        keys=keys or {},
    )


def commit(
    to_store: Snapshot,
    after: Snapshot | None = None,
    *,
    outbox: tuple[Outgoing, ...] = (),
    interests: tuple[Interest, ...] | None = None,
    input_hash: str = "hash",
) -> Commit:
    """The commit that stores `to_store` on top of `after`, with a journal record of its own."""
    return Commit(
        snapshot=to_store,
        predecessor=None if after is None else predecessor(after),
        record=JournalRecord(
            version=to_store.version,
            commit_id=to_store.commit_id,
            at=to_store.clock,
            cause=f"reply {to_store.version}",
            entries=(Entry(What.STEP_ISSUED if after else What.STARTED, "reserve#0"),),
            state=to_store.state,
        ),
        outbox=outbox,
        input_hash="" if after else input_hash,
        interests=interests,
    )


def predecessor(of: Snapshot) -> Predecessor:
    return Predecessor(of.incarnation, of.version, of.commit_id)


def outbox_key(of: Snapshot) -> OutboxKey:
    return OutboxKey(of.id, of.incarnation, of.version)


def following(before: Snapshot, **options: Any) -> Snapshot:
    """The snapshot one version after `before`; options are those of `snapshot`."""
    return snapshot(
        before.id,
        version=before.version + 1,
        incarnation=before.incarnation,
        saga=before.saga,
        started_at=before.started_at,
        **{"at": before.clock, **options},
    )
