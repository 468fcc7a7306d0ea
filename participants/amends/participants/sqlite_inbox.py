"""An inbox in a SQLite file, whose transaction handlers may share."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from amends.brokers import Broker, EmbeddedBroker
from amends.brokers.embedded.transfer import Waiting
from amends.brokers.handlings import HandlingsTable
from amends.brokers.sqlite_file import SqliteFile, translate
from amends.contracts import Clock, InternalError, ReplyOutcome, SystemClock, TerminalError, UsageError
from amends.participants.decisions import closing, opening
from amends.participants.inbox import Raised, Work, WorkAnswer
from amends.participants.memory_inbox import check_purge
from amends.participants.rows import Answered, Claimed, Closing, ClosingAnswer, Finish, Opening, OpeningAnswer, Row
from amends.participants.session import Session

_HANDLINGS: Final = HandlingsTable("inbox_handlings")

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS inbox (effect_key TEXT PRIMARY KEY, touched INTEGER NOT NULL, row BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS inbox_mark (one INTEGER PRIMARY KEY CHECK (one = 1), before INTEGER NOT NULL)",
    _HANDLINGS.schema,
)

_LOAD: Final = "SELECT effect_key, row FROM json_each(?) CROSS JOIN inbox ON effect_key = value"
_STORE: Final = (
    "INSERT INTO inbox VALUES {} ON CONFLICT (effect_key) DO UPDATE SET touched = excluded.touched, row = excluded.row"
)
_STORES: Final = {size: _STORE.format(", ".join(["(?, ?, ?)"] * size)) for size in (128, 32, 8, 1)}
"""One statement for many rows: each step of a statement lets other threads in, and waits to get back."""

_PURGE_SLICE: Final = 2000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_KEPT: Final = (ReplyOutcome.DONE, ReplyOutcome.UNDONE)


class SqliteInbox:
    """A `TransactionalInbox` in one file, which several processes of a machine may share.

    It may be the file of the service's own data: handlers declared `transactional` then write with `ctx.session` in the
    inbox's transaction.
    """

    shared = True

    def __init__(self, file: SqliteFile, clock: Clock) -> None:
        self._file, self._clock = file, clock

    @classmethod
    def open(cls, path: str | Path, *, clock: Clock | None = None) -> SqliteInbox:
        """The inbox in this file, made when it is not there. Call it in a running event loop.

        Raises `FileUnavailable` or `FileCorrupt`.
        """
        return cls(SqliteFile.open(path, SCHEMA), clock or SystemClock())

    async def begin(self, requests: Sequence[Opening]) -> Sequence[OpeningAnswer]:
        def job(connection: sqlite3.Connection) -> list[OpeningAnswer]:
            rows = _Rows(connection, [request.effect_key for request in requests])
            now, mark = self._clock.now(), _read_mark(connection)
            answers: list[OpeningAnswer] = []
            for request in requests:
                row, answer = opening(rows.get(request.effect_key), request, now, mark)
                rows.put(request.effect_key, row)
                answers.append(answer)
            rows.store()
            return answers

        return await self._file.write(job)

    async def finish(self, requests: Sequence[Closing]) -> Sequence[ClosingAnswer]:
        def job(connection: sqlite3.Connection) -> list[ClosingAnswer]:
            rows = _Rows(connection, [request.effect_key for request in requests])
            now = self._clock.now()
            answers: list[ClosingAnswer] = []
            for request in requests:
                row, answer = closing(rows.get(request.effect_key), request, now)
                rows.put(request.effect_key, row)
                answers.append(answer)
            rows.store()
            return answers

        return await self._file.write(job)

    async def transact(self, works: Sequence[Work]) -> Sequence[WorkAnswer]:
        return await self._file.write(partial(self._run, works=works))

    def _run(self, connection: sqlite3.Connection, works: Sequence[Work]) -> list[WorkAnswer]:
        rows = _Rows(connection, [work.request.effect_key for work in works])
        now, mark = self._clock.now(), _read_mark(connection)
        answers = [_work(connection, self._file.path, rows, work, now, mark) for work in works]
        rows.store()
        return answers

    def joins(self, broker: Broker) -> bool:
        return isinstance(broker, EmbeddedBroker) and broker.shares(self._file)

    async def transact_and_publish(self, works: Sequence[Work], broker: Broker) -> Sequence[WorkAnswer]:
        if not isinstance(broker, EmbeddedBroker) or not broker.shares(self._file):
            raise InternalError(f"{self._file.path} is not the file of the broker to publish to")
        publication = broker.publication()

        def job(connection: sqlite3.Connection) -> tuple[list[WorkAnswer], Waiting]:
            answers = self._run(connection, works)
            said = zip(works, answers, strict=True)
            replies = [work.reply(answer) for work, answer in said if isinstance(answer, Answered)]
            return answers, publication.insert(connection, broker.stamp([reply for reply in replies if reply]))

        answers, _ = await self._file.write(job, lambda done: publication.done(done[1]), publication.undone)
        return answers

    async def count_handlings(self, messages: Sequence[str]) -> None:
        await self._file.write(lambda connection: _HANDLINGS.count(connection, messages, self._clock.now()))

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        return self._file.read(lambda connection: _HANDLINGS.counts(connection, messages, self._clock.now()))

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        await self._file.write(lambda connection: _HANDLINGS.forget(connection, messages))

    async def purge(self, before: datetime) -> int:
        check_purge(before, self._clock.now())
        limit = _microseconds(before)
        await self._file.write(partial(_raise_mark, limit=limit))
        purged, last = 0, ""
        # slices in the order of keys, so that no job keeps the file for long
        while keys := self._file.read(partial(_keys_after, last=last)):
            purged += await self._file.write(partial(_delete, first=keys[0], last=keys[-1], limit=limit))
            last = keys[-1]
        return purged

    async def low_water_mark(self) -> datetime | None:
        return self._file.read(_read_mark)

    async def ping(self) -> None:
        await self._file.write(lambda connection: None)

    async def close(self) -> None:
        await self._file.close()


class _Rows:
    """The rows of one job: loaded at once, changed in memory, stored at once."""

    def __init__(self, connection: sqlite3.Connection, keys: list[str]) -> None:
        self._connection = connection
        self._rows = {key: _decode(key, data) for key, data in connection.execute(_LOAD, (json.dumps(keys),))}
        self._changed: dict[str, Row] = {}

    def get(self, key: str) -> Row | None:
        return self._rows.get(key)

    def put(self, key: str, row: Row | None) -> None:
        if row is not None:
            self._rows[key] = self._changed[key] = row

    def store(self) -> None:
        values = [
            value for key, row in self._changed.items() for value in (key, _microseconds(row.touched), _encode(row))
        ]
        at = 0
        for size in _sizes(len(self._changed)):
            self._connection.execute(_STORES[size], values[at : at + 3 * size])
            at += 3 * size


def _work(
    connection: sqlite3.Connection, path: Path, rows: _Rows, work: Work, now: datetime, mark: datetime | None
) -> WorkAnswer:
    key = work.request.effect_key
    row, answer = opening(rows.get(key), work.request, now, mark)
    if not isinstance(answer, Claimed):
        rows.put(key, row)
        return answer
    connection.execute("SAVEPOINT amends_handler")
    try:
        performed = work.run(answer, Session(connection))
    except Exception as error:
        if isinstance(error, sqlite3.Error) and translate(error, path) is not None:
            raise  # about the file, not about the handler: disk full, I/O error
        _leave(connection, keep=False)
        return Raised(error)
    _leave(connection, keep=performed.outcome in _KEPT)
    finish = Finish(effect_key=key, fence=answer.fence, outcome=performed.outcome, recording=performed.recording)
    finished, said = closing(row, finish, now)
    if not isinstance(said, Answered):
        raise InternalError(f"{key}: the claim of its own transaction was refused ({said})")
    rows.put(key, finished)
    return said


def _leave(connection: sqlite3.Connection, *, keep: bool) -> None:
    if not connection.in_transaction:
        raise UsageError("a transactional handler ended the inbox's transaction. Take its commit or rollback out")
    if not keep:
        connection.execute("ROLLBACK TO amends_handler")
    connection.execute("RELEASE amends_handler")


def _sizes(count: int) -> Iterator[int]:
    for size in _STORES:
        while count >= size:
            yield size
            count -= size


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Row)


def _decode(key: str, data: bytes) -> Row:
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise TerminalError(
            f"the inbox row of {key} cannot be read ({error}). Restore the file from a backup"
        ) from None


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _read_mark(connection: sqlite3.Connection) -> datetime | None:
    found = connection.execute("SELECT before FROM inbox_mark").fetchone()
    return None if found is None else _EPOCH + timedelta(microseconds=found[0])


def _raise_mark(connection: sqlite3.Connection, limit: int) -> None:
    connection.execute(
        "INSERT INTO inbox_mark VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET before = max(before, excluded.before)",
        (limit,),
    )


def _keys_after(connection: sqlite3.Connection, last: str) -> list[str]:
    sql = "SELECT effect_key FROM inbox WHERE effect_key > ? ORDER BY effect_key LIMIT ?"
    return [key for (key,) in connection.execute(sql, (last, _PURGE_SLICE))]


def _delete(connection: sqlite3.Connection, first: str, last: str, limit: int) -> int:
    sql = "DELETE FROM inbox WHERE effect_key >= ? AND effect_key <= ? AND touched < ?"
    return connection.execute(sql, (first, last, limit)).rowcount
