"""Making and unmaking the parts of aiokafka, with what its public methods lack. Nothing else touches its insides.

Written for aiokafka 0.12 to 0.14.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from amends.brokers.kafka.assignor import KeepingAssignor
from amends.brokers.kafka.options import KafkaOptions

REBALANCE_TIMEOUT_S: Final = 60.0
FETCH_WAIT_S: Final = 0.25
"""How long Kafka holds a fetch that finds nothing. Partitions that are resumed meanwhile have to wait for its end."""
_STOP_S: Final = 3.0

# it reports every single failed try to connect; an outage is told once, by those who use the broker
if (_logger := logging.getLogger("aiokafka")).level == logging.NOTSET:
    _logger.setLevel(logging.CRITICAL)


def new_admin(options: KafkaOptions) -> Any:
    return AIOKafkaAdminClient(**_connection(options), request_timeout_ms=15_000)


def new_producer(options: KafkaOptions) -> Any:
    """An idempotent producer. It waits for no more messages to come: batches are made before they come to it."""
    return AIOKafkaProducer(
        **_connection(options),
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=min(options.max_message_bytes, 512 * 1024),
        max_request_size=options.max_message_bytes,
        request_timeout_ms=15_000,
    )


def new_reader(options: KafkaOptions) -> Any:
    """A consumer that belongs to no group."""
    return AIOKafkaConsumer(**_connection(options), **_reading(options), enable_auto_commit=False)


def new_member(options: KafkaOptions, group: str, assignor: KeepingAssignor) -> Any:
    """A consumer in a group."""
    session_ms = int(options.session_timeout_s * 1000)
    return AIOKafkaConsumer(
        **_connection(options),
        **_reading(options),
        group_id=group,
        enable_auto_commit=False,
        partition_assignment_strategy=(assignor,),
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=min(1000, session_ms // 20),
        rebalance_timeout_ms=int(REBALANCE_TIMEOUT_S * 1000),
    )


async def stop_consumer(consumer: Any) -> None:
    """Leave the group and disconnect, within a few seconds also when nobody answers."""
    await _within(_STOP_S, consumer.stop(), consumer._client)
    # in an outage it breaks off half-way
    left = {task for task in _tasks_of(consumer) if not task.done()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1)


async def stop_admin(admin: Any) -> None:
    await _within(_STOP_S, admin.close(), admin._client)


async def stop_producer(producer: Any) -> None:
    """Send what is still waiting, and disconnect; within a few seconds."""
    stopping = asyncio.create_task(producer.stop())
    await asyncio.wait({stopping}, timeout=_STOP_S)
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait({stopping})
        await abandon_producer(producer)


async def abandon_producer(producer: Any) -> None:
    """Disconnect at once. What it has not sent is not sent any more, and nobody is told."""
    producer._closed = True
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    await _cut(producer.client)
    for _ in range(3):
        if sender is not None and not sender.done():
            await asyncio.wait({sender}, timeout=1)
            sender.cancel()


async def why_not(options: KafkaOptions) -> BaseException | None:
    """Why no server can be used, which the library only writes to its log; None when one can."""
    found: BaseException | None = None
    for server in options.servers:
        host, _, port = server.rpartition(":") if ":" in server else (server, "", "9092")
        settings = {name: value for name, value in _connection(options).items() if name != "bootstrap_servers"}
        try:
            async with asyncio.timeout(5):
                connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=5000, **settings)
        except (OSError, KafkaError, TimeoutError) as error:
            found = error
        else:
            await connection.close()
            return None
    return found


async def _within(seconds: float, stop: Any, client: Any) -> None:
    stopping = asyncio.ensure_future(stop)
    try:
        await asyncio.wait({stopping}, timeout=seconds)
    finally:
        await _cut(client)
        if not stopping.done():
            await asyncio.wait({stopping}, timeout=1)
            stopping.cancel()
            await asyncio.wait({stopping}, timeout=1)
        if stopping.done() and not stopping.cancelled():
            # whatever it is, this is over
            stopping.exception()


def _tasks_of(consumer: Any) -> Iterator[asyncio.Task[Any]]:
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    if fetcher is not None:
        yield fetcher._fetch_task
        yield from fetcher._pending_tasks
    for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
        if (task := getattr(coordinator, name, None)) is not None:
            yield task


async def _cut(client: Any) -> None:
    """Close the connections, so that all requests under way fail."""
    with suppress(Exception):
        await client.close()
    waiting = client._md_update_fut
    if waiting is not None and not waiting.done():
        # nobody will do that any more, and requests that failed wait for it
        waiting.set_result(False)


def _reading(options: KafkaOptions) -> Mapping[str, Any]:
    return {
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": int(FETCH_WAIT_S * 1000),
        "max_partition_fetch_bytes": max(1024 * 1024, options.max_message_bytes + 1024),
        "request_timeout_ms": int(1000 * max(15.0, options.session_timeout_s + 5)),
    }


def _connection(options: KafkaOptions) -> dict[str, Any]:
    settings: dict[str, Any] = {"bootstrap_servers": list(options.servers), "client_id": "amends"}
    if options.tls:
        settings["ssl_context"] = _tls(options.cafile)
    if options.user is not None:
        settings.update(
            sasl_mechanism=options.mechanism,
            sasl_plain_username=options.user,
            sasl_plain_password=options.password,
        )
    settings["security_protocol"] = ("SASL_" if options.user is not None else "") + (
        "SSL" if options.tls else "PLAINTEXT"
    )
    return settings


@lru_cache(8)
def _tls(cafile: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=cafile)
