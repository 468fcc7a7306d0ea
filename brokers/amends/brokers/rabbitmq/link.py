"""A connection to RabbitMQ that is made when it is needed, and made again when it was lost."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from yarl import URL

from amends.brokers.rabbitmq.problems import BROKEN, Server
from amends.brokers.rabbitmq.tap import Tap, TapFactory

T = TypeVar("T")

# whoever configures logging sees what the libraries say; otherwise our own errors tell enough
for _name in ("aiormq", "aio_pika"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 5.0


class Link:
    """One connection, and the channels on it.

    There is no reconnecting in the background: whoever needs the broker comes here, and either gets a channel on a
    connection that works, or `BrokerUnavailable`. What was on a lost connection is over: nothing of it is restored.
    """

    def __init__(self, url: URL, server: Server, purpose: str, *, bulk: bool = True) -> None:
        self.server = server
        self._url, self._purpose = url, purpose
        self._bulk = bulk
        self._connection: AbstractConnection | None = None
        self._tap: Tap | None = None
        self._connecting: asyncio.Task[AbstractConnection] | None = None
        self._jobs: set[asyncio.Task[Any]] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def connection(self) -> AbstractConnection:
        """One that is open. Raises `BrokerUnavailable`."""
        if self._connection is not None and _is_open(self._connection):
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> AbstractConnection:
        async with self.server.speaking():
            properties: Any = {"connection_name": f"amends {self._purpose}"}
            connection = aio_pika.Connection(self._url, client_properties=properties)
            taps = TapFactory()
            if self._bulk:
                connection.kwargs["transport_factory"] = taps
            try:
                await connection.connect(timeout=_CONNECT_S)
            except BaseException:
                await _close_connection(connection)
                raise
            lost, self._connection, self._tap = self._connection, connection, taps.tap
            if lost is not None:
                await _close_connection(lost)
            return connection

    def _connected(self, task: asyncio.Task[AbstractConnection]) -> None:
        self._connecting = None
        if not task.cancelled():
            # whoever waited has it; when nobody does any more, it is nobody's
            task.exception()

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """A new channel, for the caller to close. Raises `BrokerUnavailable`."""
        connection = await self.connection()
        async with self.server.speaking():
            channel = connection.channel(publisher_confirms=confirms, on_return_raises=False)
            await channel.initialize()
            underlay = await channel.get_underlay_channel()
        # the outer channel must live as long as the one that is used
        underlay.closing.add_done_callback(lambda _, keep=channel: None)  # type: ignore[misc]
        return underlay

    def tap_of(self, channel: AbstractChannel) -> Tap | None:
        """Where the deliveries of a channel can be taken by the bulk. None when they must be left to the library."""
        connection = self._connection
        if (
            connection is None
            or connection.transport is None
            or connection.transport.connection.channels.get(channel.number) is not channel
        ):
            return None
        return self._tap

    async def job(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something to its end, even when the caller is cancelled: to cancel a request closes its channel."""
        task = asyncio.create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled():
            task.exception()

    async def ask(self, request: Callable[[AbstractChannel], Awaitable[T]]) -> T:
        """Make a request on a channel of its own. Raises the library's errors, which close that channel."""
        channel = await self.channel()
        try:
            return await request(channel)
        finally:
            await close_channel(channel)

    @asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[None]:
        """Only one task of this connection at a time is in a block with the same `what`."""
        async with self._locks[what]:
            yield

    async def close(self) -> None:
        """Wait for what is being done, and close the connection."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=_CLOSE_S)
        if self._connecting is not None:
            await asyncio.wait({self._connecting})
        if self._connection is not None:
            await _close_connection(self._connection)


async def close_channel(channel: AbstractChannel) -> None:
    """Close it, if it is not closed yet, for one reason or another."""
    with suppress(*BROKEN):
        async with asyncio.timeout(_CLOSE_S):
            await channel.close()


async def _close_connection(connection: AbstractConnection) -> None:
    with suppress(*BROKEN):
        async with asyncio.timeout(_CLOSE_S):
            await connection.close()


def _is_open(connection: AbstractConnection) -> bool:
    return not connection.is_closed and connection.transport is not None and connection.transport.connection.is_opened
