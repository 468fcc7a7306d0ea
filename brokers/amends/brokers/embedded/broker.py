"""The embedded broker: messages in one SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from amends.brokers.embedded import tables
from amends.brokers.embedded.consumer import EmbeddedConsumer
from amends.brokers.embedded.member import Member, Options, as_broker
from amends.brokers.embedded.transfer import Publication, Stamped, read
from amends.brokers.port import BrokerUnavailable, DeadLetter, Outgoing
from amends.brokers.queues import queue_of, subscriber_queue
from amends.brokers.shards import ShardMap
from amends.brokers.sqlite_file import FileUnavailable, Job, SqliteFile
from amends.contracts import MSGPACK, UsageError
from amends.contracts.names import client_address, service_address

DELIVERY_LIMIT = 50
LEASE_S = 30.0
_PRIVATE_PREFETCH = 4096
"""For queues that nobody competes for."""


class EmbeddedBroker:
    """The `Broker` of one machine. What was published survives a power cut.

    Consumers take messages ahead, up to their prefetch (256 for a subscriber, 4,096 for shards and clients); those that
    were never received do not count as delivered when they go back. A process that is killed is noticed within about a
    second.
    """

    shared = True

    def __init__(self, file: SqliteFile, member: Member, shard_map: ShardMap) -> None:
        self.shard_map = shard_map
        self._file = file
        self._member = member
        self._consumers: list[EmbeddedConsumer] = []
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str | Path,
        shard_map: ShardMap | None = None,
        *,
        delivery_limit: int = DELIVERY_LIMIT,
        lease_s: float = LEASE_S,
        polling: bool = False,
    ) -> EmbeddedBroker:
        """Open the broker in the file at `path`, which is made when it is not there.

        A message that was handed out `delivery_limit` times is a dead letter when its turn comes again. A process that
        stands still (is stopped, or blocks its event loop) for `lease_s` loses its messages and shards to the others.
        With `polling` the file is looked at 20 times a second; else, where there are Unix sockets, processes wake each
        other. Raises `UsageError` for another shard map than the stored one, `BrokerUnavailable`, `FileCorrupt`.
        """
        shard_map = shard_map or ShardMap()
        try:
            file = SqliteFile.open(path, tables.SCHEMA)
        except FileUnavailable as error:
            raise BrokerUnavailable(str(error)) from error
        try:
            await _adopt(file, shard_map)
            member = await Member.open(file, Options(shard_map.shards, delivery_limit, lease_s, polling))
        except BaseException:
            await file.close()
            raise
        return cls(file, member, shard_map)

    @property
    def path(self) -> Path:
        """The file that everything is in."""
        return self._file.path

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._check_open()
        if not messages:
            return
        stamped, publication = self.stamp(messages), self.publication()
        await self._member.write(lambda db: publication.insert(db, stamped), publication.done, publication.undone)

    # for stores and inboxes in the same file, which publish in their own transactions

    def shares(self, file: SqliteFile) -> bool:
        """Whether this is its file."""
        return self._file is file

    def stamp(self, messages: Sequence[Outgoing]) -> list[Stamped]:
        """Messages as a publication takes them. Raises `UsageError` for what is no address."""
        encode, shard_map = MSGPACK.encode, self.shard_map
        return [(queue_of(m.address, shard_map), m.envelope, encode(m.envelope)) for m in messages]

    def publication(self) -> Publication:
        """What publishes inside a transaction on the file: call `insert` in it, then `done` or `undone`."""
        self._check_open()
        return Publication(self._member)

    async def consume_service(self, service: str, *, prefetch: int = 256) -> EmbeddedConsumer:
        return await self._open(EmbeddedConsumer(self._member, service_address(service), prefetch))

    async def consume_shards(self, on_change: Callable[[frozenset[int]], None]) -> EmbeddedConsumer:
        return await self._open(EmbeddedConsumer(self._member, tables.SHARDS, _PRIVATE_PREFETCH, on_change))

    async def consume_client(self, client: str) -> EmbeddedConsumer:
        return await self._open(EmbeddedConsumer(self._member, client_address(client), _PRIVATE_PREFETCH))

    async def subscribe(self, subscriber: str, event_types: Sequence[str]) -> EmbeddedConsumer:
        queue = subscriber_queue(subscriber)
        subscription = partial(tables.subscribe, queue=queue, event_types=tuple(event_types))
        return await self._open(EmbeddedConsumer(self._member, queue, 256), subscription)

    async def _open(self, consumer: EmbeddedConsumer, also: Job[None] | None = None) -> EmbeddedConsumer:
        self._check_open()
        await self._member.admit(consumer, also)
        self._consumers = [known for known in self._consumers if not known.closed]
        self._consumers.append(consumer)
        return consumer

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest dead letters, newest first."""
        self._check_open()
        try:
            rows = self._file.read(partial(tables.dead_letters, limit=limit))
        except FileUnavailable as error:
            raise BrokerUnavailable(str(error)) from error
        letters = []
        for id, queue, reason, detail, at, deliveries, body in rows:
            envelope, _ = read(body)
            kept = b"" if envelope else body
            when = datetime.fromtimestamp(at, UTC)
            letters.append(DeadLetter(id, queue, reason, detail, when, deliveries, envelope, kept))
        return letters

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            closed = await asyncio.gather(*(consumer.close() for consumer in self._consumers), return_exceptions=True)
        finally:
            try:
                await self._member.close()
            finally:
                await self._file.close()
        for error in closed:
            if error is not None:
                raise error

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"the broker of {self._file.path} is closed. Open another one")


async def _adopt(file: SqliteFile, shard_map: ShardMap) -> None:
    try:
        stored = file.read(tables.adopted)
        if stored is None:
            await as_broker(file.write(partial(tables.adopt, shard_map=shard_map)))
            stored = file.read(tables.adopted)
    except FileUnavailable as error:
        raise BrokerUnavailable(str(error)) from error
    if stored is not None:
        shard_map.check(stored, str(file.path))
