"""The tables of the SQLite store, and statements that write many rows at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

from amends.brokers.handlings import HandlingsTable

HANDLINGS: Final = HandlingsTable("saga_handlings")

# One row per saga id ever started. Until its purge it is listed and holds the snapshot; then only what the start ledger
# needs is left (`purged`). `instance` numbers incarnations and is never used again. `purged` and `started_at` are not
# touched by commits and `facets` by few of them, so that most commits move an entry of a single index, the timers'.
# Journal and outbox are appended to: records kept in the order of their keys would cost twice the pages per commit.
SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS saga_instances (
        instance INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        slot INTEGER,
        saga TEXT,
        incarnation TEXT,
        input_hash TEXT,
        started_at INTEGER,
        purged INTEGER,
        keys TEXT,
        facets INTEGER,
        definition_version INTEGER,
        version INTEGER,
        commit_id TEXT,
        updated_at INTEGER,
        ended_at INTEGER,
        wake_at INTEGER,
        lease_until INTEGER,
        body BLOB
    )""",
    "CREATE INDEX IF NOT EXISTS saga_listed ON saga_instances (saga, facets, purged, started_at) WHERE purged = 0",
    "CREATE INDEX IF NOT EXISTS saga_ledger ON saga_instances (ended_at, slot) WHERE purged = 1",
    "CREATE INDEX IF NOT EXISTS saga_timers ON saga_instances (wake_at, slot, lease_until) WHERE wake_at IS NOT NULL",
    """CREATE INDEX IF NOT EXISTS saga_ended ON saga_instances (ended_at, slot)
       WHERE ended_at IS NOT NULL AND purged = 0""",
    """CREATE TABLE IF NOT EXISTS saga_keys (
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        instance INTEGER NOT NULL,
        PRIMARY KEY (name, value, started_at, instance)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS saga_keys_instance ON saga_keys (instance)",
    """CREATE TABLE IF NOT EXISTS saga_journal (
        seq INTEGER PRIMARY KEY,
        instance INTEGER NOT NULL,
        version INTEGER NOT NULL,
        body BLOB NOT NULL
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS saga_journal_key ON saga_journal (instance, version)",
    """CREATE TABLE IF NOT EXISTS saga_outbox (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        incarnation TEXT NOT NULL,
        version INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        lease_until INTEGER,
        body BLOB NOT NULL
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS saga_outbox_key ON saga_outbox (id, incarnation, version)",
    """CREATE TABLE IF NOT EXISTS saga_interests (
        event_type TEXT NOT NULL,
        names TEXT NOT NULL,
        "values" BLOB NOT NULL,
        instance INTEGER NOT NULL,
        PRIMARY KEY (event_type, names, "values", instance)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS saga_interests_instance ON saga_interests (instance)",
    """CREATE TABLE IF NOT EXISTS saga_parked (
        seq INTEGER PRIMARY KEY,
        saga TEXT NOT NULL,
        definition_version INTEGER NOT NULL,
        key TEXT NOT NULL,
        body BLOB NOT NULL,
        UNIQUE (saga, key)
    )""",
    "CREATE INDEX IF NOT EXISTS saga_parked_version ON saga_parked (saga, definition_version)",
    HANDLINGS.schema,
    "CREATE TABLE IF NOT EXISTS saga_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_MOST_ROWS: Final = 64


class Rows:
    """A statement that writes a list of rows: `head VALUES (…), (…) tail`.

    It runs in pieces of 64, 32, 16, … rows: few steps for SQLite, since every step lets go of the interpreter lock, and
    few different texts, since they are kept prepared.
    """

    def __init__(self, head: str, columns: int, tail: str = "") -> None:
        row = f"({', '.join('?' * columns)})"
        self.text = cache(lambda rows: f"{head} VALUES {', '.join([row] * rows)} {tail}")

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        at = 0
        while left := len(rows) - at:
            size = min(_MOST_ROWS, 1 << (left.bit_length() - 1))
            connection.execute(self.text(size), list(chain.from_iterable(rows[at : at + size])))
            at += size
