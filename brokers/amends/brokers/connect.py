"""From a URL to a broker."""

from __future__ import annotations

import asyncio
import difflib
from typing import Final
from weakref import WeakKeyDictionary

from amends.brokers.embedded import EmbeddedBroker
from amends.brokers.memory import MemoryBroker
from amends.brokers.port import Broker
from amends.brokers.shards import ShardMap
from amends.contracts import UsageError

DEFAULT_PATH: Final = ".amends/amends.db"

_AVAILABLE: Final = (
    "Available are embedded: (durable, one machine), amqp: and amqps: (RabbitMQ), kafka: and memory: (one program)"
)

_in_memory: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, MemoryBroker]] = WeakKeyDictionary()


async def connect_broker(url: str | None = None, *, shard_map: ShardMap | None = None) -> Broker:
    """Open the broker of a URL.

    `embedded:` is the file `.amends/amends.db`, `embedded:relative/path.db` and `embedded:///absolute/path.db` are
    others. `memory:` and `memory:name` are shared by all who open the same name in one event loop, and keep their
    messages as long as that exists. `amqp://user:password@host:5672/vhost` is described at `RabbitmqBroker.open`; it
    needs `amends[rabbitmq]`. `kafka://user:password@host:9092,host:9092` is described at `KafkaOptions`; it needs
    `amends[kafka]`. None means `embedded:`. Raises `UsageError` for any other URL and for a shard map
    that is not the one of the installation, `BrokerUnavailable`, and `FileCorrupt`.
    """
    shard_map = shard_map or ShardMap()
    scheme, colon, rest = (url or "embedded:").partition(":")
    if not colon:
        raise UsageError(f"{scheme!r} is no broker URL: it has no scheme. {_AVAILABLE}")
    if scheme == "embedded":
        return await EmbeddedBroker.open(_path(rest), shard_map)
    if scheme == "memory":
        return _memory(rest, shard_map)
    if scheme in ("amqp", "amqps"):
        return await _rabbitmq(f"{scheme}:{rest}", shard_map)
    if scheme == "kafka":
        return await _kafka(f"{scheme}:{rest}", shard_map)
    close = difflib.get_close_matches(scheme.lower(), ["embedded", "memory", "amqp", "amqps", "kafka"], 1)
    hint = f"Did you mean {close[0]}:? " if close else ""
    raise UsageError(f"{scheme}: is no kind of broker. {hint}{_AVAILABLE}")


async def _rabbitmq(url: str, shard_map: ShardMap) -> Broker:
    try:
        from amends.brokers.rabbitmq import RabbitmqBroker
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in ("aio_pika", "aiormq", "pamqp", "yarl"):
            raise
        raise UsageError(f"the RabbitMQ broker needs the package {package}. pip install 'amends[rabbitmq]'") from None
    return await RabbitmqBroker.open(url, shard_map)


async def _kafka(url: str, shard_map: ShardMap) -> Broker:
    try:
        from amends.brokers.kafka import KafkaBroker
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) != "aiokafka":
            raise
        raise UsageError(f"the Kafka broker needs the package {package}. pip install 'amends[kafka]'") from None
    return await KafkaBroker.open(url, shard_map)


def _path(rest: str) -> str:
    if not rest.startswith("//"):
        return rest or DEFAULT_PATH
    host, _, path = rest[2:].partition("/")
    if host or not path:
        raise UsageError(
            f"embedded:{rest} names no file. Write embedded:relative/path.db or embedded:///absolute/path.db"
        )
    return f"/{path}"


def _memory(name: str, shard_map: ShardMap) -> MemoryBroker:
    named = _in_memory.setdefault(asyncio.get_running_loop(), {})
    broker = named.get(name)
    if broker is None:
        broker = named[name] = MemoryBroker(shard_map)
    shard_map.check(broker.shard_map, f"memory:{name}")
    return broker.join()
