"""A member: one event loop at the file, with its consumers, among the members of other processes."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from amends.brokers.embedded import tables
from amends.brokers.embedded.consumer import EmbeddedConsumer
from amends.brokers.embedded.doorbell import Doorbell, open_doorbell
from amends.brokers.embedded.tables import Peer
from amends.brokers.embedded.transfer import Claim
from amends.brokers.port import BrokerUnavailable
from amends.brokers.queues import shard_queue
from amends.brokers.shares import share_out
from amends.brokers.sqlite_file import FileUnavailable, Job, SqliteFile
from amends.contracts import AmendsError

T = TypeVar("T")

_TICK_S: Final = 1.0


class Options(NamedTuple):
    """How a member behaves; see `EmbeddedBroker.open`."""

    shards: int
    delivery_limit: int
    lease_s: float
    polling: bool


class Member:
    """Shared by all brokers that one event loop opens on a file with the same options.

    It rings the others when it leaves messages for them, and about once a second to see who is gone; those are
    expelled: their messages wait again and their shards are free. A member that shows no beat for `lease_s`, by the
    watch of another one, is expelled too. It finds out when it goes on, drops what it has in hand, and enters again.
    """

    _open: ClassVar[WeakValueDictionary[tuple[SqliteFile, Options], Member]] = WeakValueDictionary()

    def __init__(self, file: SqliteFile, options: Options) -> None:
        self.file = file
        self.options = options
        self._id = 0
        self._users = 0
        self._consumers: dict[int, EmbeddedConsumer] = {}
        self._doorbell: Doorbell | None = None
        self._entering: asyncio.Future[Any] | None = None
        self._to_ring: set[Peer] = set()
        self._beats: dict[int, tuple[int, float]] = {}
        self._tick_s = min(_TICK_S, options.lease_s / 5)
        self._ticked = self._beaten = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, file: SqliteFile, options: Options) -> Member:
        """The member of this loop at the file. Each who opens it calls `close` once."""
        member = cls._open.get((file, options))
        if member is None or member._users == 0:
            member = cls._open[file, options] = cls(file, options)
        member._users += 1
        try:
            if member._doorbell is None:
                await as_broker(asyncio.shield(member.rejoin()))
        except BaseException:
            await member.close()
            raise
        return member

    async def close(self) -> None:
        self._users -= 1
        if self._users > 0 or self._doorbell is None:
            return
        doorbell, self._doorbell = self._doorbell, None
        if self._timer is not None:
            self._timer.cancel()

        def leave(db: sqlite3.Connection) -> list[tuple[Peer, int]]:
            tables.expel(db, self._id)
            return tables.others(db, self._id)

        try:
            for peer, _ in await self.write(leave):
                doorbell.ring(peer.address)
        finally:
            doorbell.close()

    def write(
        self,
        job: Job[T],
        after: Callable[[T], None] | None = None,
        undone: Callable[[], None] | None = None,
        *,
        patient: bool = False,
    ) -> Awaitable[T]:
        """`SqliteFile.write` with the errors of a broker. The job is under way before this is awaited."""
        return as_broker(self.file.write(job, after, undone, patient=patient))

    def _in_background(self, job: Job[T], after: Callable[[T], None]) -> asyncio.Future[T]:
        """Write what nobody needs to wait for: when it fails, the next tick does it again."""
        written = self.file.write(job, after)
        written.add_done_callback(_ignore)
        return written

    # --- entering, and noticing that one was expelled ---

    def rejoin(self) -> asyncio.Future[Any]:
        """Enter, under a new number, with all consumers; they drop what they had in hand."""
        if self._entering is None:
            for consumer in self._consumers.values():
                consumer.forget()
            self._entering = self._enter()
            self._entering.add_done_callback(self._entered)
        return self._entering

    def _enter(self) -> asyncio.Future[Any]:
        doorbell = open_doorbell(self.file, self.look, polling=self.options.polling)

        def enter(db: sqlite3.Connection) -> tuple[int, dict[EmbeddedConsumer, int]]:
            tables.expel(db, self._id)
            number = tables.join(db, doorbell.address)
            mine = self._consumers.values()
            return number, {consumer: tables.register(db, number, consumer.queue) for consumer in mine}

        def after(result: tuple[int, dict[EmbeddedConsumer, int]]) -> None:
            if self._users == 0:
                return
            self._id, ids = result
            if self._doorbell is not None:
                self._doorbell.close()
            self._doorbell = doorbell
            self._consumers = {}
            for consumer, id in ids.items():
                consumer.forget()
                consumer.hold_shards(frozenset())
                consumer.id = id
                if not consumer.closed:
                    self._consumers[id] = consumer
                    self.refill(consumer)
            if self._timer is None:
                self._timer = self._loop.call_later(0, self._tick)
            self.settle()

        entering = self.file.write(enter, after)
        entering.add_done_callback(lambda done: doorbell.close() if self._doorbell is not doorbell else None)
        return entering

    def _entered(self, done: asyncio.Future[Any]) -> None:
        self._entering = None
        _ignore(done)

    # --- consumers ---

    def consumer(self, id: int) -> EmbeddedConsumer | None:
        """A consumer of this member by its number."""
        return self._consumers.get(id)

    async def admit(self, consumer: EmbeddedConsumer, also: Job[None] | None = None) -> None:
        """Register a new consumer, and do something else in the same transaction."""

        def register(db: sqlite3.Connection) -> int | None:
            if not tables.is_member(db, self._id):
                return None
            if also is not None:
                also(db)
            return tables.register(db, self._id, consumer.queue)

        def after(id: int | None) -> None:
            if id is not None and not consumer.closed:
                consumer.id = id
                self._consumers[id] = consumer
                self.refill(consumer)

        try:
            number = self._id
            while await self.write(register, after) is None:
                if number == self._id:
                    await as_broker(asyncio.shield(self.rejoin()))
                number = self._id
            if consumer.on_change is not None:
                await as_broker(self.settle())
        except BaseException:
            # the next tick removes what was registered
            consumer.closed = True
            self._consumers.pop(consumer.id, None)
            raise

    async def leave(self, consumer: EmbeddedConsumer) -> None:
        """Release all that a closed consumer has, and remove it."""
        if self._consumers.pop(consumer.id, None) is None:
            return
        queues = set(consumer.queues)

        def leave(db: sqlite3.Connection) -> set[Peer]:
            consumer.put_back(db)
            tables.unregister(db, consumer.id, consumer.queue)
            return self.peers_at(db, queues | {consumer.queue})

        def after(peers: set[Peer]) -> None:
            self.spread(queues, peers)
            if consumer.on_change is not None:
                self.settle()

        await self.write(leave, after)

    def refill(self, consumer: EmbeddedConsumer) -> None:
        """Fetch what waits in the file for a consumer, as much as it has room for when its turn comes."""
        if consumer.claiming:
            consumer.behind = True
            return
        consumer.claiming, consumer.behind = True, False
        claim = Claim(self, consumer)
        self.file.write(claim.take, claim.done, claim.undone).add_done_callback(partial(self._refilled, consumer))

    def _refilled(self, consumer: EmbeddedConsumer, done: asyncio.Future[bool | None]) -> None:
        consumer.claiming = False
        if error := done.exception():
            consumer.fail(_broker_error(error))
        elif consumer.behind and consumer.wants() and self._entering is None:
            self.refill(consumer)

    def peers_at(self, db: sqlite3.Connection, queues: Iterable[str]) -> set[Peer]:
        """The other members that consume one of these queues."""
        return tables.peers_at(db, queues, self._id)

    def spread(self, queues: Iterable[str], peers: Iterable[Peer]) -> None:
        """Messages are waiting in these queues: tell the consumers here, and ring the peers."""
        names = set(queues)
        for consumer in self._consumers.values():
            if not names.isdisjoint(consumer.queues):
                consumer.behind = True
                if consumer.wants():
                    self.refill(consumer)
        self._ring(peers)

    # --- shards ---

    def settle(self) -> asyncio.Future[Any]:
        """Give up the shards that others should have, and take those that are free for consumers here."""

        def settle(db: sqlite3.Connection) -> tuple[set[Peer], list[tuple[EmbeddedConsumer, frozenset[int]]]]:
            gives, _ = self._moves(db)
            for consumer, shard in gives:
                tables.give_up(db, consumer.id, shard, consumer.in_hand(shard_queue(shard)))
            for consumer, shard in self._moves(db)[1]:
                tables.take_over(db, consumer.id, shard)
            held = [(consumer, tables.shards_of(db, consumer=consumer.id)) for consumer in self._shard_consumers()]
            return self.peers_at(db, [tables.SHARDS]), held

        def after(result: tuple[set[Peer], list[tuple[EmbeddedConsumer, frozenset[int]]]]) -> None:
            peers, held = result
            for consumer, shards in held:
                if shards != consumer.shards:
                    consumer.hold_shards(shards)
                    self.refill(consumer)
            self._ring(peers)

        return self._in_background(settle, after)

    def _moves(self, db: sqlite3.Connection) -> tuple[_Moves, _Moves]:
        """The shards that consumers here should give up, and those that they can take."""
        consumers, holders = tables.shard_holders(db)
        shares = share_out(self.options.shards, consumers, holders)
        here = [(consumer, shares[consumer.id]) for consumer in self._shard_consumers() if consumer.id in shares]
        gives = [
            (consumer, shard)
            for consumer, share in here
            for shard, holder in holders.items()
            if holder == consumer.id and shard not in share
        ]
        takes = [(consumer, shard) for consumer, share in here for shard in share if shard not in holders]
        return gives, takes

    def _shard_consumers(self) -> list[EmbeddedConsumer]:
        return [consumer for consumer in self._consumers.values() if consumer.on_change is not None]

    # --- the others ---

    def look(self) -> None:
        """See what others left: messages, shards to share out anew; and whether this is a member still."""
        if self._doorbell is None:
            return
        try:
            is_member, unsettled, behind, orphans = self.file.read(self._survey)
        except AmendsError as error:
            for consumer in self._consumers.values():
                consumer.fail(_broker_error(error))
            return
        if not is_member:
            self.rejoin()
            return
        for consumer in behind:
            self.refill(consumer)
        if unsettled:
            self.settle()
        if orphans:
            self._in_background(partial(self._sweep, orphans), lambda _: self.look())

    def _survey(self, db: sqlite3.Connection) -> tuple[bool, bool, list[EmbeddedConsumer], list[tuple[int, str]]]:
        is_member = tables.is_member(db, self._id)
        unsettled = bool(self._shard_consumers()) and any(self._moves(db))
        behind = [
            consumer
            for consumer in self._consumers.values()
            if consumer.wants() and any(tables.is_waiting(db, queue) for queue in consumer.queues)
        ]
        registered = tables.registered(db, self._id)
        orphans = [(id, queue) for id, queue in registered if id not in self._consumers]
        return is_member, unsettled, behind, orphans

    def _sweep(self, orphans: Iterable[tuple[int, str]], db: sqlite3.Connection) -> None:
        """Remove consumers that are no longer here: closed, or given up on, when the file could not be written."""
        for id, queue in orphans:
            if id not in self._consumers:
                tables.abandon(db, id, queue)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked > self.options.lease_s / 2:
            # this process was stopped for a while: what it remembers of the others says nothing about them
            self._beats.clear()
        self._ticked = now
        self._timer = self._loop.call_later(self._tick_s, self._tick)
        self.look()
        with suppress(AmendsError):
            self._check_others(now)
        if now - self._beaten >= self.options.lease_s / 4:
            self._beaten = now
            self._in_background(partial(tables.beat, member=self._id), lambda _: None)

    def _check_others(self, now: float) -> None:
        others = self.file.read(partial(tables.others, member=self._id))
        beats = self._beats
        self._beats = {}
        for peer, beat in others:
            seen, since = beats.get(peer.id, (beat, now))
            self._beats[peer.id] = (beat, since if seen == beat else now)
            if seen == beat and now - since > self.options.lease_s:
                self._expel(peer, beat)
            else:
                self._to_ring.add(peer)
        self._ring_now()

    def _ring(self, peers: Iterable[Peer]) -> None:
        before = len(self._to_ring)
        self._to_ring.update(peers)
        if self._to_ring and not before:
            self._loop.call_soon(self._ring_now)

    def _ring_now(self) -> None:
        peers, self._to_ring = self._to_ring, set()
        if self._doorbell is None:
            return
        for peer in peers:
            if not self._doorbell.ring(peer.address):
                self._expel(peer)

    def _expel(self, peer: Peer, beat: int | None = None) -> None:
        """Remove a member that is dead, or that still shows this beat. What it had is for the others then."""

        def expel(db: sqlite3.Connection) -> list[tuple[Peer, int]]:
            return tables.others(db, self._id) if tables.expel(db, peer.id, beat) else []

        def after(others: list[tuple[Peer, int]]) -> None:
            self._ring(other for other, _ in others)
            self.look()

        self._in_background(expel, after)


_Moves = list[tuple[EmbeddedConsumer, int]]


def _broker_error(error: BaseException) -> BaseException:
    return BrokerUnavailable(str(error)) if isinstance(error, FileUnavailable) else error


async def as_broker(awaitable: Awaitable[T]) -> T:
    """Await something about the file; that it is not available is then said of the broker."""
    try:
        return await awaitable
    except FileUnavailable as error:
        raise BrokerUnavailable(str(error)) from error


def _ignore(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()
