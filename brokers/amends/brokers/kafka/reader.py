"""Reading partitions into memory, in the background, also when nobody takes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from zlib import crc32

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from amends.brokers.kafka.client import new_reader, stop_consumer
from amends.brokers.kafka.errors import unavailable
from amends.brokers.kafka.options import KafkaOptions
from amends.brokers.kafka.partition import Partition
from amends.brokers.kafka.topics import Topics
from amends.brokers.port import BrokerUnavailable

OPENING_S: Final = 60.0
_ENDS_S: Final = 5.0
_POLL_MS: Final = 1000
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0


class Reader(ABC):
    """Keeps a client of Kafka going: makes another one, after a while, when it can do no more.

    `on_news` is called when there may be more to hand out, `on_trouble` when Kafka cannot be read.
    """

    def __init__(self, options: KafkaOptions, name: str) -> None:
        self.options, self.name = options, name
        self.partitions: dict[TopicPartition, Partition] = {}
        self.resting = True
        """Whether nothing may be handed out now, since it is not certain what is ours."""
        self.on_news: Callable[[], None] = _nothing
        self.on_trouble: Callable[[BrokerUnavailable], None] = _no_trouble
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Begin to read, and wait until it is known what. Raises `BrokerUnavailable`; then it is closed again."""
        self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(OPENING_S):
                await asyncio.shield(self._opened)
        except TimeoutError:
            await self.close()
            raise unavailable(self.options, TimeoutError(f"{self.name} got no part within {OPENING_S:.0f} s")) from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop. What is in hand belongs to others from now on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for partition in self.partitions.values():
            partition.lost = True
        if not self._opened.done():
            self._opened.cancel()

    async def settle(self) -> None:
        """Wait until Kafka knows what is acknowledged by now."""
        return

    @property
    def wants_commit(self) -> bool:
        """Whether something waits that can only be handed out after a commit."""
        return not self.resting and any(partition.wants_commit for partition in self.partitions.values())

    def ask_for_more(self) -> None:
        """Let Kafka know, soon, that more than it knows of may be in hand; `on_news` tells when it does."""
        return

    def give_up(self, error: BrokerUnavailable) -> None:
        """Kafka is away: nobody should wait for `settle` any more."""
        return

    def read_on(self) -> None:
        """Go on with partitions that were paused and have room again."""
        for partition in self.partitions.values():
            if partition.paused and partition.has_room:
                partition.paused = False
                with suppress(IllegalStateError, AttributeError):
                    self._client.resume(partition.tp)

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where the next records of these will be. Raises `BrokerUnavailable`."""
        try:
            async with asyncio.timeout(_ENDS_S):
                return dict(await self._client.end_offsets(list(partitions)))
        except (KafkaError, OSError, TimeoutError, AttributeError) as error:
            # there is no client while another one is made
            raise unavailable(self.options, error, f"looking for the ends of {self.name}") from error

    @abstractmethod
    def _make(self) -> Any:
        """A client of Kafka."""

    @abstractmethod
    async def _start(self, client: Any) -> None:
        """Start it, so that `getmany` gives records."""

    @abstractmethod
    async def _received(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Put what was read to the partitions."""

    async def _run(self) -> None:
        wait = _FIRST_WAIT_S
        while True:
            self._client = client = self._make()
            try:
                await self._start(client)
                self._is_open()
                while True:
                    records = await client.getmany(timeout_ms=_POLL_MS)
                    wait = _FIRST_WAIT_S
                    if records:
                        await self._received(records)
                        self._pause_full(client)
                        self.on_news()
            except Exception as error:
                # whatever it is: a new client may do better, and the messages are still there
                self.resting = True
                self._trouble(error)
            finally:
                self._client = None
                await stop_consumer(client)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def _is_open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _trouble(self, error: Exception) -> None:
        told = (
            error if isinstance(error, BrokerUnavailable) else unavailable(self.options, error, f"reading {self.name}")
        )
        if not self._opened.done():
            self._opened.set_exception(told)
        self.on_trouble(told)

    def _pause_full(self, client: Any) -> None:
        for partition in self.partitions.values():
            if partition.full and not partition.paused:
                with suppress(IllegalStateError):
                    client.pause(partition.tp)
                    partition.paused = True


class ClientReader(Reader):
    """Reads what is for one client, from now on: all clients share a topic, each looks at one partition of it."""

    def __init__(self, options: KafkaOptions, topics: Topics, client: str) -> None:
        super().__init__(options, f"client:{client}")
        self._key = client.encode()
        self._tp = TopicPartition(topics.clients, client_partition(client, topics.partitions(topics.clients) or 1))

    def _make(self) -> Any:
        return new_reader(self.options)

    async def _start(self, client: Any) -> None:
        client.assign([self._tp])
        await client.start()
        partition = self.partitions.get(self._tp)
        if partition is None:
            end = (await client.end_offsets([self._tp]))[self._tp]
            partition = self.partitions[self._tp] = Partition(self._tp, end)
        self.resting = partition.paused = False
        client.seek(self._tp, partition.next_offset)

    async def _received(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        partition = self.partitions[self._tp]
        for batch in records.values():
            partition.add([record for record in batch if record.key == self._key])
            partition.next_offset = batch[-1].offset + 1


def client_partition(client: str, partitions: int) -> int:
    """Where the messages for a client are."""
    return crc32(client.encode()) % partitions


def _nothing() -> None:
    pass


def _no_trouble(error: BrokerUnavailable) -> None:
    pass
