"""How the SQLite store lists and counts sagas.

The index `saga_listed` holds, for each saga name and each combination of phase and flags, the sagas by start time. A
query reads the part of every run that can match and merges them: quick whatever the filters leave over. `saga_keys`
holds, for each value of a business key, its sagas by start time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from amends.coordinator.store import SagaQuery, SagaSummary
from amends.coordinator.stores.facets import matching, phase_and_flags
from amends.coordinator.stores.filters import fits
from amends.coordinator.stores.times import micros, moment

_COLUMNS: Final = "started_at, instance, id, saga, facets, definition_version, version, updated_at, wake_at, keys"
_NAMES: Final = "SELECT min(saga) FROM saga_instances WHERE purged = 0 AND saga > ?"
_STARTED: Final = "started_at >= ? AND started_at < ?"
_RUN: Final = f"FROM saga_instances WHERE purged = 0 AND saga = ? AND facets = ? AND {_STARTED}"
_KEY: Final = f"""
    FROM saga_keys JOIN saga_instances USING (instance, started_at) WHERE name = ? AND value = ? AND {_STARTED}"""
# no id holds the last code point of all, as it cannot be printed
_PREFIX: Final = "FROM saga_instances WHERE purged = 0 AND id >= ? AND id < ? || char(1114111)"

_EVER: Final = (-(2**63), 2**63 - 1)


def find(connection: sqlite3.Connection, query: SagaQuery) -> list[SagaSummary]:
    newest = query.order == "newest"
    rows = list(_one_by_one(connection, query) if _is_narrow(query) else _merged(connection, query))
    rows.sort(key=lambda row: (row[0], row[1]), reverse=newest)
    return [_summary(row) for row in rows[: query.limit]]


def count(connection: sqlite3.Connection, query: SagaQuery) -> int:
    if _is_narrow(query):
        return sum(1 for _ in _one_by_one(connection, query))
    return sum(
        connection.execute(f"SELECT count(*) {_RUN}", (name, facets, *_started(query))).fetchone()[0]
        for name in _names(connection, query)
        for facets in matching(query)
    )


def _is_narrow(query: SagaQuery) -> bool:
    """Whether few sagas are expected, which are looked at one by one."""
    return query.key is not None or bool(query.id_prefix)


def _merged(connection: sqlite3.Connection, query: SagaQuery) -> Iterator[tuple[Any, ...]]:
    direction = "DESC" if query.order == "newest" else "ASC"
    sql = f"SELECT {_COLUMNS} {_RUN} ORDER BY started_at {direction}, instance {direction} LIMIT ?"
    for name in _names(connection, query):
        for facets in matching(query):
            yield from connection.execute(sql, (name, facets, *_started(query), query.limit))


def _one_by_one(connection: sqlite3.Connection, query: SagaQuery) -> Iterator[tuple[Any, ...]]:
    if query.key is not None:
        rows = connection.execute(f"SELECT {_COLUMNS} {_KEY}", (*query.key, *_started(query)))
    else:
        rows = connection.execute(f"SELECT {_COLUMNS} {_PREFIX}", (query.id_prefix, query.id_prefix))
    return (row for row in rows if fits(query, _summary(row)))


def _started(query: SagaQuery) -> tuple[int, int]:
    """From when, and until before when."""
    after, before = micros(query.started_after), micros(query.started_before)
    return _EVER[0] if after is None else after, _EVER[1] if before is None else before


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
    started_at, _, id, saga, facets, definition_version, version, updated_at, wake_at, keys = row
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
        keys={} if keys is None else msgspec.json.decode(keys, type=dict[str, str]),
    )
