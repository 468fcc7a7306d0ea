"""The SQLite store keeps the contract of its port, and its file survives what happens to files and processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.handlings import forget_in_time
from tests.contract.store import ALL, CONFLICT, SagaStoreContract, current
from tests.support import store_writer
from tests.support.sagas import HandClock, commit, following, message, outbox_key, snapshot

from amends.brokers import ShardMap
from amends.brokers.sqlite_file import SqliteFile
from amends.coordinator.store import (
    CommitResult,
    Parked,
    SagaQuery,
    SagaStore,
    StoreCorrupt,
    StoreUnavailable,
)
from amends.coordinator.stores import SqliteStore

ROOT = Path(__file__).parents[2]


class TestSqliteStore(SagaStoreContract):
    @pytest.fixture(autouse=True)
    def _new_data(self, tmp_path: Path) -> None:
        self.clock = HandClock()
        self.path = tmp_path / "amends.db"

    async def open(self) -> SagaStore:
        return SqliteStore.open(self.path, self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_handlings_are_forgotten_after_a_while(self, store: SagaStore) -> None:
        await forget_in_time(store, self.clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amends.db"


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


# damage


@pytest.mark.parametrize("bytes", ["c1", "93", "", "80"])
async def test_a_snapshot_that_cannot_be_read_is_reported_with_its_table_and_id(path: Path, bytes: str) -> None:
    store = SqliteStore.open(path)
    good, broken = snapshot("good"), snapshot("broken")
    await store.commit([commit(good), commit(broken)])
    with raw(path) as connection:
        connection.execute(f"UPDATE saga_instances SET body = x'{bytes}' WHERE id = 'broken'")
    with pytest.raises(StoreCorrupt, match=r"saga_instances.*'broken'.*backup") as caught:
        await store.load(["good", "broken"])
    assert str(path) in str(caught.value)
    assert await current(store, "good") == good
    await store.close()


async def test_journal_outbox_and_parked_messages_that_cannot_be_read_are_reported_with_table_and_saga(
    path: Path,
) -> None:
    clock = HandClock()
    store = SqliteStore.open(path, clock)
    await store.commit([commit(snapshot("broken"), outbox=(message(),))])
    await store.park([Parked("place-order", 1, message("letter"))])
    await store.adopt(ShardMap())
    with raw(path) as connection:
        for table in ("saga_journal", "saga_outbox", "saga_parked"):
            connection.execute(f"UPDATE {table} SET body = x'c1'")
        connection.execute("UPDATE saga_meta SET value = '{'")
    clock.advance(60)
    with pytest.raises(StoreCorrupt, match=r"saga_journal.*'broken'"):
        await store.journal("broken")
    with pytest.raises(StoreCorrupt, match=r"saga_outbox.*'broken'"):
        await store.overdue_outbox(ALL, 1, 10, 60)
    with pytest.raises(StoreCorrupt, match=r"saga_parked.*'letter'.*'place-order'"):
        await store.unpark("place-order", 1, 10)
    with pytest.raises(StoreCorrupt, match=r"saga_meta.*shard map"):
        await store.adopt(ShardMap())
    await store.close()


async def test_a_file_that_is_no_database_is_reported_and_left_alone(path: Path) -> None:
    junk = b"these are not the bytes of a database" * 100
    overwrite(path, 0, junk)
    with pytest.raises(StoreCorrupt, match=r"amends\.db"):
        SqliteStore.open(path)
    assert content_of(path) == junk


async def test_damaged_pages_are_reported_as_corruption(path: Path) -> None:
    store = SqliteStore.open(path)
    await store.commit([commit(snapshot(f"order-{n}", state=os.urandom(2000))) for n in range(200)])
    await store.close()
    overwrite(path, 4096, b"\xff" * (len(content_of(path)) - 4096))
    damaged = SqliteStore.open(path)
    with pytest.raises(StoreCorrupt, match=r"amends\.db"):
        await damaged.load([f"order-{n}" for n in range(200)])
    with pytest.raises(StoreCorrupt, match=r"amends\.db"):
        await damaged.commit([commit(snapshot())])
    await damaged.close()


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(at)
        file.write(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


# locks


async def test_a_commit_waits_for_the_lock_of_another_program(path: Path) -> None:
    store = SqliteStore.open(path)
    first = snapshot()
    with raw(path) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(store.commit([commit(first)]))
        assert await current(store) is None
        assert not waiting.done()
        other.execute("COMMIT")
    assert list(await waiting) == [CommitResult.COMMITTED]
    assert await current(store) == first
    await store.close()


async def test_a_lock_that_is_not_let_go_makes_the_store_unavailable_until_it_is(path: Path) -> None:
    file = SqliteFile.open(path, busy_timeout_s=0.05)
    store = SqliteStore.open(path)
    start = commit(snapshot())
    with raw(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.commit([start])
        assert await current(store) is None
        other.execute("ROLLBACK")
    assert list(await store.commit([start])) == [CommitResult.COMMITTED]
    await store.close()
    await file.close()


async def test_a_place_where_no_file_can_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="file"):
        SqliteStore.open(tmp_path / "file" / "amends.db")


# several writers


async def test_of_two_connections_that_race_from_two_threads_exactly_one_commits_each_version(path: Path) -> None:
    first = snapshot()
    store = SqliteStore.open(path)
    await store.commit([commit(first)])

    async def race() -> int:
        """Try to make every version up to 60; how many were ours."""
        mine, own = 0, SqliteStore.open(path)
        while (before := await current(own)) is not None and before.version < 60:
            after = following(before)
            (result,) = await own.commit([commit(after, before, outbox=(message(),))], [outbox_key(before)])
            mine += result is CommitResult.COMMITTED
        await own.close()
        return mine

    wins = await asyncio.gather(*(asyncio.to_thread(asyncio.run, race()) for _ in range(3)))
    assert sum(wins) == 59
    assert [record.version for record in await store.journal(first.id)] == list(range(1, 61))
    await store.close()


async def test_a_commit_that_conflicts_does_not_disturb_others_of_its_transaction(path: Path) -> None:
    store, other = SqliteStore.open(path), SqliteStore.open(path)
    a, b = snapshot("a"), snapshot("b")
    results = await asyncio.gather(
        store.commit([commit(a)]), other.commit([commit(snapshot("a"))]), store.commit([commit(b)])
    )
    assert [list(result) for result in results] == [["committed"], ["conflict"], ["committed"]]
    assert (await current(other, "a"), await current(other, "b")) == (a, b)
    await store.close()
    await other.close()


@pytest.mark.slow
async def test_a_conflict_is_found_against_what_another_process_wrote(path: Path) -> None:
    store = SqliteStore.open(path)
    before = {line.split()[0] for line in _written_before_kill(path, "theirs", 40)}
    taken = min(before)
    assert list(await store.commit([commit(snapshot(taken))])) == [CONFLICT]
    await store.close()


@pytest.mark.slow
async def test_every_reported_commit_survives_kill_9_and_every_commit_is_whole(path: Path) -> None:
    reported: dict[str, int] = {}
    for round, lines in enumerate((1, 100, 1500, 4000)):
        for line in _written_before_kill(path, f"round-{round}", lines):
            saga_id, version = line.split()
            reported[saga_id] = int(version)
    clock = HandClock()
    store = SqliteStore.open(path, clock)
    clock.advance(timedelta(days=36_500).total_seconds())
    sagas = await store.find(SagaQuery(limit=1_000_000))
    outbox = {e.key.saga_id: e.key.version for e in await store.overdue_outbox(ALL, 0, 1_000_000, 60)}
    versions = {saga.id: saga.version for saga in sagas}
    assert len(reported) > 4000 / store_writer.VERSIONS
    assert all(versions[saga_id] >= version for saga_id, version in reported.items())
    assert outbox == versions
    for saga in sagas:
        (stored,) = await store.load([saga.id])
        assert stored.snapshot is not None
        assert stored.snapshot.version == saga.version
        records = await store.journal(saga.id)
        assert [record.version for record in records] == list(range(1, saga.version + 1))
        assert records[-1].commit_id == stored.snapshot.commit_id
    await store.close()


def _written_before_kill(path: Path, prefix: str, lines: int) -> list[str]:
    """What a writing process had reported when it was killed, some time after its `lines`-th line."""
    writer = subprocess.Popen(
        [sys.executable, store_writer.__file__, str(path), prefix],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
        text=True,
    )
    assert writer.stdout is not None
    with writer, writer.stdout:
        seen = [line for line, _ in zip(writer.stdout, range(lines), strict=False)]
        assert writer.poll() is None, "the writer ended by itself"
        writer.send_signal(signal.SIGKILL)
        seen += [line for line in writer.stdout if line.endswith("\n")]
    assert writer.returncode == -signal.SIGKILL
    return seen
