"""The SQLite store stays quick when it is full: no statement of the hot path reads a whole table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends.brokers.sqlite_file import SqliteFile
from amends.coordinator.stores import sqlite, sqlite_commit, sqlite_listing
from amends.coordinator.stores.sqlite_schema import SCHEMA, Rows


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteFile]:
    file = SqliteFile.open(tmp_path / "amends.db", SCHEMA)
    yield file
    await file.close()


@pytest.mark.parametrize(
    "statement",
    [
        sqlite_commit._HEADS,
        sqlite_commit._CLEAR,
        sqlite_commit._NO_INTERESTS,
        sqlite_commit._UPDATE_KEYS,
        sqlite_commit._NO_KEYS,
        sqlite._LOAD,
        sqlite._DUE,
        sqlite._LEASE_SAGAS,
        sqlite._NEXT_FREE,
        sqlite._NEXT_HELD,
        sqlite._LEASE_OUTBOX,
        sqlite._NAMES,
        sqlite._WAITING,
        sqlite._UNPARK,
        sqlite._PARKED_SENT,
        sqlite._JOURNAL,
        sqlite._ENDED,
        *sqlite._PURGE,
        sqlite._PURGE_LEDGER,
        sqlite_listing._NAMES,
        f"SELECT count(*) {sqlite_listing._RUN}",
        f"SELECT id {sqlite_listing._KEY}",
        f"SELECT id {sqlite_listing._PREFIX}",
    ],
)
async def test_tables_are_searched_and_not_scanned(file: SqliteFile, statement: str | Rows) -> None:
    text = statement.text(2) if isinstance(statement, Rows) else statement
    plan = await explain(file, text)
    assert [line for line in plan if line.startswith("SCAN saga_")] == []
    assert any(line.startswith("SEARCH") for line in plan)


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_a_list_is_read_in_the_order_of_its_index(file: SqliteFile, direction: str) -> None:
    text = f"SELECT id {sqlite_listing._RUN} ORDER BY started_at {direction}, instance {direction} LIMIT ?"
    searched = "saga=? AND facets=? AND purged=? AND started_at>? AND started_at<?"
    assert await explain(file, text) == [f"SEARCH saga_instances USING INDEX saga_listed ({searched})"]


async def explain(file: SqliteFile, text: str) -> list[str]:
    named = {"now": 0, "before": 0, "limit": 0, "slots": "[]"}
    values = named if ":slots" in text else [0] * text.count("?")
    return file.read(lambda db: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}", values)])
