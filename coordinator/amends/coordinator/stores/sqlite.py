"""The store of the embedded coordinator: one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from amends.brokers import Broker, EmbeddedBroker, Outgoing, ShardMap
from amends.brokers.embedded.transfer import Waiting
from amends.brokers.sqlite_file import FileCorrupt, FileUnavailable, SqliteFile
from amends.contracts import Clock, InternalError, SystemClock
from amends.coordinator.core.journal import JournalRecord, decode_record
from amends.coordinator.core.snapshot import decode_snapshot
from amends.coordinator.store import (
    EVERYWHERE,
    Commit,
    CommitResult,
    DueSaga,
    LedgerEntry,
    OutboxEntry,
    OutboxKey,
    Parked,
    SagaQuery,
    SagaSummary,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
)
from amends.coordinator.stores import sqlite_commit, sqlite_listing
from amends.coordinator.stores.checks import check_commits
from amends.coordinator.stores.sqlite_schema import HANDLINGS, SCHEMA, Rows
from amends.coordinator.stores.times import micros, moment, span

T = TypeVar("T")

_PACK: Final = msgspec.msgpack.Encoder()
_MESSAGE: Final = msgspec.msgpack.Decoder(Outgoing)
_MESSAGES: Final = msgspec.msgpack.Decoder(tuple[Outgoing, ...])

_PING: Final = "INSERT OR REPLACE INTO saga_meta VALUES ('ping', ?)"

_LOAD: Final = """
    SELECT id, incarnation, input_hash, started_at, body FROM saga_instances
    WHERE id IN (SELECT value FROM json_each(?))"""

_FREE: Final = "(lease_until IS NULL OR lease_until <= :now) AND slot IN (SELECT value FROM json_each(:slots))"
_DUE: Final = f"""
    SELECT instance, id, incarnation, wake_at FROM saga_instances
    WHERE wake_at <= :now AND {_FREE} ORDER BY wake_at, instance LIMIT :limit"""
_LEASE_SAGAS: Final = """
    UPDATE saga_instances SET lease_until = ? WHERE instance IN (SELECT value FROM json_each(?))"""
_NEXT_FREE: Final = f"""
    SELECT wake_at FROM saga_instances WHERE wake_at IS NOT NULL AND {_FREE} ORDER BY wake_at LIMIT 1"""
# no lease ends before the timer it is for: those of timers behind the next free one do not matter
_LATEST: Final = 2**63 - 1
_NEXT_HELD: Final = """
    SELECT min(lease_until) FROM saga_instances
    WHERE wake_at <= :before AND slot IN (SELECT value FROM json_each(:slots))"""

_OVERDUE: Final = f"""
    SELECT seq, id, incarnation, version, body FROM saga_outbox
    WHERE created_at < :before AND {_FREE} ORDER BY seq LIMIT :limit"""
_LEASE_OUTBOX: Final = "UPDATE saga_outbox SET lease_until = ? WHERE seq IN (SELECT value FROM json_each(?))"

_NAMES: Final = "SELECT min(names) FROM saga_interests WHERE event_type = ? AND names > ?"
_WAITING: Final = """
    SELECT id FROM saga_interests JOIN saga_instances USING (instance)
    WHERE event_type = ? AND names = ? AND "values" = ?"""

_PARK: Final = Rows("INSERT OR IGNORE INTO saga_parked (saga, definition_version, key, body)", 4)
_UNPARK: Final = """
    SELECT key, body FROM saga_parked WHERE saga = ? AND definition_version = ? ORDER BY seq LIMIT ?"""
_PARKED_SENT: Final = """
    DELETE FROM saga_parked WHERE seq IN (
        SELECT p.seq FROM json_each(?) AS sent CROSS JOIN saga_parked AS p
        WHERE p.saga = json_extract(sent.value, '$[0]') AND p.key = json_extract(sent.value, '$[1]'))"""

_COUNT_PARKED: Final = """
    SELECT saga, definition_version, count(*) FROM saga_parked
    GROUP BY saga, definition_version ORDER BY saga, definition_version"""

_JOURNAL: Final = """
    SELECT j.body FROM saga_journal j JOIN saga_instances i USING (instance) WHERE i.id = ? ORDER BY j.version"""

_ENDED: Final = """
    SELECT instance FROM saga_instances
    WHERE purged = 0 AND ended_at < ? AND slot IN (SELECT value FROM json_each(?)) ORDER BY ended_at LIMIT ?"""
_PURGE: Final = (
    "DELETE FROM saga_journal WHERE instance IN (SELECT value FROM json_each(?))",
    "DELETE FROM saga_interests WHERE instance IN (SELECT value FROM json_each(?))",
    "DELETE FROM saga_keys WHERE instance IN (SELECT value FROM json_each(?))",
    """UPDATE saga_instances SET purged = 1, version = NULL, commit_id = NULL, keys = NULL, body = NULL
       WHERE instance IN (SELECT value FROM json_each(?))""",
)
_PURGE_LEDGER: Final = """
    DELETE FROM saga_instances WHERE instance IN (
        SELECT instance FROM saga_instances
        WHERE purged = 1 AND ended_at < ? AND slot IN (SELECT value FROM json_each(?)) ORDER BY ended_at LIMIT ?)"""


class SqliteStore:
    """A `SagaStore` in a SQLite file, which an embedded broker may share. Get it with `SqliteStore.open`.

    What `commit` reported survives a power cut. Several processes of one machine may use the file; store time is the
    machine's clock.
    """

    def __init__(self, file: SqliteFile, clock: Clock) -> None:
        self._file, self._clock = file, clock
        self._closed = False

    @classmethod
    def open(cls, path: str | Path, clock: Clock | None = None) -> SqliteStore:
        """The store in the file at `path`, made when it is not there. Raises `StoreUnavailable` or `StoreCorrupt`."""
        with _as_store_errors():
            return cls(SqliteFile.open(path, SCHEMA), clock or SystemClock())

    def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        with _as_store_errors():
            return self._file.read(job)

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        with _as_store_errors():
            return await self._file.write(job)

    def _now(self) -> int:
        return micros(self._clock.now())

    async def adopt(self, shard_map: ShardMap) -> None:
        text = msgspec.json.encode(shard_map).decode()

        def job(connection: sqlite3.Connection) -> str:
            connection.execute("INSERT OR IGNORE INTO saga_meta VALUES ('shard_map', ?)", (text,))
            found: str = connection.execute("SELECT value FROM saga_meta WHERE key = 'shard_map'").fetchone()[0]
            return found

        found = await self._write(job)
        with self._corrupt("saga_meta", "the shard map"):
            stored = msgspec.json.decode(found, type=ShardMap)
        shard_map.check(stored, str(self._file.path))

    async def now(self) -> datetime:
        return self._clock.now()

    async def ping(self) -> None:
        await self._write(lambda db: db.execute(_PING, (str(self._now()),)).rowcount)

    async def load(self, saga_ids: Sequence[str]) -> Sequence[Stored]:
        ids = _json(saga_ids)
        rows = {row[0]: row for row in self._read(lambda connection: connection.execute(_LOAD, (ids,)).fetchall())}
        return [self._stored(rows[saga_id]) if saga_id in rows else Stored(None, None) for saga_id in saga_ids]

    def _stored(self, row: tuple[Any, ...]) -> Stored:
        saga_id, incarnation, input_hash, started_at, body = row
        start = LedgerEntry(incarnation, input_hash, moment(started_at))
        if body is None:
            return Stored(None, start)
        with self._corrupt("saga_instances", f"the snapshot of saga {saga_id!r}"):
            return Stored(decode_snapshot(body), start)

    async def commit(self, commits: Sequence[Commit], cleared: Sequence[OutboxKey] = ()) -> Sequence[CommitResult]:
        if not commits and not cleared:
            return []
        check_commits(commits)
        encoded = [sqlite_commit.encode_commit(commit) for commit in commits]
        return await self._write(lambda connection: sqlite_commit.apply(connection, encoded, cleared, self._now()))

    def joins(self, broker: Broker) -> bool:
        return isinstance(broker, EmbeddedBroker) and broker.shares(self._file)

    async def commit_and_publish(self, commits: Sequence[Commit], broker: Broker) -> Sequence[CommitResult]:
        if not isinstance(broker, EmbeddedBroker) or not broker.shares(self._file):
            raise InternalError(f"{self._file.path} is not the file of the broker to publish to")
        check_commits(commits)
        encoded = [sqlite_commit.encode_commit(commit, with_outbox=False) for commit in commits]
        stamped = [broker.stamp(commit.outbox) for commit in commits]
        publication = broker.publication()

        def job(connection: sqlite3.Connection) -> tuple[list[CommitResult], Waiting]:
            results = sqlite_commit.apply(connection, encoded, (), self._now())
            stored = zip(stamped, results, strict=True)
            messages = [message for sent, result in stored if result is CommitResult.COMMITTED for message in sent]
            return results, publication.insert(connection, messages)

        with _as_store_errors():
            results, _ = await self._file.write(job, lambda done: publication.done(done[1]), publication.undone)
        return results

    async def due(self, slots: Sequence[range], limit: int, lease_s: float) -> Sequence[DueSaga]:
        listed = _slots(slots)

        def find(connection: sqlite3.Connection) -> list[tuple[int, str, str, int]]:
            asked = {"now": self._now(), "slots": listed, "limit": limit}
            return connection.execute(_DUE, asked).fetchall()

        def lease(connection: sqlite3.Connection) -> list[tuple[int, str, str, int]]:
            found = find(connection)
            connection.execute(_LEASE_SAGAS, (self._now() + span(lease_s), _json([row[0] for row in found])))
            return found

        if not self._read(find):
            return []
        return [DueSaga(saga_id, run, moment(wake_at)) for _, saga_id, run, wake_at in await self._write(lease)]

    async def next_due(self, slots: Sequence[range]) -> datetime | None:
        asked = {"now": self._now(), "slots": _slots(slots)}

        def job(connection: sqlite3.Connection) -> int | None:
            row = connection.execute(_NEXT_FREE, asked).fetchone()
            free = None if row is None else row[0]
            before = _LATEST if free is None else free
            held = connection.execute(_NEXT_HELD, {**asked, "before": before}).fetchone()[0]
            return min((at for at in (free, held) if at is not None), default=None)

        return moment(self._read(job))

    async def overdue_outbox(
        self, slots: Sequence[range], older_than_s: float, limit: int, lease_s: float
    ) -> Sequence[OutboxEntry]:
        listed = _slots(slots)

        def find(connection: sqlite3.Connection) -> list[tuple[int, str, str, int, bytes]]:
            now = self._now()
            asked = {"now": now, "before": now - span(older_than_s), "slots": listed, "limit": limit}
            return connection.execute(_OVERDUE, asked).fetchall()

        def lease(connection: sqlite3.Connection) -> list[tuple[int, str, str, int, bytes]]:
            found = find(connection)
            connection.execute(_LEASE_OUTBOX, (self._now() + span(lease_s), _json([row[0] for row in found])))
            return found

        if not self._read(find):
            return []
        return [self._entry(row) for row in await self._write(lease)]

    def _entry(self, row: tuple[int, str, str, int, bytes]) -> OutboxEntry:
        _, saga_id, incarnation, version, body = row
        with self._corrupt("saga_outbox", f"a message of saga {saga_id!r}"):
            return OutboxEntry(OutboxKey(saga_id, incarnation, version), _MESSAGES.decode(body))

    async def waiting(self, event_type: str, fields: dict[str, bytes]) -> Sequence[str]:
        def job(connection: sqlite3.Connection) -> list[str]:
            found: set[str] = set()
            text = ""
            while (text := connection.execute(_NAMES, (event_type, text)).fetchone()[0]) is not None:
                names = msgspec.json.decode(text, type=list[str])
                if all(name in fields for name in names):
                    values = sqlite_commit.values_blob(fields[name] for name in names)
                    found.update(row[0] for row in connection.execute(_WAITING, (event_type, text, values)))
            return sorted(found)

        return self._read(job)

    async def park(self, parked: Sequence[Parked]) -> None:
        rows = [(p.saga, p.definition_version, p.key, _PACK.encode(p.message)) for p in parked]
        await self._write(lambda connection: _PARK.run(connection, rows))

    async def unpark(self, saga: str, definition_version: int, limit: int) -> Sequence[Parked]:
        rows = self._read(lambda db: db.execute(_UNPARK, (saga, definition_version, limit)).fetchall())
        return [Parked(saga, definition_version, self._message(saga, key, body), key) for key, body in rows]

    def _message(self, saga: str, key: str, body: bytes) -> Outgoing:
        with self._corrupt("saga_parked", f"the message {key!r} to a saga {saga!r}"):
            return _MESSAGE.decode(body)

    async def parked_sent(self, parked: Sequence[Parked]) -> None:
        sent = _json([(one.saga, one.key) for one in parked])
        await self._write(lambda connection: connection.execute(_PARKED_SENT, (sent,)).rowcount)

    async def count_handlings(self, messages: Sequence[str]) -> None:
        await self._write(lambda connection: HANDLINGS.count(connection, messages, self._clock.now()))

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        return self._read(lambda connection: HANDLINGS.counts(connection, messages, self._clock.now()))

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        await self._write(lambda connection: HANDLINGS.forget(connection, messages))

    async def count_parked(self) -> Mapping[tuple[str, int], int]:
        rows = self._read(lambda connection: connection.execute(_COUNT_PARKED).fetchall())
        return {(saga, version): count for saga, version, count in rows}

    async def journal(self, saga_id: str) -> Sequence[JournalRecord]:
        rows = self._read(lambda connection: connection.execute(_JOURNAL, (saga_id,)).fetchall())
        with self._corrupt("saga_journal", f"the journal of saga {saga_id!r}"):
            return [decode_record(body) for (body,) in rows]

    async def find(self, query: SagaQuery) -> Sequence[SagaSummary]:
        return self._read(lambda connection: sqlite_listing.find(connection, query))

    async def count(self, query: SagaQuery) -> int:
        return self._read(lambda connection: sqlite_listing.count(connection, query))

    async def purge(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        asked = (micros(ended_before), _slots(slots), limit)
        if not self._read(lambda connection: connection.execute(_ENDED, asked).fetchone()):
            return 0

        def job(connection: sqlite3.Connection) -> int:
            ended = [row[0] for row in connection.execute(_ENDED, asked)]
            for statement in _PURGE:
                connection.execute(statement, (_json(ended),))
            return len(ended)

        return await self._write(job)

    async def purge_ledger(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        asked = (micros(ended_before), _slots(slots), limit)
        return await self._write(lambda connection: connection.execute(_PURGE_LEDGER, asked).rowcount)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._file.close()

    @contextmanager
    def _corrupt(self, table: str, what: str) -> Iterator[None]:
        try:
            yield
        except msgspec.MsgspecError as error:
            raise StoreCorrupt(
                f"{self._file.path}, table {table}: {what} cannot be read ({error}). Restore the file from a backup"
            ) from error


@contextmanager
def _as_store_errors() -> Iterator[None]:
    try:
        yield
    except FileUnavailable as error:
        raise StoreUnavailable(str(error)) from error
    except FileCorrupt as error:
        raise StoreCorrupt(str(error)) from error


def _json(values: Sequence[Any]) -> str:
    """A list as one parameter, so that a statement does not change with its length."""
    return msgspec.json.encode(values).decode()


def _slots(slots: Sequence[range]) -> str:
    return _json([slot for span in slots for slot in span])
