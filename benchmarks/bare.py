"""The ceiling: a hand-written loop that writes the rows of the embedded default, and decides nothing.

It knows beforehand what every saga will write, as bytes. It uses the same tables, the same settings of SQLite and
transactions of the same size; it does not encode, decode, check, wait or look anything up.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from amends.brokers.embedded import tables
from amends.coordinator.stores import sqlite_schema
from amends.participants import sqlite_inbox
from benchmarks.measures import Measure, Stopwatch, bytes_of, latency
from benchmarks.script import Hop, hops

_BATCH: Final = 256
_IN_FLIGHT: Final = 2048
_SLOT, _SHARD, _SERVICE = 413, "shard:03", "service:shop"
_MICROS: Final = 1_767_225_600_000_000

_PUBLISH: Final = "INSERT INTO broker_messages (seq, queue, body, owner, deliveries) VALUES (?, ?, ?, 1, 1)"
_ACK: Final = "DELETE FROM broker_messages WHERE seq = ?"
_START: Final = """
    INSERT INTO saga_instances (instance, id, slot, saga, incarnation, input_hash, started_at, purged, facets,
        definition_version, version, commit_id, updated_at, ended_at, wake_at, body)
    VALUES (?, ?, ?, 'place-order', ?, ?, ?, 0, ?, 1, ?, ?, ?, ?, ?, ?)"""
_MOVE: Final = """
    UPDATE saga_instances
    SET facets = ?, version = ?, commit_id = ?, updated_at = ?, ended_at = ?, wake_at = ?, body = ?
    WHERE instance = ?"""
_JOURNAL: Final = "INSERT INTO saga_journal (instance, version, body) VALUES (?, ?, ?)"
_INBOX: Final = """
    INSERT INTO inbox VALUES (?, ?, ?)
    ON CONFLICT (effect_key) DO UPDATE SET touched = excluded.touched, row = excluded.row"""


class _Saga:
    """One order on its way: how far it is, and the message that is waiting for it."""

    __slots__ = ("hops", "id", "incarnation", "instance", "place", "waiting")

    def __init__(self, number: int) -> None:
        self.instance = number + 1
        self.id, self.incarnation = f"order-{number:06d}", f"0123456789abcdef-{number:x}"
        self.hops: Sequence[Hop] = _HOPS[number % 10 == 9]
        self.place = 0
        self.waiting = 0

    @property
    def hop(self) -> Hop:
        return self.hops[self.place]


_HOPS: Final = {False: hops(0), True: hops(9)}


class Bare:
    """The loop on one file."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None, cached_statements=512)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=4000", "cache_size=-65536"):
            self._db.execute(f"PRAGMA {pragma}")
        for statement in (*tables.SCHEMA, *sqlite_schema.SCHEMA, *sqlite_inbox.SCHEMA):
            self._db.execute(statement)
        self._seq = self._number = 0

    def close(self) -> None:
        self._db.close()

    def run(self, sagas: int, in_flight: int = _IN_FLIGHT) -> None:
        """Take that many sagas from start to end."""
        left, flying = sagas, 0
        starts: deque[_Saga] = deque()
        replies: deque[_Saga] = deque()
        commands: deque[_Saga] = deque()
        while left or flying:
            if left and flying < in_flight:
                begun = [_Saga(self._next()) for _ in range(min(_BATCH, left))]
                with self._transaction():
                    self._publish(begun, _SHARD, [saga.hop.arrived for saga in begun])
                left, flying = left - len(begun), flying + len(begun)
                starts.extend(begun)
            replies.extend(_take(starts))
            deciding = _take(replies)
            with self._transaction():
                self._decide(deciding)
            flying -= sum(saga.hop.command is None for saga in deciding)
            commands.extend(saga for saga in deciding if saga.hop.command is not None)
            acting = _take(commands)
            with self._transaction():
                self._act(acting)
            replies.extend(acting)

    def _next(self) -> int:
        self._number += 1
        return self._number - 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        yield
        self._db.execute("COMMIT")

    def _publish(self, sagas: list[_Saga], queue: str, bodies: list[bytes | None]) -> None:
        rows = []
        for saga, body in zip(sagas, bodies, strict=True):
            self._seq += 1
            saga.waiting = self._seq
            rows.append((self._seq, queue, body))
        self._db.executemany(_PUBLISH, rows)

    def _decide(self, sagas: list[_Saga]) -> None:
        """The coordinator's part: snapshot, journal, commands, acknowledge. (In one database there is no outbox.)"""
        db, now = self._db, _MICROS
        starts = [saga for saga in sagas if saga.place == 0]
        moves = [saga for saga in sagas if saga.place]
        db.executemany(_START, [(s.instance, s.id, _SLOT, s.incarnation, _HASH, now, *_state(s)) for s in starts])
        db.executemany(_MOVE, [(*_moved(s), s.instance) for s in moves])
        db.executemany(_JOURNAL, [(s.instance, s.place + 1, s.hop.record) for s in sagas])
        asking = [saga for saga in sagas if saga.hop.command is not None]
        arrived = [(saga.waiting,) for saga in sagas]
        self._publish(asking, _SERVICE, [saga.hop.command for saga in asking])
        db.executemany(_ACK, arrived)

    def _act(self, sagas: list[_Saga]) -> None:
        """The participant's part: the inbox row, the reply, acknowledge."""
        arrived = [(saga.waiting,) for saga in sagas]
        self._db.executemany(_INBOX, [(_effect_key(s), _MICROS, s.hop.inbox_row) for s in sagas])
        for saga in sagas:
            saga.place += 1
        self._publish(sagas, _SHARD, [saga.hop.arrived for saga in sagas])
        self._db.executemany(_ACK, arrived)


_HASH: Final = "0" * 64


def _state(saga: _Saga) -> tuple[Any, ...]:
    return (0, 1, f"{saga.incarnation}.1", _MICROS, None, _MICROS + saga.instance, saga.hop.snapshot)


def _moved(saga: _Saga) -> tuple[Any, ...]:
    ended = saga.hop.command is None
    return (
        16 if ended else 8 * (saga.place > 2),
        saga.place + 1,
        f"{saga.incarnation}.{saga.place + 1}",
        _MICROS,
        _MICROS if ended else None,
        None if ended else _MICROS + saga.instance,
        saga.hop.snapshot,
    )


def _effect_key(saga: _Saga) -> str:
    # the two undos are about the second and the first action
    step = saga.place if saga.place < 3 else 4 - saga.place
    return f"{saga.id}~{saga.incarnation}/{('reserve', 'charge', 'ship')[step]}#0"


def _take(queue: deque[_Saga]) -> list[_Saga]:
    return [queue.popleft() for _ in range(min(_BATCH, len(queue)))]


def bare(file: Path, sagas: int) -> Measure:
    """The loop under full load."""
    with closing(Bare(file)) as loop:
        loop.run(_BATCH)
        before = bytes_of(file)
        with Stopwatch() as watch:
            loop.run(sagas)
        return watch.measure(sagas, bytes=bytes_of(file) - before)


def bare_latency(file: Path, sagas: int) -> Measure:
    """One saga at a time: a commit for its start, for each transition and for each action."""
    with closing(Bare(file)) as loop:
        loop.run(5, in_flight=1)
        took = []
        for _ in range(sagas):
            begun = time.perf_counter()
            loop.run(1)
            took.append(time.perf_counter() - begun)
        return latency(took)
