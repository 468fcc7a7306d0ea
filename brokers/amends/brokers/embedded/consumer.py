"""A consumer of the embedded broker: what it has in hand, and what it hands out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from amends.brokers.embedded import tables
from amends.brokers.port import ConsumerClosed, Delivery
from amends.brokers.queues import shard_queue
from amends.contracts import SystemClock, UsageError

if TYPE_CHECKING:
    import sqlite3

    from amends.brokers.embedded.member import Member

Token = tuple[int, int, str]
"""What a delivery of this broker carries: number of the message, owner, queue."""


class EmbeddedConsumer:
    """Takes messages ahead, up to `prefetch` of them not acknowledged, and hands them out from memory.

    `id` is the name under which it owns messages in the file; it gets another one when its member was expelled.
    """

    def __init__(
        self,
        member: Member,
        queue: str,
        prefetch: int,
        on_change: Callable[[frozenset[int]], None] | None = None,
    ) -> None:
        if prefetch < 1:
            raise UsageError(f"prefetch={prefetch} does not fit: a consumer must take at least 1 message")
        self.id = 0
        self.queue = queue
        self.closed = False
        self.behind = True
        """Whether messages may be waiting in the file that there was no room for."""
        self.claiming = False
        self.promised = 0
        """Messages that are on their way here in a transaction which is not on disk yet."""
        self.shards: frozenset[int] = frozenset()
        self.on_change = on_change
        self._member = member
        self._prefetch = prefetch
        self._buffer: deque[Delivery] = deque()
        self._held: dict[int, str] = {}
        self._waiter: asyncio.Future[None] | None = None

    @property
    def room(self) -> int:
        """How many more messages it may be given now."""
        if self.closed:
            return 0
        return self._prefetch - len(self._held) - len(self._buffer) - self.promised

    @property
    def queues(self) -> Sequence[str]:
        """The queues it reads: its own, or those of its shards."""
        if self.on_change is None:
            return (self.queue,)
        return [shard_queue(shard) for shard in sorted(self.shards)]

    def wants(self) -> bool:
        """Whether it is worth a transaction to fetch what waits in the file."""
        room = self.room
        return room > 0 and (not self._buffer or room >= self._prefetch // 4)

    def give(self, deliveries: Sequence[Delivery]) -> None:
        """Put deliveries that are on disk as its own behind those in the buffer."""
        if self.closed:
            return
        self._buffer.extend(deliveries)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Let whoever waits in `receive` know that nothing can be fetched."""
        self.behind = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def forget(self) -> None:
        """Drop everything in hand: it is no longer this consumer's."""
        self._buffer.clear()
        self._held.clear()
        self.behind = True

    def hold_shards(self, shards: frozenset[int]) -> None:
        """Take note of the shards that it has, and drop what is in hand of those that it lost."""
        if shards == self.shards:
            return
        lost = {shard_queue(shard) for shard in self.shards - shards}
        if lost:
            self._buffer = deque(d for d in self._buffer if d.token[2] not in lost)
            self._held = {seq: queue for seq, queue in self._held.items() if queue not in lost}
        self.shards = shards
        self.behind = True
        if self.on_change is not None:
            # on its own, so that an error in it is nobody else's
            asyncio.get_running_loop().call_soon(self.on_change, shards)

    def in_hand(self, queue: str) -> list[int]:
        """The messages of a queue that were handed out and are not acknowledged."""
        return [seq for seq, name in self._held.items() if name == queue]

    def put_back(self, db: sqlite3.Connection) -> None:
        """Release everything in the file; the first step of closing."""
        tables.release(db, self.id, list(self._held))
        tables.release_rest(db, self.id)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the port ---

    def take(self, limit: int = 256) -> Sequence[Delivery]:
        """What is there now, oldest first, up to `limit`; maybe nothing. Never waits."""
        if self.closed:
            return []
        buffer = self._buffer
        taken = [buffer.popleft() for _ in range(min(limit, len(buffer)))]
        self._held.update((delivery.token[0], delivery.token[2]) for delivery in taken)
        return taken

    async def receive(self, limit: int = 256) -> Sequence[Delivery]:
        while not self.closed:
            if taken := self.take(limit):
                return taken
            if self._waiter is not None:
                raise UsageError(f"two tasks receive from one consumer of {self.queue}. Open a consumer for each")
            if self.behind:
                self._member.refill(self)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        raise ConsumerClosed(f"the consumer of {self.queue} is closed")

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        if not (seqs := self._mine(deliveries)):
            return
        owner = self.id
        dropped: dict[int, str] = {}

        def delete(db: sqlite3.Connection) -> int:
            self._drop(seqs, dropped)
            return tables.delete(db, owner, seqs)

        after, undone = partial(self._acked, len(seqs)), partial(self._regain, owner, dropped)
        done = self._member.write(delete, after, undone, patient=True)
        if self.behind:
            # runs in the same transaction, where these have left room
            self._member.refill(self)
        await done

    def _acked(self, asked: int, deleted: int) -> None:
        if deleted < asked:
            # some went to somebody else: perhaps this member was taken for dead
            self._member.look()

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if not (seqs := self._mine(deliveries)):
            return
        owner = self.id
        dropped: dict[int, str] = {}
        unseen: list[Delivery] = []

        def put_back(db: sqlite3.Connection) -> set[tables.Peer]:
            # what is in the buffer goes back too, so that it does not overtake
            unseen[:] = self._buffer
            self._buffer.clear()
            self._drop(seqs, dropped)
            tables.release(db, owner, seqs)
            tables.release(db, owner, [delivery.token[0] for delivery in unseen], unseen=True)
            return self._member.peers_at(db, queues)

        def undone() -> None:
            self._regain(owner, dropped)
            if self.id == owner:
                self._buffer.extendleft(reversed(unseen))

        queues = {delivery.token[2] for delivery in deliveries}
        await self._member.write(put_back, lambda peers: self._member.spread(queues, peers), undone)

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str) -> None:
        if not (seqs := self._mine([delivery])):
            return
        bury = partial(tables.bury, owner=self.id, seq=seqs[0], reason=reason, detail=detail, at=SystemClock().now())
        await self._member.write(bury, partial(self._buried, seqs[0]))

    def _buried(self, seq: int, _: None) -> None:
        self._held.pop(seq, None)
        if self.behind:
            self._member.refill(self)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._wake()
        await self._member.leave(self)

    def _drop(self, seqs: Sequence[int], dropped: dict[int, str]) -> None:
        for seq in seqs:
            if (queue := self._held.pop(seq, None)) is not None:
                dropped[seq] = queue

    def _regain(self, owner: int, dropped: dict[int, str]) -> None:
        if self.id == owner:
            self._held.update(dropped)

    def _mine(self, deliveries: Sequence[Delivery]) -> list[int]:
        """The numbers of those that this consumer still has, as far as is known here."""
        if self.closed:
            return []
        return [delivery.token[0] for delivery in deliveries if delivery.token[1] == self.id]
