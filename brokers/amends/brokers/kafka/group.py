"""A member of a consumer group: gets partitions, gives them up in order, and commits what is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from amends.brokers.kafka.assignor import KeepingAssignor
from amends.brokers.kafka.client import new_member
from amends.brokers.kafka.errors import unavailable
from amends.brokers.kafka.notes import Note
from amends.brokers.kafka.options import KafkaOptions
from amends.brokers.kafka.partition import Partition
from amends.brokers.kafka.reader import Reader
from amends.brokers.kafka.topics import Topics
from amends.brokers.port import BrokerUnavailable

_COMMIT_S: Final = 10.0
_LAST_COMMIT_S: Final = 3.0


class GroupReader(Reader, ConsumerRebalanceListener):  # type: ignore[misc, unused-ignore]
    """Reads the partitions of some topics that its group gives it.

    When the group shares out anew, it stops handing out, waits up to `drain_s` for what is in hand, and commits. A
    partition that it then gets back just as it left it goes on with what is in memory; of all others, acknowledgements
    that come too late are ignored. `on_change` gets the numbers of the partitions at each change. `starts` is where to
    begin in partitions for which the group has no offset; without one, at the oldest message.
    """

    def __init__(
        self,
        options: KafkaOptions,
        topics: Topics,
        name: str,
        reads: Collection[str],
        *,
        starts: Mapping[TopicPartition, int] | None = None,
        on_change: Callable[[frozenset[int]], None] | None = None,
    ) -> None:
        super().__init__(options, name)
        self._topics, self._reads = topics, set(reads)
        self._group = topics.group_of(name)
        self._starts = starts or {}
        self._on_change = on_change
        self._told: frozenset[int] | None = None
        self._assignor = KeepingAssignor()
        self._assignment = 0
        self._assigned = asyncio.Event()
        self._broken: BrokerUnavailable | None = None
        self._may_commit = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._commit: asyncio.Task[None] | None = None
        self._late: asyncio.Task[None] | None = None
        self._asked: asyncio.Future[None] | None = None
        self._doing: asyncio.Future[None] | None = None

    async def open(self) -> None:
        await super().open()
        # where a subscription begins is settled from now on
        await self.settle()

    async def close(self) -> None:
        """Commit, and leave the group, so that others get the partitions at once."""
        self.resting = True
        self._may_commit.clear()
        if self.partitions:
            with suppress(BrokerUnavailable):
                await self._commit_now(_LAST_COMMIT_S, parting=True)
        await super().close()
        for task in (self._commit, self._late):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        for settling in (self._asked, self._doing):
            # it is in the last commit, or belongs to others
            if settling is not None and not settling.done():
                settling.set_result(None)

    async def settle(self) -> None:
        """Return when a commit that began after this call is through. Raises `BrokerUnavailable`.

        When the partitions went to others instead, there is nothing to wait for.
        """
        self._acknowledged.set()
        await asyncio.shield(self._commit_soon())

    def ask_for_more(self) -> None:
        self._acknowledged.set()
        self._commit_soon()

    # the group

    def _make(self) -> Any:
        if self._late is not None:
            self._late.cancel()
        client = new_member(self.options, self._group, self._assignor)
        client.subscribe(self._reads, listener=self)
        return client

    async def _start(self, client: Any) -> None:
        await client.start()
        await self._assigned.wait()
        self._check()

    async def _received(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        assignment = self._assignment
        if not self._assigned.is_set():
            await self._assigned.wait()
            if assignment != self._assignment:
                # they were read for an assignment that is over, and will be read again
                return
        self._check()
        for tp, batch in records.items():
            if (partition := self.partitions.get(tp)) is not None:
                partition.add(batch)

    def _check(self) -> None:
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._assignment += 1
        self._assigned.clear()
        self.resting = True
        if self.partitions:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.options.drain_s):
                    await self._drained()
            self._may_commit.clear()
            with suppress(BrokerUnavailable):
                await self._commit_now(_LAST_COMMIT_S, parting=True)

    async def _drained(self) -> None:
        while any(partition.in_hand for partition in self.partitions.values()):
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        try:
            found = await self._topics.committed(self._group, assigned)
            # where the last consumer died, what comes later was not there yet
            orphaned = any(Note.read(offset, note).reach is not None for offset, note in found.values())
            ends = await self.ends(assigned) if orphaned else {}
        except BrokerUnavailable as error:
            # the reader makes another client then
            self._broken = error
            self._assigned.set()
            return
        before, self.partitions = self.partitions, {}
        for tp in sorted(assigned):
            partition = before.get(tp)
            if partition is None or partition.committed != found.get(tp):
                start = found[tp][0] if tp in found else self._starts.get(tp)
                partition = Partition(
                    tp, start, found.get(tp), end=ends.get(tp), delivery_limit=self.options.delivery_limit
                )
            partition.paused = False
            if partition.next_offset is not None:
                self._client.seek(tp, partition.next_offset)
            self.partitions[tp] = partition
        for partition in before.values():
            partition.lost = self.partitions.get(partition.tp) is not partition
        self.resting = False
        self._may_commit.set()
        self._assigned.set()
        self._commit_soon()
        self._tell_change()
        self.on_news()

    def _tell_change(self) -> None:
        held = frozenset(tp.partition for tp in self.partitions)
        if self._on_change is not None and held != self._told:
            self._told = held
            # on its own, so that an error in it is nobody else's
            asyncio.get_running_loop().call_soon(self._on_change, held)

    # commits

    def give_up(self, error: BrokerUnavailable) -> None:
        """Kafka is away: let those who wait for a commit know now. What they acknowledged is committed later."""
        for settling in (self._asked, self._doing):
            if settling is not None and not settling.done():
                settling.set_exception(error)

    def _commit_soon(self) -> asyncio.Future[None]:
        """Done with the next commit to begin. One is under way at a time."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_future()
            self._asked.add_done_callback(_hear)
        if self._commit is None:
            self._commit = asyncio.create_task(self._commit_all())
        return self._asked

    async def _commit_all(self) -> None:
        try:
            while self._asked is not None and not self._asked.done():
                try:
                    await self._between_assignments()
                    self._doing, self._asked = self._asked, None
                    await self._commit_now(_COMMIT_S)
                except BrokerUnavailable as error:
                    self.give_up(error)
                    if self.wants_commit:
                        # whoever receives waits for this
                        self.on_trouble(error)
                if self._doing is not None and not self._doing.done():
                    self._doing.set_result(None)
        finally:
            self._commit = None

    async def _between_assignments(self) -> None:
        """Wait until there is an assignment: a commit before would only disturb the group."""
        try:
            async with asyncio.timeout(_COMMIT_S):
                await self._may_commit.wait()
        except TimeoutError as error:
            raise unavailable(self.options, error, f"waiting for a part of {self.name}") from error

    async def _commit_now(self, seconds: float, *, parting: bool = False) -> None:
        if self._late is not None:
            # two at a time might take the offsets back
            await self._wait_for(self._late, seconds)
        progress: dict[Partition, tuple[int, str]] = {}
        for partition in self.partitions.values():
            now = partition.progress(parting=parting)
            if now is not None and now != partition.committed:
                progress[partition] = now
        if progress and self._client is not None:
            self._late = asyncio.create_task(self._tell(self._client, progress))
            self._late.add_done_callback(_hear)
            await self._wait_for(self._late, seconds)

    async def _wait_for(self, telling: asyncio.Task[None], seconds: float) -> None:
        """Wait for a commit, for a while; it goes on when that is too short."""
        await asyncio.wait({telling}, timeout=seconds)
        if not telling.done():
            raise unavailable(self.options, TimeoutError(), f"committing for {self.name}")
        if self._late is telling:
            self._late = None
        if telling.cancelled():
            return
        error = telling.exception()
        # partitions that are somebody else's by now need no commit of ours
        if error is not None and not isinstance(error, CommitFailedError | IllegalStateError):
            raise unavailable(self.options, error, f"committing for {self.name}") from error

    async def _tell(self, client: Any, progress: Mapping[Partition, tuple[int, str]]) -> None:
        await client.commit({partition.tp: now for partition, now in progress.items()})
        for partition, now in progress.items():
            partition.committed = now
        self.on_news()


def _hear(future: asyncio.Future[None]) -> None:
    """Whoever wants to know asks; else it may fail unheard."""
    if not future.cancelled():
        future.exception()
