"""What the embedded broker does beyond the port, and when its file or its membership is in trouble."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.contract.broker import GUARD_S, STOCK, Shares, ids, message, numbered, others, receive

from amends.brokers import BrokerUnavailable, EmbeddedBroker, Outgoing
from amends.brokers.embedded import tables
from amends.brokers.queues import shard_queue
from amends.brokers.sqlite_file import FileCorrupt, SqliteFile
from amends.contracts import UsageError
from amends.contracts.names import client_address, service_address


@pytest.fixture
def path(short_path: Path) -> Path:
    return short_path / "amends.db"


@pytest.fixture
async def impatient(path: Path) -> AsyncIterator[SqliteFile]:
    """The file with a short wait for locks, which the brokers of this loop then have too."""
    file = SqliteFile.open(path, busy_timeout_s=0.05)
    yield file
    await file.close()


@pytest.fixture
async def broker(path: Path, impatient: SqliteFile) -> AsyncIterator[EmbeddedBroker]:
    broker = await EmbeddedBroker.open(path)
    yield broker
    await broker.close()


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


# speed


async def test_a_message_for_a_consumer_of_this_process_is_handed_over_without_being_read_back(
    broker: EmbeddedBroker, path: Path
) -> None:
    consumer = await broker.consume_service("inventory")
    sent = message(STOCK)
    await broker.publish([sent])
    (delivery,) = consumer.take()
    assert delivery.envelope is sent.envelope
    assert rows(path, "SELECT owner IS NOT NULL, deliveries FROM broker_messages") == [(1, 1)]


async def test_acknowledging_and_fetching_more_share_a_transaction(
    broker: EmbeddedBroker, impatient: SqliteFile
) -> None:
    consumer = await broker.consume_service("inventory", prefetch=2)
    await broker.publish(numbered(STOCK, range(4)))
    got = await receive(consumer, 2)
    seen: list[str] = []
    impatient._writer.set_trace_callback(seen.append)
    await consumer.ack(got)
    assert ids(consumer.take()) == ["2", "3"]
    assert seen.count("COMMIT") == 1


async def test_brokers_on_one_file_in_one_loop_are_one_member(broker: EmbeddedBroker, path: Path) -> None:
    same = await EmbeddedBroker.open(path)
    assert len(rows(path, "SELECT id FROM broker_members")) == 1
    await same.close()
    assert len(rows(path, "SELECT id FROM broker_members")) == 1


async def test_nothing_is_left_of_a_member_that_closed(path: Path) -> None:
    broker = await EmbeddedBroker.open(path)
    await broker.consume_shards(Shares()[0])
    await broker.consume_client("c1")
    await broker.publish([message(client_address("c1"))])
    await broker.close()
    for table in ("members", "consumers", "shards", "messages"):
        assert rows(path, f"SELECT * FROM broker_{table}") == []
    assert list(path.with_name("amends.db-members").iterdir()) == []


# one call of publish


async def test_what_one_call_publishes_is_stored_whole_or_not_at_all(broker: EmbeddedBroker, path: Path) -> None:
    consumer = await broker.consume_service("inventory", prefetch=3)
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON broker_messages WHEN NEW.queue = 'service:bad'"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    bad = [*numbered(STOCK, range(3)), message(service_address("bad"))]
    good = numbered(STOCK, range(3))
    done = await asyncio.gather(broker.publish(bad), broker.publish(good), broker.publish(bad), return_exceptions=True)
    assert [type(result) for result in done] == [sqlite3.IntegrityError, type(None), sqlite3.IntegrityError]
    # what was promised to the consumer and rolled back takes no room: it has all three of the good ones
    assert ids(consumer.take()) == ["0", "1", "2"]
    assert rows(path, "SELECT count(*) FROM broker_messages") == [(3,)]


async def test_cancelling_publish_does_not_stop_it(broker: EmbeddedBroker) -> None:
    consumer = await broker.consume_service("inventory")
    publishing = asyncio.create_task(broker.publish([message(STOCK, "m")]))
    await others(1)
    publishing.cancel()
    assert ids(await receive(consumer, 1)) == ["m"]
    assert publishing.cancelled()


async def test_a_message_does_not_overtake_one_that_another_consumer_released(broker: EmbeddedBroker) -> None:
    holder = await broker.consume_service("inventory", prefetch=1)
    await broker.publish([message(STOCK, "old")])
    got = await receive(holder, 1)
    with_room = await broker.consume_service("inventory")
    closing_ = asyncio.gather(holder.release(got), holder.close(), broker.publish([message(STOCK, "new")]))
    assert ids(await receive(with_room, 2)) == ["old", "new"]
    await closing_


# trouble with the file


async def test_a_locked_file_is_a_broker_that_is_away_and_all_goes_on_when_it_is_back(
    broker: EmbeddedBroker, path: Path
) -> None:
    consumer = await broker.consume_service("inventory", prefetch=2)
    await broker.publish(numbered(STOCK, range(3)))
    got = await receive(consumer, 2)
    other = await broker.consume_service("payments")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        says = r"amends\.db has been locked by another program for 0\.05 s\. Find what holds it"
        with pytest.raises(BrokerUnavailable, match=says):
            await broker.publish([message(STOCK, "lost")])
        with pytest.raises(BrokerUnavailable, match=says):
            await consumer.ack(got)
        with pytest.raises(BrokerUnavailable, match=says):
            await consumer.release(got)
        with pytest.raises(BrokerUnavailable, match=says):
            await consumer.dead_letter(got[0], "refused", "no")
        with pytest.raises(BrokerUnavailable, match=says):
            await other.close()
        db.execute("ROLLBACK")
    await consumer.ack(got[:1])
    assert ids(await receive(consumer, 1)) == ["2"]
    await consumer.release(got[1:])
    assert [(*ids([d]), d.deliveries) for d in await receive(consumer, 1)] == [("1", 2)]


async def test_an_acknowledgement_that_was_rolled_back_leaves_its_deliveries_in_hand(
    broker: EmbeddedBroker, path: Path, impatient: SqliteFile
) -> None:
    consumer = await broker.consume_service("inventory", prefetch=2)
    await broker.publish(numbered(STOCK, range(3)))
    got = await receive(consumer, 2)
    (pages,) = impatient._writer.execute("PRAGMA page_count").fetchone()
    impatient._writer.execute(f"PRAGMA max_page_count={pages}")
    huge = Outgoing(STOCK, structs.replace(message(STOCK).envelope, data=b"x" * 1_000_000))
    done = await asyncio.gather(consumer.ack(got), broker.publish([huge]), return_exceptions=True)
    assert [str(error) for error in done] == [f"the disk of {path} is full. Make room; work goes on by itself"] * 2
    impatient._writer.execute("PRAGMA max_page_count=1000000")
    # it still has no room: another one gets what comes
    await broker.publish(numbered(STOCK, [3]))
    assert ids(await receive(await broker.consume_service("inventory"), 2)) == ["2", "3"]
    await consumer.ack(got)
    assert rows(path, "SELECT count(*) FROM broker_messages") == [(2,)]


async def test_a_consumer_that_is_closed_while_the_file_is_locked_gives_back_what_it_had_later(
    broker: EmbeddedBroker, path: Path
) -> None:
    consumer = await broker.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(3)))
    await receive(consumer, 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable):
            await consumer.close()
        db.execute("ROLLBACK")
    assert ids(await receive(await broker.consume_service("inventory"), 3)) == ["0", "1", "2"]


async def test_receive_says_that_the_file_is_locked_when_there_is_something_to_fetch(
    broker: EmbeddedBroker, path: Path
) -> None:
    consumer = await broker.consume_service("inventory")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("INSERT INTO broker_messages (queue, body, deliveries) VALUES ('service:inventory', 'x', 0)")
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable, match="has been locked"):
            await receive(consumer, 1)
        db.execute("ROLLBACK")
    assert [d.body for d in await receive(consumer, 1)] == [b"x"]


async def test_a_damaged_file_is_terminal(path: Path) -> None:
    with open(path, "wb") as file:  # noqa: ASYNC230
        file.write(b"garbage" * 1000)
    with pytest.raises(FileCorrupt, match="move it away"):
        await EmbeddedBroker.open(path)


async def test_a_file_that_cannot_be_opened_is_a_broker_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="cannot be used"):
        await EmbeddedBroker.open(tmp_path)


async def test_a_prefetch_of_nothing_is_refused(broker: EmbeddedBroker) -> None:
    with pytest.raises(UsageError, match="prefetch=0"):
        await broker.consume_service("inventory", prefetch=0)


async def test_a_consumer_whose_opening_was_cancelled_keeps_nothing_back(broker: EmbeddedBroker, path: Path) -> None:
    opening = asyncio.create_task(broker.consume_shards(Shares()[0]))
    await others(2)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    shares = Shares()
    await broker.consume_shards(shares[0])
    await shares.until(8)


# members


def expel(path: Path) -> None:
    """What another member does when it believes that this one is dead."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        for (member,) in db.execute("SELECT id FROM broker_members").fetchall():
            assert tables.expel(db, member)
        db.execute("COMMIT")


async def test_a_member_that_was_expelled_drops_what_it_had_and_comes_back(broker: EmbeddedBroker, path: Path) -> None:
    shares = Shares()
    await broker.consume_shards(shares[0])
    client = await broker.consume_client("c1")
    consumer = await broker.consume_service("inventory")
    await broker.publish(numbered(STOCK, range(3)))
    stale = await receive(consumer, 2)
    (before,) = rows(path, "SELECT id FROM broker_members")
    expel(path)
    await consumer.ack(stale)
    again = await receive(consumer, 3)
    assert [(*ids([d]), d.deliveries) for d in again] == [("0", 2), ("1", 2), ("2", 2)]
    (after,) = rows(path, "SELECT id FROM broker_members")
    assert after > before
    await consumer.ack(stale)
    await broker.publish([message(client_address("c1"), "m")])
    assert ids(await receive(client, 1)) == ["m"]
    await shares.until(8)
    assert rows(path, "SELECT count(*) FROM broker_messages WHERE queue = 'service:inventory'") == [(3,)]
    await consumer.ack(again)
    assert rows(path, "SELECT count(*) FROM broker_messages WHERE queue = 'service:inventory'") == [(0,)]


async def test_a_member_comes_back_as_soon_as_it_notices(broker: EmbeddedBroker, path: Path) -> None:
    consumer = await broker.consume_service("inventory")
    async with asyncio.timeout(GUARD_S):
        for number in range(30):
            await broker.publish(numbered(STOCK, [number]))
            stale = await receive(consumer, 1)
            expel(path)
            await consumer.ack(stale)
            again = await receive(consumer, 1)
            assert ids(again) == [str(number)]
            await consumer.ack(again)


async def test_an_expelled_member_owns_nothing_that_it_publishes(broker: EmbeddedBroker, path: Path) -> None:
    consumer = await broker.consume_service("inventory")
    expel(path)
    await broker.publish([message(STOCK, "m")])
    (delivery,) = await receive(consumer, 1)
    assert (*ids([delivery]), delivery.deliveries) == ("m", 1)
    assert rows(path, "SELECT owner IN (SELECT id FROM broker_consumers) FROM broker_messages") == [(1,)]


async def test_a_consumer_can_be_opened_by_a_member_that_does_not_know_that_it_was_expelled(
    broker: EmbeddedBroker, path: Path
) -> None:
    expel(path)
    await broker.publish([message(STOCK, "m")])
    async with asyncio.timeout(GUARD_S):
        consumer = await broker.consume_service("inventory")
    assert ids(await receive(consumer, 1)) == ["m"]
    assert len(rows(path, "SELECT id FROM broker_members")) == 1


async def test_a_member_without_a_beat_is_expelled_by_the_others(path: Path) -> None:
    """One that cannot be rung and left a message and a shard in hand, as a stopped process does."""
    broker = await EmbeddedBroker.open(path, lease_s=0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        still = tables.join(db, "")
        owner = tables.register(db, still, STOCK)
        tables.take_over(db, tables.register(db, still, tables.SHARDS), 3)
        tables.insert(db, [STOCK, b"x", owner, 1])
    shares = Shares()
    consumer = await broker.consume_service("inventory")
    await broker.consume_shards(shares[0])
    assert shares.held[0] < frozenset(range(8))
    assert [d.deliveries for d in await receive(consumer, 1)] == [2]
    await shares.until(8)
    await broker.close()


async def test_shards_move_at_once_and_not_when_members_happen_to_look(path: Path) -> None:
    one, two = await EmbeddedBroker.open(path, lease_s=100), await EmbeddedBroker.open(path, lease_s=200)
    shares = Shares(2)
    await one.consume_shards(shares[0])
    async with asyncio.timeout(GUARD_S):
        for _ in range(40):
            consumer = await two.consume_shards(shares[1])
            await shares.until(4, 4)
            await consumer.close()
            shares.held[1] = frozenset()
            await shares.until(8, 0)
    await one.close()
    await two.close()


async def test_nothing_is_fetched_of_a_shard_that_was_given_up_in_the_same_transaction(
    broker: EmbeddedBroker, path: Path
) -> None:
    consumer = await broker.consume_shards(Shares()[0])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables.register(db, tables.join(db, ""), tables.SHARDS)
        tables.insert(db, [value for shard in range(8) for value in (shard_queue(shard), b"x", None, 0)])
    settled = broker._member.settle()
    broker._member.refill(consumer)
    await settled
    await receive(consumer, 4)
    owned = "SELECT queue FROM broker_messages WHERE owner IS NOT NULL ORDER BY seq"
    held = "SELECT printf('shard:%02d', shard) FROM broker_shards ORDER BY shard"
    assert len(rows(path, owned)) == 4
    assert rows(path, owned) == rows(path, held)


@pytest.mark.parametrize("stopped", [False, True])
async def test_one_that_was_stopped_itself_does_not_hold_silence_against_others(
    broker: EmbeddedBroker, path: Path, stopped: bool
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        other = tables.join(db, "")
    member, long_ago = broker._member, time.monotonic() - 1000
    member._beats[other] = (0, long_ago)
    if stopped:
        member._ticked = long_ago
    member._tick()
    await broker.publish([message(STOCK)])
    assert ((other,) in rows(path, "SELECT id FROM broker_members")) == stopped


# statements


@pytest.mark.parametrize("count", [1, 2, 3, 7, 255, 256, 257, 1000])
async def test_statements_take_any_number_of_messages(impatient: SqliteFile, path: Path, count: int) -> None:
    file = SqliteFile.open(path, tables.SCHEMA)

    def job(db: sqlite3.Connection) -> None:
        first = tables.insert(db, [value for n in range(count) for value in ("q", str(n).encode(), 7, 1)])
        seqs = list(range(first, first + count))
        assert db.execute("SELECT seq FROM broker_messages ORDER BY seq").fetchall() == [(seq,) for seq in seqs]
        tables.release(db, 8, seqs)
        assert not tables.is_waiting(db, "q")
        tables.release(db, 7, seqs, unseen=True)
        taken = tables.claim(db, 9, ["other", "q"], count + 5)
        assert [(m.seq, m.body, m.deliveries) for m in taken] == [(s, str(s - first).encode(), 1) for s in seqs]
        assert tables.delete(db, 7, seqs) == 0
        assert tables.delete(db, 9, seqs) == count

    await file.write(job)
    await file.close()


async def test_numbers_are_never_used_twice(impatient: SqliteFile, path: Path) -> None:
    file = SqliteFile.open(path, tables.SCHEMA)

    def job(db: sqlite3.Connection) -> None:
        first = tables.insert(db, ["q", b"", 7, 1])
        tables.delete(db, 7, [first])
        assert tables.insert(db, ["q", b"", 7, 1]) > first

    await file.write(job)
    await file.close()


async def test_acknowledging_searches_by_number_only(impatient: SqliteFile, path: Path) -> None:
    file = SqliteFile.open(path, tables.SCHEMA)
    explain = "EXPLAIN QUERY PLAN DELETE FROM broker_messages WHERE seq IN (?,?) AND +owner=?"
    plan = file.read(lambda db: db.execute(explain, (1, 2, 3)).fetchall())
    assert [row[3] for row in plan] == ["SEARCH broker_messages USING INTEGER PRIMARY KEY (rowid=?)"]
    await file.close()
