"""The intake: no more in hand than there is room for."""

from __future__ import annotations

import asyncio

from tests.support.desk import ME

from amends.brokers import MemoryBroker, Outgoing
from amends.contracts import Envelope, Kind, SystemClock
from amends.participants.intake import Intake


async def intake_of(broker: MemoryBroker, limit: int, waiting: int) -> Intake:
    """An intake on a queue in which some messages wait; the broker itself would hand out all of them."""
    consumer = await broker.consume_client(ME)
    now = SystemClock().now()
    envelopes = [
        Envelope(id=str(n), kind=Kind.COMMAND, type="t", source="s", subject="x", time=now) for n in range(waiting)
    ]
    await broker.publish([Outgoing(f"client:{ME}", envelope) for envelope in envelopes])
    return Intake(consumer, limit)


async def test_no_more_is_received_than_there_is_room_for() -> None:
    broker = MemoryBroker()
    intake = await intake_of(broker, limit=3, waiting=10)
    first = await intake.receive()
    intake.take(first)
    assert len(first) == 3
    await intake.ack(first[:2])
    assert len(await intake.receive()) == 2
    await broker.close()


async def test_receiving_goes_on_when_there_is_room_again() -> None:
    broker = MemoryBroker()
    intake = await intake_of(broker, limit=3, waiting=10)
    first = await intake.receive()
    intake.take(first)
    receiving = asyncio.ensure_future(intake.receive())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not receiving.done()
    await intake.dead_letter(first[0], "undecodable", "it makes room too")
    assert [delivery.envelope.id for delivery in await receiving if delivery.envelope] == ["3"]
    await broker.close()


async def test_closed_intake_gives_back_what_is_in_hand() -> None:
    broker = MemoryBroker()
    intake = await intake_of(broker, limit=3, waiting=3)
    other = await broker.consume_client(ME)
    await intake.receive()
    assert list(other.take()) == []
    await intake.close()
    assert intake.closed
    assert len(other.take()) == 3
    await broker.close()
