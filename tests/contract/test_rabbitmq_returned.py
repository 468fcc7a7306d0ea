"""What RabbitMQ takes out of a queue at its delivery limit: it waits to be judged, and is lost in no case."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.contract.broker import GUARD_S, STOCK, Shares, envelope, ids, message, numbered, ordered, receive
from tests.support.rabbitmq import Rabbit
from tests.support.rig import Order

from amends.brokers import Returned
from amends.brokers.port import Judge
from amends.brokers.rabbitmq import RabbitmqBroker
from amends.contracts.names import slot_address
from amends.contracts.packs import PACK_TYPE, write_pack
from amends.coordinator import Coordinator, StoreUnavailable
from amends.coordinator.stores import MemoryStore
from amends.coordinator.suspicion import Suspicion

CHILD = Path(__file__).with_name("rabbitmq_child.py")
LIMIT = 2


@pytest.fixture
def rabbit(rabbitmq_url: str) -> Rabbit:
    # its queues are made here, as they keep the limit that they were made with
    return Rabbit(rabbitmq_url, f"returned-{os.urandom(4).hex()}")


@pytest.fixture
async def broker(rabbit: Rabbit) -> AsyncIterator[RabbitmqBroker]:
    broker = await RabbitmqBroker.open(rabbit.url, namespace=rabbit.namespace, delivery_limit=LIMIT)
    yield broker
    await broker.close()


async def back(returned: Sequence[Returned]) -> list[str | None]:
    return [None for _ in returned]


@asynccontextmanager
async def judging(broker: RabbitmqBroker, judge: Judge) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(broker.judge_returned(judge))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, StoreUnavailable):
            await task


async def waiting(rabbit: Rabbit, queue: str, number: int) -> None:
    """Until so many messages wait in a queue."""
    async with asyncio.timeout(GUARD_S):
        while await rabbit.count(queue) != number:
            await asyncio.sleep(0)


async def give_up(rabbit: Rabbit, queue: str, number: int = 1) -> None:
    """Let RabbitMQ find that the messages of a queue were handed out too often."""
    await rabbit.give_back(queue, times=number * (LIMIT + 1))
    await waiting(rabbit, "returned", number)


async def die_blindly(rabbit: Rabbit, what: str, queues: Sequence[str]) -> int:
    """Processes take messages ahead and are killed, until RabbitMQ has taken the last one away; how many died."""
    deaths = 0
    while sum([await rabbit.count(queue) or 0 for queue in queues]):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CHILD),
            rabbit.url,
            rabbit.namespace,
            what,
            "blind",
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(GUARD_S):
            while (await process.stdout.readline()).decode().strip() != "ready":
                pass
            # until everything was sent ahead to it
            while any([await rabbit.count(queue) for queue in queues]):
                await asyncio.sleep(0)
        process.kill()
        await process.wait()
        deaths += 1
        async with asyncio.timeout(GUARD_S):
            while not any([await rabbit.count(queue) for queue in (*queues, "returned")]):
                await asyncio.sleep(0)
    return deaths


# as a whole


@pytest.mark.slow
@pytest.mark.parametrize(("what", "queue"), [("inventory", "service.inventory"), ("shards", "shard.00")])
async def test_what_killed_processes_never_saw_is_no_dead_letter_and_is_handled_in_the_end(
    rabbit: Rabbit, broker: RabbitmqBroker, what: str, queue: str
) -> None:
    address = STOCK if what == "inventory" else slot_address(0)
    await broker.publish(numbered(address, range(40)))
    assert await die_blindly(rabbit, what, [queue]) > LIMIT
    async with judging(broker, Suspicion(MemoryStore(), 5).judge):
        consumer = await (broker.consume_shards(Shares()[0]) if what == "shards" else broker.consume_service(what))
        got = await receive(consumer, 40)
        await consumer.ack(got)
    assert ordered(got) == [str(number) for number in range(40)]
    assert await broker.dead_letters() == []
    assert (await rabbit.count("returned"), await rabbit.count(queue)) == (0, 0)


async def test_coordinators_look_through_what_was_returned(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    await broker.publish([message(STOCK, "m1")])
    await give_up(rabbit, "service.inventory")
    async with Coordinator([Order], broker=broker, store=MemoryStore()).running():
        assert ids(await receive(await broker.consume_service("inventory"), 1)) == ["m1"]


# the judgement


async def test_a_returned_message_goes_back_to_where_it_came_from(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    found: list[Returned] = []

    async def judge(returned: Sequence[Returned]) -> list[str | None]:
        found.extend(returned)
        return await back(returned)

    await broker.publish([message(STOCK, "m1")])
    async with judging(broker, judge):
        for _ in range(2):
            await rabbit.give_back("service.inventory", times=LIMIT + 1)
            await waiting(rabbit, "service.inventory", 1)
    assert [(one.queue, one.envelope, one.times) for one in found] == [(STOCK, envelope("m1"), n) for n in (0, 1)]
    (delivery,) = await receive(await broker.consume_service("inventory"), 1)
    assert (delivery.envelope, delivery.deliveries) == (envelope("m1"), 1)


async def test_what_the_judge_finds_wrong_is_a_dead_letter(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    async def judge(returned: Sequence[Returned]) -> list[str | None]:
        return ["it kills" if one.envelope and one.envelope.id == "bad" else None for one in returned]

    await broker.publish([message(STOCK, "bad"), message(STOCK, "good")])
    await give_up(rabbit, "service.inventory", 2)
    async with judging(broker, judge):
        await waiting(rabbit, "service.inventory", 1)
        await waiting(rabbit, "returned", 0)
    (letter,) = await broker.dead_letters()
    assert (letter.queue, letter.reason, letter.detail) == (STOCK, "delivery-limit", "it kills")
    assert letter.envelope == envelope("bad")


async def test_what_a_program_in_another_language_rejects_is_a_dead_letter_at_once(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    await broker.publish([message(STOCK, "m1")])
    await rabbit.reject("service.inventory")
    async with judging(broker, back):
        await waiting(rabbit, "dead-letters", 1)
    (letter,) = await broker.dead_letters()
    assert (letter.queue, letter.reason, letter.envelope) == (STOCK, "rejected", envelope("m1"))
    assert await rabbit.count("service.inventory") == 0


async def test_a_returned_pack_goes_back_as_single_messages(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    async def judge(returned: Sequence[Returned]) -> list[str | None]:
        return ["it kills" if one.envelope and one.envelope.id == "1" else None for one in returned]

    await (await broker.consume_service("inventory")).close()
    await rabbit.put("packs.inventory", write_pack([envelope(str(n)) for n in range(4)]), content_type=PACK_TYPE)
    await give_up(rabbit, "packs.inventory")
    async with judging(broker, judge):
        got = await receive(await broker.consume_service("inventory"), 3)
    assert ids(got) == ["0", "2", "3"]
    assert [letter.envelope for letter in await broker.dead_letters()] == [envelope("1")]


async def test_bytes_that_cannot_be_read_go_back_as_they_were(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    await (await broker.consume_service("inventory")).close()
    await rabbit.put("service.inventory", b"garbage")
    await give_up(rabbit, "service.inventory")
    async with judging(broker, back):
        (delivery,) = await receive(await broker.consume_service("inventory"), 1)
    assert (delivery.envelope, delivery.body) == (None, b"garbage")


async def test_while_nobody_can_judge_returned_messages_wait(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    async def away(_: Sequence[Returned]) -> list[str | None]:
        raise StoreUnavailable("the store is away")

    await broker.publish([message(STOCK, "m1")])
    await give_up(rabbit, "service.inventory")
    async with judging(broker, away) as task, asyncio.timeout(GUARD_S):
        with pytest.raises(StoreUnavailable):
            await task
    await waiting(rabbit, "returned", 1)
    async with judging(broker, back):
        assert ids(await receive(await broker.consume_service("inventory"), 1)) == ["m1"]


async def test_a_returned_message_whose_queue_is_gone_is_a_dead_letter(rabbit: Rabbit, broker: RabbitmqBroker) -> None:
    await broker.publish([message(STOCK, "m1")])
    await give_up(rabbit, "service.inventory")
    await rabbit.delete("service.inventory")
    async with judging(broker, back), asyncio.timeout(GUARD_S):
        while not (letters := await broker.dead_letters()):
            pass
    assert [(letter.envelope, letter.detail) for letter in letters] == [
        (envelope("m1"), "its queue is not there any more")
    ]


async def test_a_message_that_comes_past_the_limit_is_returned_and_not_buried(
    rabbit: Rabbit, broker: RabbitmqBroker
) -> None:
    await broker.publish([message(STOCK, "m1")])
    await rabbit.give_back("service.inventory", times=LIMIT)
    consumer = await broker.consume_service("inventory")
    receiving = asyncio.create_task(receive(consumer, 1))
    await waiting(rabbit, "returned", 1)
    async with judging(broker, back):
        (delivery,) = await receiving
    assert (delivery.envelope, delivery.deliveries) == (envelope("m1"), 1)
    assert await broker.dead_letters() == []
