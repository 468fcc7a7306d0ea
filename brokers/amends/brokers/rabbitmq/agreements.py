"""What all processes of an installation agree on, kept at the broker: the shard map, and who subscribes to what."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from amends.brokers.rabbitmq.link import Link
from amends.brokers.rabbitmq.names import Names
from amends.brokers.rabbitmq.records import Record, locked
from amends.brokers.rabbitmq.topology import Topology
from amends.brokers.shards import ShardMap
from amends.contracts import JSON


class _Subscription(Struct):
    types: list[str]


async def adopt(link: Link, topology: Topology, names: Names, shard_map: ShardMap) -> None:
    """Set everything up when there is no installation yet; else check that its map is this one.

    Raises `UsageError` for another map, and `BrokerUnavailable`.
    """
    record = Record(topology, names, "map")
    async with locked(link, names, "map") as channel:
        found = await record.read(channel)
        if not found:
            await topology.set_up(shard_map)
        stored = [JSON.decode(body, ShardMap) for body in found] or [shard_map]
        await record.write(channel, JSON.encode(stored[0]))
        await record.replace(channel, found)
    for other in stored:
        shard_map.check(other, f"RabbitMQ at {link.server.where} ({names.prefix})")


async def subscribe(link: Link, topology: Topology, names: Names, subscriber: str, types: Iterable[str]) -> None:
    """Let the events of these types, and no others, come to the subscriber's queue. No event of a type that it had
    before and still has is lost meanwhile. Raises `BrokerUnavailable`."""
    wanted = sorted(set(types))
    queue = names.subscriber(subscriber)
    await topology.subscriber(subscriber)
    record = Record(topology, names, f"subscription.{subscriber}")
    async with locked(link, names, f"subscription.{subscriber}") as channel:
        found = await record.read(channel)
        # written first, so that whatever gets bound is on record whenever we die
        await record.write(channel, JSON.encode(_Subscription(wanted)))
        for event_type in wanted:
            await channel.queue_bind(queue, names.events, event_type)
        before = {event_type for body in found for event_type in JSON.decode(body, _Subscription).types}
        for event_type in sorted(before.difference(wanted)):
            await channel.queue_unbind(queue, names.events, event_type)
        await record.replace(channel, found)
