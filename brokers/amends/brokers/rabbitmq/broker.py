"""The RabbitMQ broker: messages in quorum queues, shared by the processes of many machines."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from aiormq.exceptions import AMQPChannelError
from msgspec import Struct
from yarl import URL

from amends.brokers.packing import FEWEST, MOST, grouped
from amends.brokers.port import BrokerUnavailable, DeadLetter, Judge, Outgoing
from amends.brokers.queues import CLIENT, EVENT, queue_of
from amends.brokers.rabbitmq.agreements import adopt, subscribe
from amends.brokers.rabbitmq.consumer import Exits, RabbitmqConsumer
from amends.brokers.rabbitmq.dead import DeadLetters
from amends.brokers.rabbitmq.link import Link
from amends.brokers.rabbitmq.names import NAMESPACE, Names
from amends.brokers.rabbitmq.pack_readers import PackReaders
from amends.brokers.rabbitmq.problems import Server
from amends.brokers.rabbitmq.publisher import Publisher
from amends.brokers.rabbitmq.returned import ReturnedLetters
from amends.brokers.rabbitmq.sharing import Sharing
from amends.brokers.rabbitmq.splitting import Splitter
from amends.brokers.rabbitmq.topology import Topology
from amends.brokers.rabbitmq.wire import Parcel, wrap, wrap_pack
from amends.brokers.shards import ShardMap
from amends.contracts import Envelope, UsageError
from amends.contracts.names import client_address, service_address

DELIVERY_LIMIT: Final = 50
_PRIVATE_PREFETCH: Final = 1024
_SUBSCRIBER_PREFETCH: Final = 256
_SERVICE: Final = "service:"
_MOST_ROUTES: Final = 4096


class _Route(Struct, frozen=True):
    """Where the messages to an address go. One that must reach a queue is `mandatory`. `packs` is the queue that packs
    of such messages lie in, if there may be any."""

    exchange: str
    key: str
    mandatory: bool
    packs: str | None = None
    service: str | None = None


class _Load(Struct, frozen=True, eq=False):
    """What goes in one message."""

    route: _Route
    envelopes: Sequence[Envelope]

    @property
    def parcel(self) -> Parcel:
        route = self.route
        if len(self.envelopes) == 1:
            return wrap(self.envelopes[0], route.exchange, route.key, mandatory=route.mandatory)
        key = route.key if route.service is None else route.packs or ""
        return wrap_pack(self.envelopes, route.exchange, key, mandatory=route.mandatory)


class RabbitmqBroker:
    """The `Broker` on RabbitMQ 3.10 to 4.x. What was published is on the disks of a majority of the queue's nodes.

    Two connections: one to publish, one for all else. They are made again when they are needed; nothing is sent or
    acknowledged twice by that, and what was in hand comes again. Messages that were sent ahead to a consumer count as
    delivered when its process dies, also those that nobody received.
    """

    shared = True

    def __init__(
        self, link: Link, publishing: Link, names: Names, shard_map: ShardMap, delivery_limit: int, bulk: bool
    ) -> None:
        self.shard_map = shard_map
        self._link, self._publishing, self._names = link, publishing, names
        self._topology = Topology(link, names, delivery_limit)
        self._publisher = Publisher(publishing, bulk=bulk)
        self._dead = DeadLetters(link, self._publisher, names)
        self._returned = ReturnedLetters(link, self._publisher, names, self._dead)
        self._exits = Exits(self._dead, self._returned, Splitter(self._publisher, names), delivery_limit)
        self._pack_readers = PackReaders(link, names)
        self._routes: dict[str, _Route] = {}
        self._consumers: list[RabbitmqConsumer] = []
        self._closed = False

    @classmethod
    async def open(
        cls,
        url: str,
        shard_map: ShardMap | None = None,
        *,
        namespace: str | None = None,
        delivery_limit: int = DELIVERY_LIMIT,
        bulk: bool = True,
    ) -> RabbitmqBroker:
        """Connect to `amqp://user:password@host:port/vhost`, or `amqps:`, and set up what is missing there.

        Installations with different namespaces share a virtual host without meeting; `?namespace=` in the URL does the
        same. Other options in the URL go to the client library, such as `heartbeat` (10 seconds by default), `cafile`,
        `certfile` and `keyfile`. A queue that is made here hands a message out `delivery_limit` times before that goes
        to `judge_returned`; one consumer may release it as often before it is a dead letter. `bulk=False` publishes and
        consumes by nothing but the library's documented functions, and is slower. Raises `UsageError` for what is no
        such URL and for another shard map than the stored one, `BrokerUnavailable`.
        """
        address, names = _parse(url, namespace)
        port = address.port or (5671 if address.scheme == "amqps" else 5672)
        server = Server(f"{address.host}:{port}{address.path}", address.user or "guest", names.prefix)
        link, publishing = Link(address, server, "consuming", bulk=bulk), Link(address, server, "publishing", bulk=bulk)
        broker = cls(link, publishing, names, shard_map or ShardMap(), delivery_limit, bulk)
        try:
            await link.job(adopt(link, broker._topology, names, broker.shard_map))
            await publishing.connection()
        except BaseException:
            await broker.close()
            raise
        return broker

    # publishing

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._check_open()
        if not messages:
            return
        routes = [self._route(message.address) for message in messages]
        await self._declare({route.service for route in routes if route.service is not None})
        loads = [
            _Load(routes[numbers[0]], [messages[number].envelope for number in numbers])
            for numbers in grouped(await self._destinations(routes), [message.envelope for message in messages])
        ]
        try:
            returned = await self._publisher.publish([load.parcel for load in loads])
            if returned:
                await self._publish_again([loads[number] for number in returned])
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, AMQPChannelError):
                # an exchange is gone, for one thing
                self._topology.forget()
                await self._link.job(self._topology.set_up(self.shard_map))
            raise

    async def _destinations(self, routes: Sequence[_Route]) -> Sequence[str | None]:
        """Where each message may go in a pack."""
        if len(routes) < FEWEST:
            return [None] * len(routes)
        services = Counter(route.service for route in routes if route.service is not None)
        unable = {
            service
            for service, count in services.items()
            if count >= FEWEST and not await self._pack_readers.of(service)
        }
        return [None if route.service in unable else route.packs for route in routes]

    async def _publish_again(self, loads: Sequence[_Load]) -> None:
        """What reached no queue: somebody has deleted it. Packs to a service go as single messages now."""
        self._topology.forget()
        services = {load.route.service for load in loads if load.route.service is not None}
        if any(load.route.service is None for load in loads):
            await self._link.job(self._topology.set_up(self.shard_map))
        await self._declare(services)
        for service in services:
            self._pack_readers.gone(service)
        again = [
            _Load(load.route, envelopes)
            for load in loads
            for envelopes in ([load.envelopes] if load.route.service is None else [[one] for one in load.envelopes])
        ]
        parcels = [load.parcel for load in again]
        if lost := await self._publisher.publish(parcels):
            raise BrokerUnavailable(
                f"RabbitMQ at {self._link.server.where} has no queue for {len(lost)} messages, "
                f"the first of them to {parcels[lost[0]].key!r}"
            )

    async def _declare(self, services: set[str]) -> None:
        """Commands wait for a service that never ran, too."""
        for service in services:
            if not self._topology.knows_service(service):
                await self._link.job(self._topology.service(service))

    def _route(self, address: str) -> _Route:
        route = self._routes.get(address)
        if route is None:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            route = self._routes[address] = self._find_route(address)
        return route

    def _find_route(self, address: str) -> _Route:
        queue = queue_of(address, self.shard_map)
        names = self._names
        if address.startswith(_SERVICE):
            service = address[len(_SERVICE) :]
            return _Route("", names.service(service), True, names.packs(service), service)
        if address.startswith(CLIENT):
            # they may be in any language, too
            return _Route("", names.client(address[len(CLIENT) :]), False)
        if address.startswith(EVENT):
            # whoever subscribes, in whatever language, gets single messages
            return _Route(names.events, address[len(EVENT) :], False)
        return _Route(names.slots, address, True, queue)

    # consuming

    async def consume_service(self, service: str, *, prefetch: int = 256) -> RabbitmqConsumer:
        """Takes up to `prefetch` single messages ahead, and packs of about as many envelopes; no packs when that is
        less than one."""
        if prefetch < 1:
            raise UsageError(f"prefetch={prefetch} does not fit: a consumer must take at least 1 message")
        queues = {self._names.service(service): prefetch}
        if packs := prefetch // MOST:
            queues[self._names.packs(service)] = packs

        async def prepare() -> None:
            await self._topology.service(service)
            if packs:
                await self._topology.packs(service)

        return await self._open(service_address(service), queues, prepare)

    async def consume_shards(self, on_change: Callable[[frozenset[int]], None]) -> RabbitmqConsumer:
        self._check_open()
        sharing = Sharing(self._link, self._publisher, self._names, self.shard_map.shards, on_change)
        consumer = self._consumer("shards", _nothing, sharing.leave)
        await sharing.start(consumer)
        self._keep(consumer)
        return consumer

    async def consume_client(self, client: str) -> RabbitmqConsumer:
        queue = self._names.client(client)

        async def prepare() -> None:
            async with self._link.server.speaking():
                await self._link.ask(lambda channel: channel.queue_declare(queue, exclusive=True, auto_delete=True))

        async def leave() -> None:
            async with self._link.server.speaking():
                await self._link.ask(lambda channel: channel.queue_delete(queue))

        return await self._open(client_address(client), {queue: _PRIVATE_PREFETCH}, prepare, leave)

    async def subscribe(self, subscriber: str, event_types: Sequence[str]) -> RabbitmqConsumer:
        self._check_open()
        await self._link.job(subscribe(self._link, self._topology, self._names, subscriber, event_types))
        queues = {self._names.subscriber(subscriber): _SUBSCRIBER_PREFETCH}
        prepare = partial(self._topology.subscriber, subscriber)
        return await self._open(f"subscriber:{subscriber}", queues, prepare)

    async def _open(
        self,
        name: str,
        queues: Mapping[str, int],
        prepare: Callable[[], Awaitable[None]],
        leave: Callable[[], Awaitable[None]] | None = None,
    ) -> RabbitmqConsumer:
        self._check_open()
        consumer = self._consumer(name, prepare, leave or _nothing)
        consumer.read_from(queues)
        await consumer.open()
        self._keep(consumer)
        return consumer

    def _consumer(
        self, name: str, prepare: Callable[[], Awaitable[None]], leave: Callable[[], Awaitable[None]]
    ) -> RabbitmqConsumer:
        return RabbitmqConsumer(self._link, name, self._exits, prepare, leave)

    def _keep(self, consumer: RabbitmqConsumer) -> None:
        self._consumers = [known for known in self._consumers if not known.closed]
        self._consumers.append(consumer)

    # the rest

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest dead letters, newest first. Reads the whole queue to find them."""
        self._check_open()
        return await self._link.job(self._dead.newest(limit))

    async def judge_returned(self, judge: Judge) -> None:
        self._check_open()
        await self._returned.judge_all(judge)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        finally:
            await asyncio.gather(self._publishing.close(), self._link.close())

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"the broker at {self._link.server.where} is closed. Open another one")


async def _nothing() -> None: ...


def _parse(url: str, namespace: str | None) -> tuple[URL, Names]:
    try:
        address = URL(url)
        valid = address.scheme in ("amqp", "amqps") and address.host is not None
    except ValueError:
        valid = False
    if not valid:
        raise UsageError("this is no RabbitMQ URL. Write amqp://user:password@host:5672/vhost")
    names = Names.of(namespace or address.query.get("namespace") or NAMESPACE)
    query = {"heartbeat": "10", **address.query}
    query.pop("namespace", None)
    return address.with_query(query), names
