"""Publishing a batch with one write: the only place that uses what aiormq does not document.

It does what `aiormq.Channel.basic_publish` does, for many messages at once: gives each the next delivery tag, files who
waits for its confirmation, and queues the frames for the connection's writer. Tried with aiormq 7.2. Confirms,
refusals, returns and lost channels are handled by the library, which calls `_Confirmation` as it would a future.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiormq.abc import AbstractChannel, ChannelFrame
from pamqp.commands import Basic

from amends.brokers.port import BrokerUnavailable
from amends.brokers.rabbitmq.frames import publish_frames
from amends.brokers.rabbitmq.wire import Parcel

_NEEDED = ("delivery_tag", "confirmations", "message_id_delivery_tag", "write_queue", "max_content_size", "number")


class BatchWriter:
    """Writes batches to one channel with confirms, on which nobody else publishes."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._writing = asyncio.Lock()
        self._batches: set[_Batch] = set()
        channel.closing.add_done_callback(self._closed)

    @staticmethod
    def works_on(channel: AbstractChannel) -> bool:
        """Whether the library's channel is as we know it."""
        return all(hasattr(channel, name) for name in _NEEDED)

    async def publish(self, parcels: Sequence[Parcel]) -> list[int]:
        """Write these, wait for all confirmations, and give the numbers of those that were returned."""
        batch = _Batch(len(parcels))
        self._batches.add(batch)
        try:
            await self._write(parcels, batch)
            await batch.settled
        finally:
            self._batches.discard(batch)
        if batch.refused:
            raise BrokerUnavailable(f"RabbitMQ refused to store {batch.refused} of {len(parcels)} messages")
        return batch.returned

    async def _write(self, parcels: Sequence[Parcel], batch: _Batch) -> None:
        channel = self._channel
        async with self._writing:
            if channel.is_closed:
                raise ConnectionError("the channel is closed")
            first = channel.delivery_tag + 1
            pieces: list[bytes] = []
            for number, parcel in enumerate(parcels):
                tag = first + number
                message_id = _message_id(parcel.id, tag)
                pieces += publish_frames(channel.number, parcel, message_id, channel.max_content_size)
                channel.confirmations[tag] = _Confirmation(batch, number)
                if parcel.mandatory:
                    channel.message_id_delivery_tag[message_id] = tag
                    batch.message_ids.append(message_id)
            channel.delivery_tag += len(parcels)
            try:
                await channel.write_queue.put(ChannelFrame(payload=b"".join(pieces), should_close=False))
            except BaseException:
                # nothing was written: the tags are still free
                channel.delivery_tag -= len(parcels)
                for tag in range(first, first + len(parcels)):
                    del channel.confirmations[tag]
                batch.forget(channel)
                raise
        batch.settled.add_done_callback(lambda _: batch.forget(channel))

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        for batch in list(self._batches):
            batch.fail(error if isinstance(error, Exception) else ConnectionError("the channel was closed"))


class _Batch:
    """The messages of one write that are not confirmed yet."""

    def __init__(self, size: int) -> None:
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused = 0
        self.returned: list[int] = []
        self.message_ids: list[str] = []
        self._left = size

    def one_settled(self) -> None:
        self._left -= 1
        if not self._left and not self.settled.done():
            self.settled.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(error)

    def forget(self, channel: Any) -> None:
        for message_id in self.message_ids:
            channel.message_id_delivery_tag.pop(message_id, None)


class _Confirmation:
    """What the library takes for the future of one message."""

    __slots__ = ("_batch", "_number")

    def __init__(self, batch: _Batch, number: int) -> None:
        self._batch, self._number = batch, number

    def done(self) -> bool:
        return False

    def set_result(self, result: Any) -> None:
        if not isinstance(result, Basic.Ack):
            # the message itself: it came back, and is not told of again
            self._batch.returned.append(self._number)
        self._batch.one_settled()

    def set_exception(self, _: BaseException) -> None:
        self._batch.refused += 1
        self._batch.one_settled()


def _message_id(id: str, tag: int) -> str:
    """Unique on the channel, as the library tells returned messages apart by it; with the envelope's id, for people."""
    text = f"{id}#{tag}"
    return text if len(text.encode()) <= 255 else f"#{tag}"
