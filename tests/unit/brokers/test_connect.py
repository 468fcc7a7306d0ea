"""`connect_broker`: which broker a URL means."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.contract.broker import STOCK, ids, message, receive

from amends.brokers import EmbeddedBroker, MemoryBroker, ShardMap, connect_broker
from amends.contracts import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (None, ".amends/amends.db"),
        ("embedded:", ".amends/amends.db"),
        ("embedded:other.db", "other.db"),
        ("embedded:some/folder/other.db", "some/folder/other.db"),
        ("embedded://{here}/absolute.db", "absolute.db"),
    ],
)
async def test_embedded_urls_name_a_file(here: Path, url: str | None, path: str) -> None:
    broker = await connect_broker(url and url.format(here=here))
    assert isinstance(broker, EmbeddedBroker)
    assert broker.shared
    await broker.publish([message(STOCK, "m")])
    await broker.close()
    again = await EmbeddedBroker.open(here / path)
    assert ids(await receive(await again.consume_service("inventory"), 1)) == ["m"]
    await again.close()


async def test_another_shard_map_than_the_stored_one_is_refused(here: Path) -> None:
    broker = await connect_broker(shard_map=ShardMap(shards=4))
    with pytest.raises(UsageError, match=r"was set up with 4 shards .* Start it with shards=4"):
        await connect_broker()
    assert broker.shard_map == ShardMap(shards=4)
    await broker.close()
    with pytest.raises(UsageError, match="was set up with 4 shards"):
        await connect_broker(shard_map=ShardMap(shards=4, version=2))


async def test_memory_brokers_of_one_name_share_their_messages() -> None:
    one, two, other = [await connect_broker(url) for url in ("memory:", "memory:", "memory:other")]
    assert isinstance(one, MemoryBroker)
    assert not one.shared
    await one.publish([message(STOCK, "m")])
    await one.close()
    await other.publish([message(STOCK, "elsewhere")])
    assert ids(await receive(await two.consume_service("inventory"), 1)) == ["m"]
    with pytest.raises(UsageError, match=r"memory:other was set up with 8 shards"):
        await connect_broker("memory:other", shard_map=ShardMap(shards=2))


def test_memory_brokers_of_different_event_loops_share_nothing() -> None:
    async def publish() -> None:
        await (await connect_broker("memory:x")).publish([message(STOCK, "m")])

    async def pending() -> int:
        broker = await connect_broker("memory:x")
        assert isinstance(broker, MemoryBroker)
        return broker.pending

    asyncio.run(publish())
    assert asyncio.run(pending()) == 0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp:///vhost", "is no RabbitMQ URL. Write amqp://user:password@host:5672/vhost"),
        ("amqp://user:secret@host/?namespace=a/b", "namespace='a/b' cannot be part of queue names"),
        ("amqp://user:secret@host:port/", "is no RabbitMQ URL"),
        ("kafka://user:secret@host:9092/topic", "a Kafka URL is kafka://"),
        ("kafka://host:9092?prefx=a", "prefx is no option of a Kafka URL. Did you mean prefix?"),
        ("embeded:x.db", "embeded: is no kind of broker. Did you mean embedded:?"),
        ("Memory:", "Did you mean memory:?"),
        ("rabbitmq://host", "rabbitmq: is no kind of broker"),
        ("amends.db", "'amends.db' is no broker URL: it has no scheme"),
        ("embedded://amends.db", "embedded://amends.db names no file. Write embedded:relative/path.db"),
        ("embedded:///", "names no file"),
    ],
)
async def test_other_urls_are_refused_with_what_there_is(url: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        await connect_broker(url)
    assert says in str(refused.value)
    assert "secret" not in str(refused.value)
