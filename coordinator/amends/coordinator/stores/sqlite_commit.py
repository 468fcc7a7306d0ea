"""How the SQLite store commits: the hot path. All is encoded beforehand, then written in a handful of statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from amends.contracts import slot_of
from amends.coordinator.core.journal import encode_record
from amends.coordinator.core.snapshot import encode_snapshot
from amends.coordinator.store import Commit, CommitResult, Interest, OutboxKey, Predecessor
from amends.coordinator.stores.facets import facets_of
from amends.coordinator.stores.sqlite_schema import Rows
from amends.coordinator.stores.times import micros

_PACK: Final = msgspec.msgpack.Encoder()


class _Head(Struct, array_like=True, gc=False):
    """What the database holds of one saga id. A purged saga has no commit id."""

    instance: int
    id: str
    incarnation: str
    version: int | None
    commit_id: str | None
    facets: int | None
    keys: str | None


# one row with everything: each row fetched would be one more step
_HEADS: Final = """
    SELECT json_group_array(json_array(instance, id, incarnation, version, commit_id, facets, keys))
    FROM saga_instances WHERE id IN (SELECT value FROM json_each(?))"""
_READ_HEADS: Final = msgspec.json.Decoder(list[_Head])

_NEXT_INSTANCE: Final = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'saga_instances'"

_START: Final = Rows(
    """INSERT INTO saga_instances (instance, id, slot, saga, incarnation, input_hash, started_at, purged,
       keys, facets, definition_version, version, commit_id, updated_at, ended_at, wake_at, body)""",
    17,
)

_MOVED: Final = """definition_version = excluded.definition_version, version = excluded.version,
    commit_id = excluded.commit_id, updated_at = excluded.updated_at, wake_at = excluded.wake_at, lease_until = NULL,
    body = excluded.body"""

# upserts that always find their row: the quickest way to update many
_UPDATE: Final = Rows(
    """INSERT INTO saga_instances (instance, id, facets, definition_version, version, commit_id, updated_at, ended_at,
       wake_at, body)""",
    10,
    f"ON CONFLICT (instance) DO UPDATE SET {_MOVED}",
)
_UPDATE_WITH_FACETS: Final = Rows(
    """INSERT INTO saga_instances (instance, id, facets, definition_version, version, commit_id, updated_at, ended_at,
       wake_at, body)""",
    10,
    f"ON CONFLICT (instance) DO UPDATE SET facets = excluded.facets, ended_at = excluded.ended_at, {_MOVED}",
)

_JOURNAL: Final = Rows("INSERT INTO saga_journal (instance, version, body)", 3)
# REPLACE: an entry may be left of an earlier life of the id, which the ledger has forgotten since
_OUTBOX: Final = Rows("INSERT OR REPLACE INTO saga_outbox (id, incarnation, version, slot, created_at, body)", 6)
# CROSS JOIN: the keys lead, whatever the planner thinks of the size of the outbox
_CLEAR: Final = Rows(
    "WITH key (id, incarnation, version) AS (",
    3,
    """) DELETE FROM saga_outbox WHERE seq IN (
        SELECT o.seq FROM key CROSS JOIN saga_outbox AS o
        WHERE o.id = key.id AND o.incarnation = key.incarnation AND o.version = key.version)""",
)
_INTERESTS: Final = Rows('INSERT OR IGNORE INTO saga_interests (instance, event_type, names, "values")', 4)
_UPDATE_KEYS: Final = "UPDATE saga_instances SET keys = ? WHERE instance = ?"
_KEYS: Final = Rows("INSERT INTO saga_keys (instance, started_at, name, value)", 4)
_NO_KEYS: Final = "DELETE FROM saga_keys WHERE instance IN (SELECT value FROM json_each(?))"
_NO_INTERESTS: Final = "DELETE FROM saga_interests WHERE instance IN (SELECT value FROM json_each(?))"


class EncodedCommit(Struct, frozen=True, eq=False, gc=False):
    """A commit as the tables take it. `state` are the columns that every commit writes, `facets` first."""

    id: str
    incarnation: str
    version: int
    commit_id: str
    predecessor: Predecessor | None
    slot: int
    started_at: int
    start: tuple[Any, ...]
    keys: dict[str, str]
    keys_text: str | None
    state: tuple[Any, ...]
    record: bytes
    outbox: bytes | None
    interests: tuple[tuple[str, str, bytes], ...] | None


def encode_commit(commit: Commit, *, with_outbox: bool = True) -> EncodedCommit:
    """`with_outbox=False` is for what is published in the same transaction."""
    snapshot = commit.snapshot
    slot = slot_of(snapshot.id)
    started_at = micros(snapshot.started_at)
    keys_text = msgspec.json.encode(snapshot.keys).decode() if snapshot.keys else None
    start: tuple[Any, ...] = ()
    if commit.predecessor is None:
        start = (slot, snapshot.saga, snapshot.incarnation, commit.input_hash, started_at, 0, keys_text)
    return EncodedCommit(
        snapshot.id,
        snapshot.incarnation,
        snapshot.version,
        snapshot.commit_id,
        commit.predecessor,
        slot,
        started_at,
        start,
        snapshot.keys,
        keys_text,
        (
            facets_of(snapshot),
            snapshot.definition_version,
            snapshot.version,
            snapshot.commit_id,
            micros(commit.record.at),
            micros(snapshot.retained_from),
            micros(snapshot.wake_at),
            encode_snapshot(snapshot),
        ),
        encode_record(commit.record),
        _PACK.encode(commit.outbox) if commit.outbox and with_outbox else None,
        None if commit.interests is None else tuple(_interest(interest) for interest in commit.interests),
    )


def _interest(interest: Interest) -> tuple[str, str, bytes]:
    names = names_text(name for name, _ in interest.where)
    return interest.event_type, names, values_blob(value for _, value in interest.where)


def names_text(names: Iterable[str]) -> str:
    """The fields that an interest is about, as the index has them."""
    return msgspec.json.encode(list(names)).decode()


def values_blob(values: Iterable[bytes]) -> bytes:
    """The values of these fields, as the index has them."""
    return _PACK.encode(list(values))


def apply(
    connection: sqlite3.Connection, commits: Sequence[EncodedCommit], cleared: Sequence[OutboxKey], now: int
) -> list[CommitResult]:
    """Write these inside the transaction that is open. `now` is store time."""
    if cleared:
        _CLEAR.run(connection, [(key.saga_id, key.incarnation, key.version) for key in cleared])
    if not commits:
        return []
    ids = msgspec.json.encode([commit.id for commit in commits]).decode()
    heads = {head.id: head for head in _READ_HEADS.decode(connection.execute(_HEADS, (ids,)).fetchone()[0])}
    results: list[CommitResult] = []
    stored: list[tuple[EncodedCommit, int]] = []
    starts: list[tuple[Any, ...]] = []
    updates: list[tuple[Any, ...]] = []
    updates_with_facets: list[tuple[Any, ...]] = []
    renamed: list[tuple[EncodedCommit, int]] = []
    for commit in commits:
        head = heads.get(commit.id)
        if head is None and commit.predecessor is None:
            instance = starts[-1][0] + 1 if starts else connection.execute(_NEXT_INSTANCE).fetchone()[0]
            starts.append((instance, commit.id, *commit.start, *commit.state))
        elif head is not None and head.commit_id == commit.commit_id:
            results.append(CommitResult.COMMITTED)
            continue
        elif head is not None and _precedes(head, commit.predecessor):
            instance = head.instance
            changed = updates if head.facets == commit.state[0] else updates_with_facets
            changed.append((instance, commit.id, *commit.state))
            if head.keys != commit.keys_text:
                renamed.append((commit, instance))
        else:
            results.append(CommitResult.CONFLICT)
            continue
        results.append(CommitResult.COMMITTED)
        stored.append((commit, instance))
    _START.run(connection, starts)
    _UPDATE.run(connection, updates)
    _UPDATE_WITH_FACETS.run(connection, updates_with_facets)
    if renamed:
        connection.executemany(_UPDATE_KEYS, [(commit.keys_text, instance) for commit, instance in renamed])
        connection.execute(_NO_KEYS, (msgspec.json.encode([instance for _, instance in renamed]).decode(),))
    fresh = [(commit, instance) for commit, instance in stored if commit.predecessor is None]
    _KEYS.run(
        connection,
        [
            (instance, commit.started_at, name, value)
            for commit, instance in (*fresh, *renamed)
            for name, value in commit.keys.items()
        ],
    )
    _JOURNAL.run(connection, [(instance, commit.version, commit.record) for commit, instance in stored])
    _OUTBOX.run(
        connection,
        [
            (commit.id, commit.incarnation, commit.version, commit.slot, now, commit.outbox)
            for commit, _ in stored
            if commit.outbox is not None
        ],
    )
    if replaced := [instance for commit, instance in stored if commit.predecessor and commit.interests is not None]:
        connection.execute(_NO_INTERESTS, (msgspec.json.encode(replaced).decode(),))
    _INTERESTS.run(
        connection,
        [(instance, *interest) for commit, instance in stored if commit.interests for interest in commit.interests],
    )
    return results


def _precedes(head: _Head, predecessor: Predecessor | None) -> bool:
    return (
        predecessor is not None
        and head.commit_id == predecessor.commit_id
        and head.version == predecessor.version
        and head.incarnation == predecessor.incarnation
    )
