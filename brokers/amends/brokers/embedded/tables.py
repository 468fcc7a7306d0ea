"""The tables of the embedded broker and the statements on them.

Every function runs inside a transaction of `SqliteFile`. A message without owner waits in its queue; `owner` is the
consumer that has it in hand. Numbers of messages, consumers and members are never used twice, so that whoever comes
late with an old one hits nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

from amends.brokers.queues import CLIENT, shard_queue
from amends.brokers.shards import ShardMap

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS broker_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS broker_messages (seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL,
       body BLOB NOT NULL, owner INTEGER, deliveries INTEGER NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS broker_waiting ON broker_messages (queue, seq) WHERE owner IS NULL",
    "CREATE INDEX IF NOT EXISTS broker_in_hand ON broker_messages (owner) WHERE owner IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS broker_members (id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT NOT NULL,
       beat INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS broker_consumers (id INTEGER PRIMARY KEY AUTOINCREMENT, member INTEGER NOT NULL,
       queue TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS broker_consumers_of ON broker_consumers (queue)",
    "CREATE TABLE IF NOT EXISTS broker_shards (shard INTEGER PRIMARY KEY, consumer INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS broker_subscriptions (event_type TEXT NOT NULL, queue TEXT NOT NULL,
       PRIMARY KEY (event_type, queue)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS broker_dead_letters (id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL,
       reason TEXT NOT NULL, detail TEXT NOT NULL, at REAL NOT NULL, deliveries INTEGER NOT NULL,
       body BLOB NOT NULL)""",
)

SHARDS: Final = "shards"
"""What a consumer of shards is registered for; which of their queues it reads, `broker_shards` says."""


class Message(NamedTuple):
    seq: int
    queue: str
    body: bytes
    deliveries: int


class Peer(NamedTuple):
    """Another member, and where its doorbell is."""

    id: int
    address: str


# --- messages ---

_MOST: Final = 256


@cache
def _marks(count: int, row: str = "?") -> str:
    return ",".join([row] * count)


def _powers(count: int) -> Iterator[int]:
    """Sizes that add up to `count`: powers of two, so that there are few statements to prepare."""
    size = _MOST
    while count:
        while size > count:
            size //= 2
        yield size
        count -= size


def insert(db: sqlite3.Connection, values: Sequence[Any]) -> int:
    """Store messages, given as queue, body, owner, deliveries, queue, …, numbered one by one; the first number."""
    start, last, count = 0, 0, len(values) // 4
    for size in _powers(count):
        cursor = db.execute(
            f"INSERT INTO broker_messages (queue, body, owner, deliveries) VALUES {_marks(size, '(?,?,?,?)')}",
            values[start : start + 4 * size],
        )
        last = cursor.lastrowid or 0
        start += 4 * size
    return last - count + 1


def _chunks(seqs: Sequence[int]) -> Iterator[Sequence[int]]:
    """Pieces whose sizes are powers of two; the last one is filled up by repeating."""
    for start in range(0, len(seqs), _MOST):
        piece = list(seqs[start : start + _MOST])
        size = 1 << (len(piece) - 1).bit_length()
        yield piece + piece[-1:] * (size - len(piece))


# "+owner" keeps SQLite from searching by owner, which may have many


def delete(db: sqlite3.Connection, owner: int, seqs: Sequence[int]) -> int:
    """Remove messages that this owner still has; how many it had."""
    return sum(
        db.execute(
            f"DELETE FROM broker_messages WHERE seq IN ({_marks(len(chunk))}) AND +owner=?", (*chunk, owner)
        ).rowcount
        for chunk in _chunks(seqs)
    )


def release(db: sqlite3.Connection, owner: int, seqs: Sequence[int], *, unseen: bool = False) -> None:
    """Put messages that this owner has back in their place. Unseen ones were never handed out, and don't count it."""
    for chunk in _chunks(seqs):
        db.execute(
            f"UPDATE broker_messages SET owner=NULL, deliveries=deliveries-{unseen:d}"
            f" WHERE seq IN ({_marks(len(chunk))}) AND +owner=?",
            (*chunk, owner),
        )


def release_rest(db: sqlite3.Connection, owner: int, queue: str | None = None) -> None:
    """Put back, as unseen, whatever this owner has (of one queue)."""
    db.execute(
        "UPDATE broker_messages SET owner=NULL, deliveries=deliveries-1 WHERE owner=? AND queue=coalesce(?, queue)",
        (owner, queue),
    )


def is_waiting(db: sqlite3.Connection, queue: str) -> bool:
    """Whether a message without owner is in the queue."""
    return (
        db.execute("SELECT 1 FROM broker_messages WHERE queue=? AND owner IS NULL LIMIT 1", (queue,)).fetchone()
        is not None
    )


def claim(db: sqlite3.Connection, owner: int, queues: Iterable[str], limit: int) -> list[Message]:
    """Take the oldest waiting messages of these queues, in order."""
    found: list[int] = []
    for queue in queues:
        found += [
            seq
            for (seq,) in db.execute(
                "SELECT seq FROM broker_messages WHERE queue=? AND owner IS NULL ORDER BY seq LIMIT ?", (queue, limit)
            )
        ]
    taken: list[Message] = []
    for chunk in _chunks(sorted(found)[:limit]):
        taken += map(
            Message._make,
            db.execute(
                f"UPDATE broker_messages SET owner=?, deliveries=deliveries+1 WHERE seq IN ({_marks(len(chunk))})"
                " RETURNING seq, queue, body, deliveries",
                (owner, *chunk),
            ).fetchall(),
        )
    return sorted(taken)


def bury(db: sqlite3.Connection, owner: int, seq: int, reason: str, detail: str, at: datetime) -> None:
    """Move a message that this owner has to the dead letters."""
    db.execute(
        "INSERT INTO broker_dead_letters (queue, reason, detail, at, deliveries, body)"
        " SELECT queue, ?, ?, ?, deliveries, body FROM broker_messages WHERE seq=? AND +owner=?",
        (reason, detail, at.timestamp(), seq, owner),
    )
    delete(db, owner, (seq,))


def dead_letters(db: sqlite3.Connection, limit: int) -> list[tuple[int, str, str, str, float, int, bytes]]:
    """The newest dead letters, newest first: id, queue, reason, detail, at, deliveries, body."""
    return db.execute(
        "SELECT id, queue, reason, detail, at, deliveries, body FROM broker_dead_letters ORDER BY id DESC LIMIT ?",
        (limit,),
    ).fetchall()


# --- subscriptions and the map ---


def subscribe(db: sqlite3.Connection, queue: str, event_types: Iterable[str]) -> None:
    """These types and no others go to the queue."""
    db.execute("DELETE FROM broker_subscriptions WHERE queue=?", (queue,))
    db.executemany(
        "INSERT OR IGNORE INTO broker_subscriptions (event_type, queue) VALUES (?,?)",
        [(event_type, queue) for event_type in event_types],
    )


def subscribed(db: sqlite3.Connection, event_type: str) -> list[str]:
    """The queues that get the events of a type."""
    return [
        queue for (queue,) in db.execute("SELECT queue FROM broker_subscriptions WHERE event_type=?", (event_type,))
    ]


def adopt(db: sqlite3.Connection, shard_map: ShardMap) -> None:
    """Store the map when there is none."""
    db.executemany(
        "INSERT OR IGNORE INTO broker_meta (name, value) VALUES (?,?)",
        [("shards", shard_map.shards), ("map_version", shard_map.version)],
    )


def adopted(db: sqlite3.Connection) -> ShardMap | None:
    """The map that is stored."""
    found = dict(db.execute("SELECT name, value FROM broker_meta").fetchall())
    return ShardMap(found["shards"], found["map_version"]) if found else None


# --- members and consumers ---


def join(db: sqlite3.Connection, address: str) -> int:
    """Add a member; its number."""
    return db.execute("INSERT INTO broker_members (address, beat) VALUES (?,0)", (address,)).lastrowid or 0


def is_member(db: sqlite3.Connection, member: int) -> bool:
    return db.execute("SELECT 1 FROM broker_members WHERE id=?", (member,)).fetchone() is not None


def beat(db: sqlite3.Connection, member: int) -> None:
    """Show that a member is alive."""
    db.execute("UPDATE broker_members SET beat=beat+1 WHERE id=?", (member,))


def others(db: sqlite3.Connection, member: int) -> list[tuple[Peer, int]]:
    """All other members with their beats."""
    return [
        (Peer(id, address), beat)
        for id, address, beat in db.execute("SELECT id, address, beat FROM broker_members WHERE id<>?", (member,))
    ]


def consumers_of(db: sqlite3.Connection, queue: str) -> list[tuple[int, int]]:
    """Who consumes a queue: consumer and member, oldest first. For the queue of a shard, the one who holds it."""
    if queue.startswith("shard:"):
        return db.execute(
            "SELECT c.id, c.member FROM broker_shards s JOIN broker_consumers c ON c.id=s.consumer WHERE s.shard=?",
            (int(queue[6:]),),
        ).fetchall()
    return db.execute("SELECT id, member FROM broker_consumers WHERE queue=? ORDER BY id", (queue,)).fetchall()


def peers_at(db: sqlite3.Connection, queues: Iterable[str], member: int) -> set[Peer]:
    """The other members that consume one of these queues."""
    ids = {other for queue in queues for _, other in consumers_of(db, queue) if other != member}
    rows = (db.execute("SELECT id, address FROM broker_members WHERE id=?", (id,)).fetchone() for id in ids)
    return {Peer(*row) for row in rows if row is not None}


def register(db: sqlite3.Connection, member: int, queue: str) -> int:
    """Add a consumer; its number."""
    added = db.execute("INSERT INTO broker_consumers (member, queue) VALUES (?,?)", (member, queue))
    return added.lastrowid or 0


def is_registered(db: sqlite3.Connection, consumer: int) -> bool:
    return db.execute("SELECT 1 FROM broker_consumers WHERE id=?", (consumer,)).fetchone() is not None


def unregister(db: sqlite3.Connection, consumer: int, queue: str) -> None:
    """Remove a consumer that has no messages any more. The last one of a client takes the client's queue with it."""
    db.execute("DELETE FROM broker_shards WHERE consumer=?", (consumer,))
    db.execute("DELETE FROM broker_consumers WHERE id=?", (consumer,))
    if queue.startswith(CLIENT) and not consumers_of(db, queue):
        db.execute("DELETE FROM broker_messages WHERE queue=? AND owner IS NULL", (queue,))


def registered(db: sqlite3.Connection, member: int) -> list[tuple[int, str]]:
    """The consumers of a member, and their queues."""
    return db.execute("SELECT id, queue FROM broker_consumers WHERE member=?", (member,)).fetchall()


def abandon(db: sqlite3.Connection, consumer: int, queue: str) -> None:
    """Remove a consumer that cannot say what it handed out; all it has counts as such."""
    db.execute("UPDATE broker_messages SET owner=NULL WHERE owner=?", (consumer,))
    unregister(db, consumer, queue)


def expel(db: sqlite3.Connection, member: int, beat: int | None = None) -> bool:
    """Remove a member, and put back what its consumers have. False when it was gone, or has shown another beat."""
    gone = db.execute("DELETE FROM broker_members WHERE id=? AND beat=coalesce(?, beat)", (member, beat)).rowcount
    if not gone:
        return False
    for consumer, queue in registered(db, member):
        abandon(db, consumer, queue)
    return True


# --- shards ---


def shards_of(db: sqlite3.Connection, consumer: int) -> frozenset[int]:
    return frozenset(s for (s,) in db.execute("SELECT shard FROM broker_shards WHERE consumer=?", (consumer,)))


def shard_holders(db: sqlite3.Connection) -> tuple[list[int], dict[int, int]]:
    """All consumers of shards, and who holds which (shard -> consumer)."""
    consumers = [consumer for consumer, _ in consumers_of(db, SHARDS)]
    return consumers, dict(db.execute("SELECT shard, consumer FROM broker_shards").fetchall())


def give_up(db: sqlite3.Connection, consumer: int, shard: int, seen: Sequence[int]) -> None:
    """Let go of a shard; what is in hand of it waits again. `seen` are the messages that were handed out."""
    release(db, consumer, seen)
    release_rest(db, consumer, shard_queue(shard))
    db.execute("DELETE FROM broker_shards WHERE shard=? AND consumer=?", (shard, consumer))


def take_over(db: sqlite3.Connection, consumer: int, shard: int) -> None:
    db.execute("INSERT INTO broker_shards (shard, consumer) VALUES (?,?)", (shard, consumer))
