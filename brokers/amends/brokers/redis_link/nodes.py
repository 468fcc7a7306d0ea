"""Servers, and which of them has a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError

from amends.brokers.redis_link.errors import RedisUnavailable, translate
from amends.brokers.redis_link.urls import RedisUrl
from amends.contracts import AmendsError, UsageError

TIMEOUT_S: Final = 5.0
_CONNECTIONS: Final = 16


def _options(url: RedisUrl) -> dict[str, Any]:
    """What every connection has. Nothing is repeated by redis-py: who repeats must know that it may have been done."""
    defaults = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "socket_keepalive": True}
    try:
        given = dict(parse_url(url.plain(*url.hosts[0])))
    except ValueError as error:
        raise UsageError(f"the URL of Redis at {url.where} has a parameter that cannot be read: {error}") from None
    return {**defaults, **given, "retry": Retry(NoBackoff(), 0), "protocol": 2}


class Node:
    """One server."""

    def __init__(self, client: Redis, where: str) -> None:
        self._client, self.where = client, where

    async def run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send all in one write; what each answers, as bytes, errors of single commands included.

        Raises `RedisUnavailable` when the connection breaks: some may have been done.
        """
        try:
            return await self._run(commands)
        except ConnectionError as error:
            raise translate(await self._reason(error), self.where) from error
        except (RedisError, OSError) as error:
            raise translate(error, self.where) from error

    async def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        # redis-py's own pipeline packs commands in Python, which costs more than Redis needs to run them
        data = b"".join([pack_command(tuple(words)) for words in commands])
        pool = self._client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call, unused-ignore]
        try:
            return await _converse(connection, data, len(commands))
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _reason(self, broken: ConnectionError) -> Exception:
        """Why the connection broke: in the middle of a long command, Redis hangs up on one who has not said the
        password. The answer to a short one tells it."""
        try:
            await self._run([("PING",)])
        except AuthenticationError as refused:
            return refused
        except (RedisError, OSError):
            pass
        return broken

    async def close(self) -> None:
        await self._client.aclose()


async def _converse(connection: AbstractConnection, data: bytes, count: int) -> list[Any]:
    try:
        await connection.send_packed_command(data)
    except RuntimeError as error:
        # so does uvloop say that the server has hung up meanwhile
        raise ConnectionError(str(error)) from error
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


class Nodes(Protocol):
    """The servers of one installation."""

    clustered: bool

    async def connect(self) -> None:
        """Find out which servers there are. Raises `RedisUnavailable`."""
        ...

    def of(self, key: str) -> Node:
        """The server that a key is on, as far as is known."""
        ...

    def at(self, host: str, port: int) -> Node: ...

    def primaries(self) -> Sequence[Node]: ...

    async def close(self) -> None: ...


class SingleNode:
    """One server, or the one that sentinels name as primary."""

    clustered = False

    def __init__(self, url: RedisUrl) -> None:
        self._sentinel = _sentinel(url) if url.kind == "sentinel" else None
        client = (
            self._sentinel.master_for(url.service) if self._sentinel else Redis.from_pool(_pool(url, *url.hosts[0]))
        )
        self._node = Node(client, url.where)

    async def connect(self) -> None:
        for answer in await self._node.run([("PING",)]):
            if isinstance(answer, Exception):
                raise translate(answer, self._node.where)

    def of(self, key: str) -> Node:
        return self._node

    def at(self, host: str, port: int) -> Node:
        raise UsageError(
            f"Redis at {self._node.where} is part of a cluster. Use redis+cluster:// instead of redis:// in its URL"
        )

    def primaries(self) -> Sequence[Node]:
        return [self._node]

    async def close(self) -> None:
        await self._node.close()
        if self._sentinel is not None:
            for watcher in self._sentinel.sentinels:
                await watcher.aclose()


class ClusterNodes:
    """The primaries of a cluster, by the map that they give out."""

    clustered = True

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._nodes: dict[tuple[str, int], Node] = {}
        self._owners: dict[int, Node] = {}

    async def connect(self) -> None:
        problem: AmendsError | None = None
        for host, port in dict.fromkeys((*self._nodes, *self._url.hosts)):
            try:
                (answer,) = await self.at(host, port).run([("CLUSTER", "SLOTS")])
            except RedisUnavailable as error:
                problem = error
                continue
            if isinstance(answer, Exception):
                problem = translate(answer, f"{host}:{port}")
                continue
            self._owners = {
                slot: self.at(primary[0].decode() if primary[0] else host, int(primary[1]))
                for first, last, primary, *_ in answer
                for slot in range(first, last + 1)
            }
            return
        raise problem or RedisUnavailable(f"no node of {self._url.where} knows its cluster")

    def of(self, key: str) -> Node:
        node = self._owners.get(key_slot(key.encode()))
        if node is None:
            raise RedisUnavailable(f"the cluster at {self._url.where} does not serve all slots")
        return node

    def at(self, host: str, port: int) -> Node:
        node = self._nodes.get((host, port))
        if node is None:
            client = Redis.from_pool(_pool(self._url, host, port))
            node = self._nodes[host, port] = Node(client, f"{host}:{port}")
        return node

    def primaries(self) -> Sequence[Node]:
        return list(dict.fromkeys(self._owners.values()))

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.close()


def _pool(url: RedisUrl, host: str, port: int) -> BlockingConnectionPool:
    options = {**_options(url), "host": host, "port": port}
    return BlockingConnectionPool(max_connections=_CONNECTIONS, timeout=TIMEOUT_S, **options)


def _sentinel(url: RedisUrl) -> Sentinel:
    options = {**_options(url), **({"ssl": True} if url.tls else {})}
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    username, password = url.sentinel
    asking = {name: value for name, value in options.items() if name not in ("db", "username", "password")}
    asking |= {"username": username, "password": password}
    return Sentinel(list(url.hosts), sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]
