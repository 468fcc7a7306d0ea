"""Publishing: what many callers want to send goes out in batches, one per partition, confirmed by all copies."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from aiokafka import TopicPartition, errors
from aiokafka.errors import KafkaError

from amends.brokers.kafka.client import abandon_producer, new_producer, stop_producer
from amends.brokers.kafka.errors import unavailable
from amends.brokers.kafka.options import KafkaOptions
from amends.brokers.kafka.wire import Outbound
from amends.brokers.port import BrokerUnavailable
from amends.contracts import TerminalError

_OUT_OF_STEP: Final = (
    errors.OutOfOrderSequenceNumber,
    errors.UnknownProducerId,
    errors.InvalidProducerEpoch,
    errors.InvalidProducerIdMapping,
    errors.ProducerFenced,
)
"""Kafka and the producer disagree about what was sent last. Only a new producer helps."""


class MessageTooLarge(TerminalError):
    """A message that Kafka would not take: `size` bytes with its attributes, where `limit` are allowed."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        self.topic, self.size, self.limit = topic, size, limit
        super().__init__(
            f"a message for {topic} has {size} bytes, {limit} are allowed. Send a reference instead of the data, or "
            "raise max_message_bytes in the Kafka URL and max.message.bytes of the topics"
        )


class _Post:
    """One call of `publish`."""

    __slots__ = ("confirmed", "records", "tries")

    def __init__(self, records: Sequence[Outbound], confirmed: asyncio.Future[None]) -> None:
        self.records, self.confirmed, self.tries = records, confirmed, 0

    def fail(self, error: Exception) -> None:
        if not self.confirmed.done():
            self.confirmed.set_exception(error)


class _Line:
    """A producer, until it is given up: `broken` then has the reason."""

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.broken: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()


class Publisher:
    """Keeps an idempotent producer, and replaces it when it is out of step with Kafka or has been silent for too long.

    A call of `publish` goes out at once when none is under way; those that come meanwhile go together with the next.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._posts: list[_Post] = []
        self._unconfirmed: set[_Post] = set()
        self._line: _Line | None = None
        self._pump: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def publish(self, records: Sequence[Outbound], *, extra_bytes: int = 0) -> None:
        """Return when all are stored. Raises `BrokerUnavailable`, and `MessageTooLarge` before anything is sent.

        Each may be larger by `extra_bytes` than the options allow.
        """
        limit = self._options.max_message_bytes + extra_bytes
        for record in records:
            if (size := record.size) > limit:
                raise MessageTooLarge(record.topic, size, limit)
        post = _Post(records, asyncio.get_running_loop().create_future())
        self._posts.append(post)
        self._unconfirmed.add(post)
        self._go_on()
        try:
            await post.confirmed
        finally:
            self._unconfirmed.discard(post)

    def give_up(self, error: BrokerUnavailable) -> None:
        """Kafka is away: fail all that is under way now, rather than later."""
        self._posts.clear()
        for post in self._unconfirmed:
            post.fail(error)
        if self._line is not None:
            self._abandon(self._line, error)

    async def close(self) -> None:
        """Wait for what is under way, within a few seconds; the rest fails."""
        self._closed = True
        line, self._line = self._line, None
        if line is not None:
            await stop_producer(line.producer)
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        # what was stored a moment ago is confirmed by now
        await asyncio.sleep(0)
        self.give_up(BrokerUnavailable(f"{self._options.place}: closed before this was stored"))
        if line is not None and not line.broken.done():
            line.broken.set_result(KafkaError("closed"))
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _go_on(self) -> None:
        if self._pump is None and self._posts and not self._closed:
            self._pump = asyncio.create_task(self._send_all())

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_all(self) -> None:
        """One round after another, each as soon as the producer has taken the one before."""
        try:
            while self._posts:
                try:
                    line = await self._connected()
                except BrokerUnavailable as error:
                    self.give_up(error)
                    return
                posts, self._posts = self._posts, []
                await self._send(line, posts)
        finally:
            self._pump = None

    async def _connected(self) -> _Line:
        if self._line is None:
            producer = new_producer(self._options)
            try:
                async with asyncio.timeout(self._options.publish_timeout_s):
                    await producer.start()
            except BaseException as error:
                await abandon_producer(producer)
                if isinstance(error, KafkaError | OSError | TimeoutError):
                    raise unavailable(self._options, error) from error
                raise
            self._line = _Line(producer)
        return self._line

    async def _send(self, line: _Line, posts: list[_Post]) -> None:
        """Give a round to the producer, and leave its confirmations to a task."""
        deadline = asyncio.get_running_loop().time() + self._options.publish_timeout_s
        sending = asyncio.create_task(_hand_over(line.producer, posts))
        try:
            await _first(deadline, sending, line.broken)
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait({sending})
        if sending.cancelled():
            self._failed(line, posts, TimeoutError())
        elif (error := sending.exception()) is not None:
            self._failed(line, posts, error)
        else:
            self._spawn(self._confirm(line, posts, sending.result(), deadline))

    async def _confirm(
        self, line: _Line, posts: list[_Post], stored: list[asyncio.Future[Any]], deadline: float
    ) -> None:
        together = asyncio.gather(*stored, return_exceptions=True)
        await _first(deadline, together, line.broken)
        if not together.done():
            self._failed(line, posts, TimeoutError())
        elif error := next((result for result in together.result() if isinstance(result, BaseException)), None):
            self._failed(line, posts, error)
        else:
            for post in posts:
                if not post.confirmed.done():
                    post.confirmed.set_result(None)

    def _failed(self, line: _Line, posts: list[_Post], error: BaseException) -> None:
        """A round was not stored, or not all of it. Its producer may have lost its step, and is given up."""
        self._abandon(line, error)
        reason = line.broken.result()
        if not isinstance(reason, BrokerUnavailable):
            reason = unavailable(self._options, reason)
        for post in posts:
            if isinstance(line.broken.result(), _OUT_OF_STEP) and post.tries == 0 and not post.confirmed.done():
                post.tries += 1
                self._posts.append(post)
            else:
                post.fail(reason)
        self._go_on()

    def _abandon(self, line: _Line, error: BaseException) -> None:
        if self._line is line:
            self._line = None
            self._spawn(abandon_producer(line.producer))
        if not line.broken.done():
            line.broken.set_result(error)


async def _first(deadline: float, *futures: asyncio.Future[Any]) -> None:
    """Wait for any of these, until the deadline."""
    left = max(0.0, deadline - asyncio.get_running_loop().time())
    await asyncio.wait(futures, timeout=left, return_when=asyncio.FIRST_COMPLETED)


async def _hand_over(producer: Any, posts: list[_Post]) -> list[asyncio.Future[Any]]:
    """Put the records of a round into batches, in their order; the futures tell when those are stored.

    Waits while the producer has not yet sent the batch before.
    """
    batches: dict[TopicPartition, Any] = {}
    stored: list[asyncio.Future[Any]] = []

    async def send(tp: TopicPartition) -> None:
        batch = batches.pop(tp)
        batch.close()
        stored.append(await producer.send_batch(batch, tp.topic, partition=tp.partition))
        stored[-1].add_done_callback(_hear)

    for post in posts:
        for record in post.records:
            tp = TopicPartition(record.topic, record.partition)
            batch = batches.get(tp)
            if batch is not None and not _fits(batch, record):
                await send(tp)
                batch = None
            if batch is None:
                batch = batches[tp] = producer.create_batch()
                _fits(batch, record)
    for tp in list(batches):
        await send(tp)
    return stored


def _hear(stored: asyncio.Future[Any]) -> None:
    """Those who wait may have been told by another batch already."""
    if not stored.cancelled():
        stored.exception()


def _fits(batch: Any, record: Outbound) -> bool:
    """Put a record into a batch, if there is room. The first one always fits."""
    added = batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
    return added is not None
