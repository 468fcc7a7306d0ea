"""A store in the broker's own file commits and publishes in one transaction, so that it needs no outbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.sagas import commit, following, message, snapshot
from tests.support.shop import PlaceOrder, inventory, payments, shipping

from amends.brokers import Broker, EmbeddedBroker, MemoryBroker
from amends.contracts import InternalError
from amends.coordinator import Coordinator, SagaClient
from amends.coordinator.store import CommitResult, StoreUnavailable
from amends.coordinator.stores.sqlite import SqliteStore


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = await EmbeddedBroker.open(tmp_path / "amends.db")
    yield broker
    await broker.close()


@pytest.fixture
async def store(broker: EmbeddedBroker) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(broker.path)
    yield store
    await store.close()


def waiting(broker: EmbeddedBroker) -> list[str]:
    return [queue for (queue,) in broker._file.read(lambda db: db.execute("SELECT queue FROM broker_messages"))]


def in_outbox(broker: EmbeddedBroker) -> int:
    return broker._file.read(lambda db: int(db.execute("SELECT count(*) FROM saga_outbox").fetchone()[0]))


async def test_store_joins_the_broker_of_its_file_and_no_other(
    store: SqliteStore, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    elsewhere = await EmbeddedBroker.open(tmp_path / "other.db")
    others: list[Broker] = [elsewhere, MemoryBroker()]
    assert store.joins(broker)
    for other in others:
        assert not store.joins(other)
        with pytest.raises(InternalError):
            await store.commit_and_publish([commit(snapshot())], other)
    await elsewhere.close()


async def test_what_is_committed_is_published_without_an_outbox(store: SqliteStore, broker: EmbeddedBroker) -> None:
    to_store = snapshot()
    results = await store.commit_and_publish([commit(to_store, outbox=(message("m-1"),))], broker)
    assert results == [CommitResult.COMMITTED]
    assert [stored.snapshot for stored in await store.load([to_store.id])] == [to_store]
    assert in_outbox(broker) == 0
    consumer = await broker.consume_service("inventory")
    (delivery,) = await consumer.receive()
    assert delivery.envelope is not None
    assert delivery.envelope.id == "m-1"


async def test_commit_that_conflicts_publishes_nothing(store: SqliteStore, broker: EmbeddedBroker) -> None:
    first = snapshot("order-1")
    await store.commit([commit(first)])
    stale = commit(following(first), snapshot("order-1", incarnation=first.incarnation), outbox=(message(),))
    won = commit(snapshot("order-2"), outbox=(message(),))
    results = await store.commit_and_publish([stale, won], broker)
    assert results == [CommitResult.CONFLICT, CommitResult.COMMITTED]
    assert waiting(broker) == ["service:inventory"]


async def test_when_the_transaction_fails_there_is_neither_snapshot_nor_message(
    store: SqliteStore, broker: EmbeddedBroker
) -> None:
    big = commit(snapshot(), outbox=(message(size=1_000_000),))
    pages = await broker._file.write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await broker._file.write(lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchone())
    with pytest.raises(StoreUnavailable, match="full"):
        await store.commit_and_publish([big], broker)
    assert [stored.snapshot for stored in await store.load([big.snapshot.id])] == [None]
    assert waiting(broker) == []

    # the same commit again, as after an outage
    await broker._file.write(lambda db: db.execute("PRAGMA max_page_count=1000000").fetchone())
    assert await store.commit_and_publish([big], broker) == [CommitResult.COMMITTED]
    assert waiting(broker) == ["service:inventory"]


async def test_coordinator_on_one_file_runs_sagas_without_the_outbox(
    store: SqliteStore, broker: EmbeddedBroker
) -> None:
    forbid = "CREATE TRIGGER no_outbox BEFORE INSERT ON saga_outbox BEGIN SELECT RAISE(ABORT, 'an outbox entry'); END"
    await broker._file.write(lambda db: db.execute(forbid).fetchone())
    async with (
        inventory.running(broker),
        payments.running(broker),
        shipping.running(broker),
        Coordinator([PlaceOrder], broker=broker, store=store).running(),
        SagaClient(broker=broker, store=store) as client,
    ):
        outcome = await client.run(PlaceOrder(sku="blue-mug"), id="order-1", timeout=30)
    assert outcome.status == "completed"
