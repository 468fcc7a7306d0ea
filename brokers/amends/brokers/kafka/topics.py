"""The topics of an installation: their names, making them, and what Kafka knows about them and their groups."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka import TopicPartition, errors
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from amends.brokers.kafka.assignor import KeepingAssignor
from amends.brokers.kafka.client import new_admin, new_reader, stop_admin, stop_consumer, why_not
from amends.brokers.kafka.errors import unavailable
from amends.brokers.kafka.options import KafkaOptions
from amends.brokers.kafka.wire import BURIAL_BYTES
from amends.brokers.shards import ShardMap
from amends.contracts import UsageError
from amends.contracts.names import is_wire_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = structlog.get_logger("amends.brokers")

_REQUEST_S: Final = 15.0
_LONGEST: Final = 249
_EXISTS: Final = errors.TopicAlreadyExistsError.errno
_FORBIDDEN: Final = (errors.TopicAuthorizationFailedError.errno, errors.ClusterAuthorizationFailedError.errno)
_STABLE: Final = "Stable"
_AT_REST: Final = (_STABLE, "Empty", "Dead")
_CLIENTS_RETENTION_MS: Final = 3_600_000

Committed = Mapping[TopicPartition, tuple[int, str]]
"""What a group has committed: offset and note, per partition."""


class Topics:
    """One topic of shards (a partition each), two per service, one per type of event, one for all clients, one of dead
    letters. They are made when they are first needed, unless they are there.

    Messages are kept for `retention_s`, dead letters for ever, what clients were told for an hour; nothing is ever
    compacted.
    """

    def __init__(self, options: KafkaOptions, shard_map: ShardMap) -> None:
        self.options = options
        prefix = options.prefix
        self.shards = f"{prefix}.shards.v{shard_map.version}"
        self.clients = f"{prefix}.clients"
        self.dead_letters = f"{prefix}.dead-letters"
        self._packs = f"{prefix}.packs."
        self._map = shard_map
        self._admin: Any = None
        self._partitions: dict[str, int] = {}
        self._checked: set[str] = set()
        self._making = asyncio.Lock()

    def of_service(self, service: str) -> str:
        return self._valid(f"{self.options.prefix}.service.{service}", service)

    def of_event(self, event_type: str) -> str:
        return self._valid(f"{self.options.prefix}.event.{event_type}", event_type)

    def of_packs(self, service: str) -> str:
        """The second topic of a service, which only participants of ours read: packs, and what goes with them."""
        return self._valid(f"{self._packs}{service}", service)

    def group_of(self, queue: str) -> str:
        """The consumer group of those who consume a queue, or subscribe under a name."""
        return f"{self.options.prefix}.{queue.replace(':', '.')}"

    def _valid(self, topic: str, name: str) -> str:
        if not is_wire_name(name) or len(topic) > _LONGEST:
            raise UsageError(f"{name!r} cannot be part of a topic's name. Use up to 200 letters, digits and . _ -")
        return topic

    async def start(self) -> None:
        """Connect, make the topics that every installation has, and check the map. Raises `BrokerUnavailable`."""
        self._admin = new_admin(self.options)
        try:
            await self._admin.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise unavailable(self.options, await why_not(self.options) or error) from error
        async with self._speaking("reading the list of topics"):
            self._remember(await self._admin.describe_topics())
        self._check_map()
        await self.ensure([self.shards, self.clients, self.dead_letters])
        self._check_map()
        await self._check_memory()

    async def close(self) -> None:
        if self._admin is not None:
            await stop_admin(self._admin)

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None when it has not been ensured."""
        return self._partitions.get(topic)

    async def ensure(self, topics: Collection[str]) -> None:
        """Make those that are not there. Raises `BrokerUnavailable`, also when there is no right to.

        One that is compacted, and so would lose messages, is a `UsageError`.
        """
        if self._checked.issuperset(topics):
            return
        async with self._making:
            new = [topic for topic in dict.fromkeys(topics) if topic not in self._checked]
            missing = [topic for topic in new if topic not in self._partitions]
            if missing:
                async with self._speaking(f"making {', '.join(missing)}"):
                    await self._make(missing)
            if new:
                await self._check_cleaning(new)
                self._checked.update(new)

    async def _make(self, topics: list[str]) -> None:
        copies = self.options.replication or min(3, len((await self._admin.describe_cluster())["brokers"]))
        made = await self._admin.create_topics([self._new(topic, copies) for topic in topics])
        refused: dict[str, KafkaError] = {}
        for topic, code, *said in made.topic_errors:
            if code not in (0, _EXISTS):
                refused[topic] = errors.for_code(code)(f"{topic!r}: {said[0] or 'no reason given'}")
                if code not in _FORBIDDEN:
                    raise refused[topic]
        until = time.monotonic() + _REQUEST_S
        while time.monotonic() < until:
            wanted = [topic for topic in topics if topic not in refused]
            # naming a topic that is not there might make it, with other settings
            self._remember(await self._admin.describe_topics(wanted if not refused else None))
            lacking = [topic for topic in topics if topic not in self._partitions]
            if not lacking:
                return
            if refused:
                raise refused[lacking[0]]
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{', '.join(topics)}: made, but nobody leads them")

    def _new(self, topic: str, copies: int) -> NewTopic:
        options = self.options
        retention_ms = int(options.retention_s * 1000)
        largest = options.max_message_bytes + 1024
        if topic == self.shards:
            partitions = self._map.shards
        elif topic == self.dead_letters:
            partitions, retention_ms, largest = 1, -1, largest + BURIAL_BYTES
        else:
            # of a service both topics, so that a key has the same partition in both
            base = self.of_service(topic[len(self._packs) :]) if topic.startswith(self._packs) else topic
            partitions = self._partitions.get(base, options.partitions)
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(retention_ms),
            "max.message.bytes": str(largest),
            "min.insync.replicas": "2" if copies > 2 else "1",
        }
        if topic == self.clients:
            config.update({"retention.ms": str(_CLIENTS_RETENTION_MS), "segment.ms": str(_CLIENTS_RETENTION_MS // 2)})
        return NewTopic(topic, partitions, copies, topic_configs=config)

    def _remember(self, described: Iterable[Mapping[str, Any]]) -> None:
        for topic in described:
            partitions = topic["partitions"]
            if not topic["error_code"] and partitions and all(p["leader"] >= 0 for p in partitions):
                self._partitions[topic["topic"]] = len(partitions)

    def _check_map(self) -> None:
        ours = re.compile(re.escape(self.options.prefix) + r"\.shards\.v(\d+)")
        for topic, partitions in self._partitions.items():
            if found := ours.fullmatch(topic):
                where = f"{self.options.place} with prefix={self.options.prefix}"
                self._map.check(ShardMap(partitions, int(found[1])), where)

    async def _check_cleaning(self, topics: list[str]) -> None:
        policies = await self._settings(ConfigResourceType.TOPIC, topics, "cleanup.policy")
        for topic, policy in policies.items():
            if "compact" in policy:
                raise UsageError(
                    f"the topic {topic} has cleanup.policy={policy}: of the messages of a saga it would keep only the "
                    "last. Set it to delete"
                )

    async def _check_memory(self) -> None:
        """Say so when Kafka may forget where a group was while its messages are still there."""
        brokers = [str(broker["node_id"]) for broker in (await self._admin.describe_cluster())["brokers"]]
        found = await self._settings(ConfigResourceType.BROKER, brokers[:1], "offsets.retention.minutes")
        for minutes in found.values():
            if minutes.isdecimal() and 60 * int(minutes) < self.options.retention_s:
                log.warning(
                    "Kafka forgets where an idle group was before the messages are gone: a subscriber that is away for "
                    "longer misses events. Raise offsets.retention.minutes, or lower retention_s",
                    offsets_retention_s=60 * int(minutes),
                    retention_s=self.options.retention_s,
                )

    async def _settings(self, kind: ConfigResourceType, names: list[str], setting: str) -> dict[str, str]:
        """One setting of several brokers or topics; nothing where there is no right to see it."""
        resources = [ConfigResource(kind, name, configs={setting: None}) for name in names]
        found: dict[str, str] = {}
        async with self._speaking(f"reading {setting}"):
            for answer in await self._admin.describe_configs(resources):
                for code, _, _, name, entries in answer.resources:
                    if not code:
                        found.update((name, entry[1]) for entry in entries)
        return found

    # what Kafka knows

    async def ping(self) -> None:
        """Raise `BrokerUnavailable` when no broker answers."""
        for last in (False, False, False, True):
            try:
                async with asyncio.timeout(3):
                    await self._admin.describe_topics([self.shards])
                return
            except (KafkaError, OSError, TimeoutError) as error:
                # with several brokers, another one may be asked now
                if last:
                    raise unavailable(self.options, error) from error

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> Committed:
        """What a group has committed for these; nothing for those where it never did. Raises `BrokerUnavailable`."""
        partitions = list(partitions)
        if not partitions:
            return {}
        until = time.monotonic() + _REQUEST_S
        async with self._speaking(f"reading the offsets of {group}"):
            while True:
                try:
                    found = await self._admin.list_consumer_group_offsets(group, partitions=partitions)
                except (KafkaError, AttributeError) as error:
                    # the library trips over the answer of a coordinator that is just loading
                    if time.monotonic() > until or not getattr(error, "retriable", True):
                        raise KafkaError(str(error)) from error
                    await asyncio.sleep(0.1)
                else:
                    return {tp: (at.offset, at.metadata) for tp, at in found.items() if at.offset >= 0}

    async def are_ours(self, groups: Collection[str]) -> Mapping[str, bool]:
        """Whether the members of these groups share out their partitions as ours do; those that are just doing it, or
        may not be seen, are left out. Raises `BrokerUnavailable`."""
        found: dict[str, bool] = {}
        async with self._speaking("asking who consumes"):
            # each alone: the client library reads answers about several wrongly, and hangs up (aiokafka 0.14)
            asked = [self._admin.describe_consumer_groups([group]) for group in groups]
            for answers in await asyncio.gather(*asked):
                for code, group, state, _, protocol, *_ in answers[0].groups:
                    if not code and state in _AT_REST:
                        found[group] = state == _STABLE and protocol == KeepingAssignor.name
        return found

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """Where the next message of each partition of these will be. Raises `BrokerUnavailable`."""
        partitions = [TopicPartition(topic, p) for topic in topics for p in range(self._partitions[topic])]
        if not partitions:
            return {}
        async with self.reader("reading the ends of topics") as reader:
            return dict(await reader.end_offsets(partitions))

    @asynccontextmanager
    async def reader(self, doing: str) -> AsyncIterator[Any]:
        """A consumer without a group, for a moment. Its errors become `BrokerUnavailable`."""
        reader = new_reader(self.options)
        try:
            async with self._speaking(doing):
                await reader.start()
                yield reader
        finally:
            await stop_consumer(reader)

    @asynccontextmanager
    async def _speaking(self, doing: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(2 * _REQUEST_S):
                yield
        except (KafkaError, OSError, TimeoutError) as error:
            raise unavailable(self.options, error, doing) from error


async def delete_installation(options: KafkaOptions) -> None:
    """Delete every topic that begins with the prefix, and all that is in them. There is no way back."""
    admin = new_admin(options)
    try:
        await admin.start()
        topics = [topic for topic in await admin.list_topics() if topic.startswith(f"{options.prefix}.")]
        if topics:
            with suppress(errors.UnknownTopicOrPartitionError):
                await admin.delete_topics(topics)
    finally:
        await stop_admin(admin)
