"""The `SagaStore` port: where sagas live.

An adapter passes the suite in `tests/contract/store.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import force_setattr

from amends.brokers import Broker, Outgoing, ShardMap
from amends.brokers.handlings import Handlings
from amends.contracts import TerminalError, TransientError, UsageError
from amends.contracts.names import SLOTS
from amends.coordinator.core.journal import JournalRecord
from amends.coordinator.core.snapshot import Phase, Snapshot
from amends.coordinator.declaration.keys import key_text


class StoreUnavailable(TransientError):
    """The store cannot be reached or cannot write now (down, locked, full). Nothing was committed for certain."""


class StoreCorrupt(TerminalError):
    """What the store holds cannot be read. `detail` says what and where; restore it from a backup."""


class LedgerEntry(Struct, frozen=True, gc=False):
    """One start, remembered longer than its saga: so an id that was used is not taken for a new one."""

    incarnation: str
    input_hash: str
    started_at: datetime


class Stored(Struct, frozen=True, gc=False):
    """What a store knows of one saga id.

    `epoch` names the life of the store that was read: it changes whenever commits that were reported may have been lost
    since, as by a fail-over, a restart, or a backup put back. Empty, if the store cannot tell.
    """

    snapshot: Snapshot | None
    start: LedgerEntry | None
    epoch: str = ""


class Predecessor(Struct, frozen=True, gc=False):
    """The commit that another one builds on."""

    incarnation: str
    version: int
    commit_id: str


class Interest(Struct, frozen=True):
    """An event that a saga waits for, or will: its type and the JSON values that its fields must have (may be none).

    The fields are in alphabetical order.
    """

    event_type: str
    where: tuple[tuple[str, bytes], ...] = ()


class Commit(Struct, frozen=True, eq=False, gc=False):
    """One transition to store, all or nothing: snapshot, journal, outbox, timers and indexes.

    `predecessor` is what the snapshot in the store must be for this to succeed; None means that there must be neither a
    snapshot nor a ledger entry for the id, and then `input_hash` goes into the ledger. `outbox` are the messages to
    send once this is stored. `interests` replaces what the saga is waiting for; None leaves it. The timer index follows
    `snapshot.wake_at`. A saga keeps its incarnation, name and start time from its first commit on.
    """

    snapshot: Snapshot
    predecessor: Predecessor | None
    record: JournalRecord
    outbox: tuple[Outgoing, ...] = ()
    input_hash: str = ""
    interests: tuple[Interest, ...] | None = None


class OutboxKey(Struct, frozen=True, gc=False):
    """Names the messages of one commit in the outbox."""

    saga_id: str
    incarnation: str
    version: int


class CommitResult(StrEnum):
    COMMITTED = "committed"
    """Stored; or recognised as stored before, by its commit id."""
    CONFLICT = "conflict"
    """The saga in the store is not the predecessor: reload it and decide again."""


class OutboxEntry(Struct, frozen=True, eq=False):
    """The messages of one commit that were not cleared yet."""

    key: OutboxKey
    messages: tuple[Outgoing, ...]


class DueSaga(Struct, frozen=True):
    """A saga with a timer that is due, leased to whoever asked."""

    saga_id: str
    incarnation: str
    wake_at: datetime


class Parked(Struct, frozen=True, eq=False):
    """A message put aside because the definition version of its saga is not loaded by the coordinator that got it.

    `key` names it; without one, that is the message's id. A message that is parked anew needs a new key: the old one
    may just be on its way out.
    """

    saga: str
    definition_version: int
    message: Outgoing
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            force_setattr(self, "key", self.message.envelope.id)


EVERYWHERE: Final = (range(SLOTS),)

Order = Literal["newest", "oldest"]


class SagaQuery(Struct, frozen=True, kw_only=True):
    """What to list. Fields that are None do not filter.

    `key` is the name of a business key and its value as text (see `Saga`, `keys=`): `("order_id", "42")`.
    `started_after` is the earliest start that is wanted, `started_before` the earliest that is not. `id_prefix` is the
    beginning of ids.
    """

    saga: str | None = None
    phase: Phase | None = None
    stuck: bool | None = None
    paused: bool | None = None
    waived: bool | None = None
    key: tuple[str, str] | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None
    id_prefix: str | None = None
    order: Order = "newest"
    limit: int = 100

    def __post_init__(self) -> None:
        for name in ("started_after", "started_before"):
            if (moment := getattr(self, name)) is not None and moment.utcoffset() is None:
                raise UsageError(f"SagaQuery: {name}={moment.isoformat()} has no time zone. Give one: tzinfo=UTC")
        if self.key is not None:
            name, value = self.key
            force_setattr(self, "key", (name, key_text(value)))


class SagaSummary(Struct, frozen=True, kw_only=True):
    """One line of a list. `keys` are its business keys as text."""

    id: str
    saga: str
    definition_version: int
    phase: Phase
    stuck: bool
    paused: bool
    waived: bool
    version: int
    started_at: datetime
    updated_at: datetime
    wake_at: datetime | None
    keys: dict[str, str] = {}


class SagaStore(Handlings, Protocol):
    """Holds snapshots, journals, outboxes, timers, and the start ledger.

    Atomicity: each `Commit` is stored whole or not at all, and commits of one call succeed or conflict one by one.
    Durability: what `commit` reported as committed survives the death of this process (and, but for in-memory stores,
    of the machine). Idempotency: a commit whose `snapshot.commit_id` is the one in the store is reported as committed
    and stores nothing again. All methods raise `StoreUnavailable` when the store is away; a commit then may or may not
    have happened, and is to be repeated with the same commit id. Lists and counts may lag behind commits; `load` never
    does.
    """

    async def adopt(self, shard_map: ShardMap) -> None:
        """Remember the map on first use; afterwards raise `UsageError` when another one is given."""
        ...

    async def now(self) -> datetime:
        """Store time: what timers and leases are measured by."""
        ...

    async def ping(self) -> None:
        """Write something, and be sure of it. Raises `StoreUnavailable` when a commit could not be stored now."""
        ...

    async def load(self, saga_ids: Sequence[str]) -> Sequence[Stored]:
        """What is stored of each id, in the order asked. Raises `StoreCorrupt` naming the saga."""
        ...

    async def commit(self, commits: Sequence[Commit], cleared: Sequence[OutboxKey] = ()) -> Sequence[CommitResult]:
        """Store these, at most one per saga, in one go; remove the outbox entries that were sent meanwhile."""
        ...

    async def due(self, slots: Sequence[range], limit: int, lease_s: float) -> Sequence[DueSaga]:
        """Lease up to `limit` sagas of these slots whose earliest timer is due by store time, earliest first.

        A leased saga is not returned again until the lease has run out or a commit of the saga has ended it.
        """
        ...

    async def next_due(self, slots: Sequence[range]) -> datetime | None:
        """When the earliest timer of these slots is due that is not leased; for a leased one, when its lease ends."""
        ...

    async def overdue_outbox(
        self, slots: Sequence[range], older_than_s: float, limit: int, lease_s: float
    ) -> Sequence[OutboxEntry]:
        """Lease outbox entries that were committed more than `older_than_s` ago and not cleared, oldest first."""
        ...

    async def waiting(self, event_type: str, fields: dict[str, bytes]) -> Sequence[str]:
        """The ids of sagas interested in an event with these JSON values of its top-level fields."""
        ...

    async def park(self, parked: Sequence[Parked]) -> None:
        """Put messages aside durably. Parking a key of the same saga name again changes nothing."""
        ...

    async def unpark(self, saga: str, definition_version: int, limit: int) -> Sequence[Parked]:
        """The oldest messages put aside for this version. They stay until `parked_sent`."""
        ...

    async def parked_sent(self, parked: Sequence[Parked]) -> None:
        """Forget messages that were sent on."""
        ...

    async def count_parked(self) -> Mapping[tuple[str, int], int]:
        """How many messages are put aside for each saga name and version, in the order of these; none is left out."""
        ...

    async def journal(self, saga_id: str) -> Sequence[JournalRecord]:
        """The records of the newest incarnation, oldest first; empty for an unknown id."""
        ...

    async def find(self, query: SagaQuery) -> Sequence[SagaSummary]:
        """The sagas that match, by start time."""
        ...

    async def count(self, query: SagaQuery) -> int:
        """How many match; `limit` does not count."""
        ...

    async def purge(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        """Remove snapshot, journal and indexes of up to `limit` sagas that ended before this, the earliest first.

        Returns how many; call again while it is `limit`. The ledger keeps their ids, and the outbox what was not sent
        yet. What counts is `Snapshot.retained_from`: a child saga is not removed by its own end.
        """
        ...

    async def purge_ledger(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        """Forget up to `limit` purged sagas that ended before this: their ids may then be used again.

        Sooner than `Retention.ids` after the start, the same id with the same input gets the same incarnation: the
        participants that remember it then answer from their records, and do nothing.

        Returns how many; call again while it is `limit`. A saga that is not purged keeps its ledger entry.
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class PublishingStore(SagaStore, Protocol):
    """A store that may stand in the same database as a broker: one transaction then does for both."""

    def joins(self, broker: Broker) -> bool:
        """Whether its database is that of this broker."""
        ...

    async def commit_and_publish(self, commits: Sequence[Commit], broker: Broker) -> Sequence[CommitResult]:
        """As `commit`, and what is committed is published in the same transaction, so that no outbox is needed.

        Only for a broker that it `joins`. A commit that conflicts publishes nothing; one that is recognised as stored
        before publishes again.
        """
        ...
