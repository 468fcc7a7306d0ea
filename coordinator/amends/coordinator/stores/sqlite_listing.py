"""How the SQLite store lists and counts sagas.

The index `saga_listed` holds, for each saga name and each combination of phase and flags, the sagas by start time. A
query reads the beginning of every run that can match and merges them: quick whatever the filters leave over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from amends.coordinator.store import SagaQuery, SagaSummary
from amends.coordinator.stores.facets import matching, phase_and_flags
from amends.coordinator.stores.times import moment

_COLUMNS: Final = "started_at, instance, id, saga, facets, definition_version, version, updated_at, wake_at"
_NAMES: Final = "SELECT min(saga) FROM saga_instances WHERE purged = 0 AND saga > ?"
_RUN: Final = "FROM saga_instances WHERE purged = 0 AND saga = ? AND facets = ?"
# no id holds the last code point of all, as it cannot be printed
_PREFIX: Final = "FROM saga_instances WHERE purged = 0 AND id >= ? AND id < ? || char(1114111)"


def find(connection: sqlite3.Connection, query: SagaQuery) -> list[SagaSummary]:
    newest = query.order == "newest"
    rows = list(_prefixed(connection, query) if query.id_prefix else _merged(connection, query))
    rows.sort(key=lambda row: (row[0], row[1]), reverse=newest)
    return [_summary(row) for row in rows[: query.limit]]


def count(connection: sqlite3.Connection, query: SagaQuery) -> int:
    if query.id_prefix:
        return sum(1 for _ in _prefixed(connection, query))
    return sum(
        connection.execute(f"SELECT count(*) {_RUN}", (name, facets)).fetchone()[0]
        for name in _names(connection, query)
        for facets in matching(query)
    )


def _merged(connection: sqlite3.Connection, query: SagaQuery) -> Iterator[tuple[Any, ...]]:
    direction = "DESC" if query.order == "newest" else "ASC"
    sql = f"SELECT {_COLUMNS} {_RUN} ORDER BY started_at {direction}, instance {direction} LIMIT ?"
    for name in _names(connection, query):
        for facets in matching(query):
            yield from connection.execute(sql, (name, facets, query.limit))


def _prefixed(connection: sqlite3.Connection, query: SagaQuery) -> Iterator[tuple[Any, ...]]:
    wanted = set(matching(query))
    for row in connection.execute(f"SELECT {_COLUMNS} {_PREFIX}", (query.id_prefix, query.id_prefix)):
        if row[4] in wanted and query.saga in (None, row[3]):
            yield row


def _names(connection: sqlite3.Connection, query: SagaQuery) -> Iterator[str]:
    """The saga names to look at: by one seek in the index for each."""
    name: str | None = query.saga
    if name is not None:
        yield name
        return
    name = ""
    while (name := connection.execute(_NAMES, (name,)).fetchone()[0]) is not None:
        yield name


def _summary(row: tuple[Any, ...]) -> SagaSummary:
    started_at, _, id, saga, facets, definition_version, version, updated_at, wake_at = row
    phase, stuck, paused, waived = phase_and_flags(facets)
    return SagaSummary(
        id=id,
        saga=saga,
        definition_version=definition_version,
        phase=phase,
        stuck=stuck,
        paused=paused,
        waived=waived,
        version=version,
        started_at=moment(started_at),
        updated_at=moment(updated_at),
        wake_at=moment(wake_at),
    )
