"""The store of tests, simulations and throw-away runs: everything in this process's memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from amends.brokers import Outgoing, ShardMap
from amends.brokers.handlings import MemoryHandlings
from amends.contracts import Clock, SystemClock, slot_of
from amends.coordinator.core.journal import JournalRecord, decode_record, encode_record
from amends.coordinator.core.snapshot import decode_snapshot, encode_snapshot
from amends.coordinator.store import (
    EVERYWHERE,
    Commit,
    CommitResult,
    DueSaga,
    Interest,
    LedgerEntry,
    OutboxEntry,
    OutboxKey,
    Parked,
    Predecessor,
    SagaQuery,
    SagaSummary,
    Stored,
)
from amends.coordinator.stores.checks import check_commits
from amends.coordinator.stores.filters import fits

_PACK: Final = msgspec.msgpack.Encoder()
_MESSAGE: Final = msgspec.msgpack.Decoder(Outgoing)
_MESSAGES: Final = msgspec.msgpack.Decoder(tuple[Outgoing, ...])


class _Saga(Struct, eq=False):
    """One id. After its purge `head`, `body` and `summary` are None: the ledger entry and the end are left."""

    slot: int
    start: LedgerEntry
    head: Predecessor | None = None
    body: bytes | None = None
    summary: SagaSummary | None = None
    journal: list[bytes] = []
    interests: frozenset[Interest] = frozenset()
    ended_at: datetime | None = None
    wake_at: datetime | None = None
    lease_until: datetime | None = None


class _Sending(Struct, eq=False):
    """The outbox of one commit."""

    slot: int
    created_at: datetime
    body: bytes
    lease_until: datetime | None = None


class Backup(Struct, frozen=True, eq=False):
    """What a memory store held at one moment."""

    sagas: dict[str, _Saga]
    outbox: dict[OutboxKey, _Sending]
    parked: dict[tuple[str, str], tuple[int, bytes]]
    keys: dict[tuple[str, str], dict[str, None]]


class MemoryStore:
    """A `SagaStore` that forgets with its process. `close` keeps what is stored.

    It keeps encoded bytes, as the durable stores do, so that nothing passes through it that could not be stored. Store
    time is `clock`. `fault` is called with `"commit:before"` and `"commit:after"`, and so for every operation; by
    raising `StoreUnavailable` it plays a store that is down, or one whose answer got lost after the work was done.
    """

    def __init__(self, clock: Clock | None = None, *, fault: Callable[[str], None] | None = None) -> None:
        self._clock = clock or SystemClock()
        self._fault = fault or (lambda operation: None)
        self._map: ShardMap | None = None
        self._sagas: dict[str, _Saga] = {}
        self._outbox: dict[OutboxKey, _Sending] = {}
        self._parked: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._handlings = MemoryHandlings(self._clock)
        self._keys: dict[tuple[str, str], dict[str, None]] = {}
        self._epoch = ""

    def backup(self) -> Backup:
        """A copy of everything in here, to `restore` later: so a test plays a store that loses commits."""
        return copy.deepcopy(Backup(self._sagas, self._outbox, self._parked, self._keys))

    def restore(self, backup: Backup, *, epoch: str = "") -> None:
        """Forget all that came after a backup. Without another `epoch` it is for the sagas' messages to show it."""
        kept = copy.deepcopy(backup)
        self._sagas, self._outbox, self._parked, self._keys = kept.sagas, kept.outbox, kept.parked, kept.keys
        self._epoch = epoch or self._epoch

    @contextmanager
    def _operation(self, name: str) -> Iterator[None]:
        self._fault(f"{name}:before")
        yield
        self._fault(f"{name}:after")

    async def adopt(self, shard_map: ShardMap) -> None:
        with self._operation("adopt"):
            if self._map is None:
                self._map = shard_map
            shard_map.check(self._map, "the memory store")

    async def now(self) -> datetime:
        with self._operation("now"):
            return self._clock.now()

    async def ping(self) -> None:
        with self._operation("ping"):
            pass

    async def load(self, saga_ids: Sequence[str]) -> Sequence[Stored]:
        with self._operation("load"):
            return [self._load(saga_id) for saga_id in saga_ids]

    def _load(self, saga_id: str) -> Stored:
        saga = self._sagas.get(saga_id)
        if saga is None:
            return Stored(None, None, self._epoch)
        return Stored(None if saga.body is None else decode_snapshot(saga.body), saga.start, self._epoch)

    async def commit(self, commits: Sequence[Commit], cleared: Sequence[OutboxKey] = ()) -> Sequence[CommitResult]:
        check_commits(commits)
        with self._operation("commit"):
            for key in cleared:
                self._outbox.pop(key, None)
            return [self._commit(*encoded) for encoded in [(commit, *_encode(commit)) for commit in commits]]

    def _commit(self, commit: Commit, body: bytes, record: bytes, messages: bytes) -> CommitResult:
        snapshot = commit.snapshot
        saga = self._sagas.get(snapshot.id)
        head = None if saga is None else saga.head
        if head is not None and head.commit_id == snapshot.commit_id:
            return CommitResult.COMMITTED
        if head != commit.predecessor or (saga is not None and head is None):
            return CommitResult.CONFLICT
        if saga is None:
            start = LedgerEntry(snapshot.incarnation, commit.input_hash, snapshot.started_at)
            saga = self._sagas[snapshot.id] = _Saga(slot_of(snapshot.id), start)
        saga.head = Predecessor(snapshot.incarnation, snapshot.version, snapshot.commit_id)
        saga.body = body
        summary = _summary(commit)
        self._index(snapshot.id, saga.summary, summary)
        saga.summary = summary
        saga.journal.append(record)
        saga.ended_at = snapshot.retained_from
        saga.wake_at = snapshot.wake_at
        saga.lease_until = None
        if commit.interests is not None:
            saga.interests = frozenset(commit.interests)
        if commit.outbox:
            key = OutboxKey(snapshot.id, snapshot.incarnation, snapshot.version)
            self._outbox.pop(key, None)
            self._outbox[key] = _Sending(saga.slot, self._clock.now(), messages)
        return CommitResult.COMMITTED

    async def due(self, slots: Sequence[range], limit: int, lease_s: float) -> Sequence[DueSaga]:
        with self._operation("due"):
            now = self._clock.now()
            due = [s for s in self._timed(slots) if s[1] <= now and not _leased(s[0], now)]
            due.sort(key=lambda found: found[1])
            for saga, _ in due[:limit]:
                saga.lease_until = now + timedelta(seconds=lease_s)
            return [DueSaga(_id(saga), saga.start.incarnation, wake_at) for saga, wake_at in due[:limit]]

    async def next_due(self, slots: Sequence[range]) -> datetime | None:
        with self._operation("next_due"):
            now = self._clock.now()
            free = (wake_at for saga, wake_at in self._timed(slots) if not _leased(saga, now))
            held = (saga.lease_until for saga, _ in self._timed(slots) if saga.lease_until and _leased(saga, now))
            return min((*free, *held), default=None)

    def _timed(self, slots: Sequence[range]) -> Iterator[tuple[_Saga, datetime]]:
        for saga in self._sagas.values():
            if saga.wake_at is not None and any(saga.slot in span for span in slots):
                yield saga, saga.wake_at

    async def overdue_outbox(
        self, slots: Sequence[range], older_than_s: float, limit: int, lease_s: float
    ) -> Sequence[OutboxEntry]:
        with self._operation("overdue_outbox"):
            now = self._clock.now()
            before = now - timedelta(seconds=older_than_s)
            overdue = [
                (key, sending)
                for key, sending in self._outbox.items()
                if sending.created_at < before
                and not _leased(sending, now)
                and any(sending.slot in span for span in slots)
            ][:limit]
            for _, sending in overdue:
                sending.lease_until = now + timedelta(seconds=lease_s)
            return [OutboxEntry(key, _MESSAGES.decode(sending.body)) for key, sending in overdue]

    async def waiting(self, event_type: str, fields: dict[str, bytes]) -> Sequence[str]:
        with self._operation("waiting"):
            return sorted(
                saga_id
                for saga_id, saga in self._sagas.items()
                if any(
                    interest.event_type == event_type
                    and all(fields.get(name) == value for name, value in interest.where)
                    for interest in saga.interests
                )
            )

    async def park(self, parked: Sequence[Parked]) -> None:
        with self._operation("park"):
            for one in parked:
                value = (one.definition_version, _PACK.encode(one.message))
                self._parked.setdefault((one.saga, one.key), value)

    async def unpark(self, saga: str, definition_version: int, limit: int) -> Sequence[Parked]:
        with self._operation("unpark"):
            found = [
                Parked(name, version, _MESSAGE.decode(body), key)
                for (name, key), (version, body) in self._parked.items()
                if name == saga and version == definition_version
            ]
            return found[:limit]

    async def parked_sent(self, parked: Sequence[Parked]) -> None:
        with self._operation("parked_sent"):
            for one in parked:
                self._parked.pop((one.saga, one.key), None)

    async def count_handlings(self, messages: Sequence[str]) -> None:
        with self._operation("count_handlings"):
            self._handlings.count(messages)

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        with self._operation("handlings"):
            return self._handlings.counts(messages)

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        with self._operation("forget_handlings"):
            self._handlings.forget(messages)

    async def count_parked(self) -> Mapping[tuple[str, int], int]:
        with self._operation("count_parked"):
            counts = Counter((saga, version) for (saga, _), (version, _) in self._parked.items())
            return dict(sorted(counts.items()))

    async def journal(self, saga_id: str) -> Sequence[JournalRecord]:
        with self._operation("journal"):
            saga = self._sagas.get(saga_id)
            return [] if saga is None else [decode_record(record) for record in saga.journal]

    async def find(self, query: SagaQuery) -> Sequence[SagaSummary]:
        with self._operation("find"):
            found = list(self._matching(query))
            found.sort(key=lambda summary: summary.started_at)
            if query.order == "newest":
                found.reverse()
            return found[: query.limit]

    async def count(self, query: SagaQuery) -> int:
        with self._operation("count"):
            return sum(1 for _ in self._matching(query))

    def _matching(self, query: SagaQuery) -> Iterable[SagaSummary]:
        ids = self._sagas if query.key is None else self._keys.get(query.key, {})
        for saga in (self._sagas[saga_id] for saga_id in ids):
            if saga.summary is not None and fits(query, saga.summary):
                yield saga.summary

    def _index(self, saga_id: str, before: SagaSummary | None, after: SagaSummary | None) -> None:
        """Move a saga in the index of business keys."""
        for key in before.keys.items() if before else ():
            self._keys[key].pop(saga_id, None)
            if not self._keys[key]:
                del self._keys[key]
        for key in after.keys.items() if after else ():
            self._keys.setdefault(key, {})[saga_id] = None

    async def purge(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        with self._operation("purge"):
            ended = self._ended(ended_before, limit, slots, purged=False)
            for saga_id in ended:
                saga = self._sagas[saga_id]
                self._index(saga_id, saga.summary, None)
                self._sagas[saga_id] = _Saga(saga.slot, saga.start, ended_at=saga.ended_at)
            return len(ended)

    async def purge_ledger(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        with self._operation("purge_ledger"):
            ended = self._ended(ended_before, limit, slots, purged=True)
            for saga_id in ended:
                del self._sagas[saga_id]
            return len(ended)

    def _ended(self, before: datetime, limit: int, slots: Sequence[range], *, purged: bool) -> list[str]:
        ended = [
            (saga.ended_at, saga_id)
            for saga_id, saga in self._sagas.items()
            if saga.ended_at is not None
            and saga.ended_at < before
            and (saga.head is None) is purged
            and any(saga.slot in span for span in slots)
        ]
        ended.sort(key=lambda found: found[0])
        return [saga_id for _, saga_id in ended[:limit]]

    async def close(self) -> None:
        """Keeps what is stored: the next who asks for a store of this name finds it."""


def _leased(held: _Saga | _Sending, now: datetime) -> bool:
    return held.lease_until is not None and held.lease_until > now


def _id(saga: _Saga) -> str:
    assert saga.summary is not None
    return saga.summary.id


def _encode(commit: Commit) -> tuple[bytes, bytes, bytes]:
    return encode_snapshot(commit.snapshot), encode_record(commit.record), _PACK.encode(commit.outbox)


def _summary(commit: Commit) -> SagaSummary:
    snapshot = commit.snapshot
    return SagaSummary(
        id=snapshot.id,
        saga=snapshot.saga,
        definition_version=snapshot.definition_version,
        phase=snapshot.phase,
        stuck=snapshot.stuck,
        paused=snapshot.paused,
        waived=bool(snapshot.waived),
        version=snapshot.version,
        started_at=snapshot.started_at,
        updated_at=commit.record.at,
        wake_at=snapshot.wake_at,
        keys=snapshot.keys,
    )
