"""The servers that one run of one contestant gets, and what they have spent."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from redis import Redis
from tests.support.servers import PrivateKafka, PrivateRabbitmq, PrivateRedis, Server

from benchmarks.servers.spent import bytes_written, cpu_s

DURABILITY: Final = {
    "rabbitmq": "quorum queues, persistent messages, confirms; Redis AOF everysec",
    "kafka": "acks=all, idempotent producer, one copy, Kafka's own flushing; Redis AOF everysec",
}
"""How durable each is set up to be, the same for all who use it."""

REDIS: Final = {"appendonly": "yes", "appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
_BROKERS: Final[Mapping[str, type[PrivateRabbitmq | PrivateKafka]]] = {
    "rabbitmq": PrivateRabbitmq,
    "kafka": PrivateKafka,
}
BROKERS: Final = tuple(_BROKERS)


class Site:
    """A broker and a Redis of its own, running inside the `with` block. Raises `ServiceMissing` on entry.

    The servers and the processes that `join` are the parts whose processor time counts.
    """

    def __init__(self, broker: str) -> None:
        self._stack = ExitStack()
        self._kind = broker
        self._parts: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._redis: Server = stack.enter_context(PrivateRedis(REDIS))
            self._broker: Server = stack.enter_context(_BROKERS[self._kind]())
            self._client = stack.enter_context(Redis.from_url(self._redis.url))
            self._stack = stack.pop_all()
        self._parts = [("broker", self._broker.pid), ("Redis", self._redis.pid)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def broker(self) -> str:
        return self._broker.url

    @property
    def redis(self) -> str:
        return self._redis.url

    @property
    def folder(self) -> Path:
        """Where a contestant may leave files for its processes."""
        return self._redis.folder

    def join(self, name: str, pid: int) -> None:
        """Count a process, and what it starts, as part `name`; several may share a name."""
        self._parts.append((name, pid))

    def empty_redis(self) -> None:
        self._client.flushall()

    def cpu_s(self) -> dict[str, float]:
        """The processor seconds of each part so far."""
        spent: dict[str, float] = {}
        for name, group in self._parts:
            spent[name] = spent.get(name, 0.0) + cpu_s(group)
        return spent

    def bytes(self) -> dict[str, float]:
        """What is there, or went by, so far."""
        memory, persistence, stats = (self._client.info(section) for section in ("memory", "persistence", "stats"))
        return {
            "Redis memory": memory["used_memory"],
            "Redis log": persistence["aof_current_size"],
            "Redis network": stats["total_net_input_bytes"] + stats["total_net_output_bytes"],
            "broker disk writes": bytes_written(self._broker.pid),
            "all disk writes": bytes_written(self._broker.pid) + bytes_written(self._redis.pid),
        }
