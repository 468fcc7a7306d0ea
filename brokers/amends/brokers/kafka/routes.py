"""From addresses to topics and partitions, and from the messages of a call to records."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from msgspec import Struct

from amends.brokers.kafka.pack_readers import PackReaders
from amends.brokers.kafka.reader import client_partition
from amends.brokers.kafka.topics import Topics
from amends.brokers.kafka.wire import Outbound, headers_of, key_of, pack_of
from amends.brokers.packing import FEWEST, grouped
from amends.brokers.queues import CLIENT, EVENT, queue_of
from amends.brokers.shards import ShardMap
from amends.contracts import Envelope, slot_of
from amends.contracts.names import SLOTS

_SERVICE: Final = "service:"
_SHARD: Final = "shard:"


class Route(Struct, frozen=True):
    """Where the messages to an address go. `topics` must be there; the last of them is the one.

    `partition` is None when it depends on the message. `key` is that of all records, or None for each its own.
    """

    topics: tuple[str, ...]
    partition: int | None = None
    key: str | None = None
    packs: bool = False


class Routes:
    """Makes records of messages.

    Many to one partition in one call go as packs: to shards always, to a service while participants of ours consume it.
    Those then get single messages, too, in the topic of the packs, so that all of them stay in order.
    """

    def __init__(self, topics: Topics, shard_map: ShardMap, pack_readers: PackReaders) -> None:
        self._topics, self._map, self._pack_readers = topics, shard_map, pack_readers
        self._fixed = lru_cache(4096)(self._find)
        self._limit = topics.options.max_message_bytes

    def route(self, address: str) -> Route:
        """Raises `UsageError` for what is no address."""
        if address.startswith(_SERVICE):
            service = address[len(_SERVICE) :]
            return self._fixed(address, self._pack_readers.consume(service))
        return self._fixed(address, False)

    def _find(self, address: str, packs: bool) -> Route:
        queue = queue_of(address, self._map)
        if queue.startswith(_SHARD):
            return Route((self._topics.shards,), int(queue[len(_SHARD) :]), packs=True)
        if queue.startswith(_SERVICE):
            service = queue[len(_SERVICE) :]
            topic = self._topics.of_service(service)
            return Route((topic, self._topics.of_packs(service)) if packs else (topic,), packs=packs)
        if queue.startswith(EVENT):
            return Route((self._topics.of_event(queue[len(EVENT) :]),))
        client = queue[len(CLIENT) :]
        topic = self._topics.clients
        return Route((topic,), client_partition(client, self._topics.partitions(topic) or 1), client)

    def records(self, routes: Sequence[Route], envelopes: Sequence[Envelope]) -> list[Outbound]:
        """The records of a call, in its order for each destination. Their topics are there."""
        places = [self._place(route, envelope) for route, envelope in zip(routes, envelopes, strict=True)]
        packable = [place if route.packs else None for place, route in zip(places, routes, strict=True)]
        records: list[Outbound] = []
        for group in grouped(packable, envelopes):
            topic, partition = places[group[0]]
            if len(group) >= FEWEST:
                value, headers = pack_of([envelopes[number] for number in group])
                pack = Outbound(topic, partition, key_of(envelopes[group[0]]).encode(), value, headers)
                if pack.size <= self._limit:
                    records.append(pack)
                    continue
            for number in group:
                envelope = envelopes[number]
                key = routes[number].key or key_of(envelope)
                records.append(Outbound(topic, partition, key.encode(), envelope.data, headers_of(envelope)))
        return records

    def _place(self, route: Route, envelope: Envelope) -> tuple[str, int]:
        topic, partition = route.topics[-1], route.partition
        if partition is None:
            # not the client's own hash: this one is the same in every language and version
            partition = slot_of(key_of(envelope)) * (self._topics.partitions(topic) or 1) // SLOTS
        return topic, partition
