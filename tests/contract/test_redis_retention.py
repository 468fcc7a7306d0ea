"""On a real Redis, what has been over for long enough goes by itself, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from redis.asyncio import Redis
from tests.support.redis_servers import ask
from tests.support.servers import PrivateRedis
from tests.support.shop import PlaceOrder, inventory, payments, shipping
from tests.support.waiting import assert_eventually

from amends.brokers import MemoryBroker, Retention
from amends.coordinator import Coordinator, CoordinatorConfig, Policy, Retry, SagaClient, SagaQuery
from amends.coordinator.stores.redis import RedisStore
from amends.participants import Participant

SECOND = timedelta(seconds=1)
SHORT = Retention(sagas=SECOND, ledger=SECOND, inbox=3 * SECOND, messages=SECOND / 2)


def retaining(participant: Participant) -> Participant:
    """The participant, with a short memory."""
    copy = Participant(participant.service, retention=SHORT)
    copy._handlers = dict(participant.handlers)
    return copy


async def test_nothing_is_left_of_a_saga_some_time_after_its_end(private_redis: Callable[..., PrivateRedis]) -> None:
    server = private_redis()
    medium = MemoryBroker()
    store = await RedisStore.open(server.url)
    policy = Policy(command_ttl=SECOND / 2, resend=Retry(attempts=None, delay=0.1, max_delay=0.3))
    config = CoordinatorConfig(retention=SHORT)
    coordinator = Coordinator([PlaceOrder], broker=medium, store=store, policy=policy, config=config)
    services = [retaining(participant) for participant in (inventory, payments, shipping)]
    async with (
        services[0].running(medium, inbox=server.url),
        services[1].running(medium, inbox=server.url),
        services[2].running(medium, inbox=server.url),
        coordinator.running(),
        SagaClient(broker=medium, store=store) as sagas,
        Redis.from_url(server.url) as raw,
    ):
        outcome = await sagas.run(PlaceOrder(sku="book"), id="order-1", timeout=30)
        assert outcome.status == "completed"
        waiting = await sagas.start(PlaceOrder(sku="book", needs_approval=True), id="order-2")

        async def is_gone() -> bool:
            (stored,) = await store.load(["order-1"])
            return stored.start is None

        await assert_eventually(is_gone)
        assert await sagas.count(SagaQuery(key=("sku", "book"))) == 1
        assert not (await waiting.outcome()).ended

        async def is_forgotten() -> bool:
            keys = await raw.keys("*:inbox")
            pipeline = raw.pipeline(transaction=False)
            for key in keys:
                pipeline.hkeys(key)
            return not any(name.startswith(b"order-1~") for names in await pipeline.execute() for name in names)

        await assert_eventually(is_forgotten)
    left = [key for key in ask(server, "KEYS", "*") if "order-1" in key]
    assert left == []
    await store.close()
