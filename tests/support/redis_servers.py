"""Redis servers that belong together, and a cable between a client and one of them that loses answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from redis import Connection, ConnectionError
from tests.support.proxy import Proxy
from tests.support.servers import PrivateRedis, free_port

CLUSTER_SLOTS = 16_384


def ask(server: PrivateRedis, *words: Any) -> Any:
    """Send one command from outside and give its answer, as text."""
    connection = Connection(port=server.port, decode_responses=True, protocol=2)
    try:
        connection.connect()
        connection.send_command(*words)
        return connection.read_response()
    finally:
        connection.disconnect()


def until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Look again and again until something holds; a server that hangs up, as in a failover, is asked again."""
    end = time.monotonic() + timeout_s
    while True:
        with suppress(ConnectionError):
            if holds():
                return
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


class ClusterNode(PrivateRedis):
    """A server of a cluster."""

    def __init__(self) -> None:
        self.bus = free_port()
        super().__init__({"cluster-enabled": "yes", "cluster-port": str(self.bus), "cluster-node-timeout": "15000"})

    @property
    def id(self) -> str:
        return str(ask(self, "CLUSTER", "MYID"))


class RedisCluster:
    """Some primaries of one cluster, each with its part of the slots."""

    def __init__(self, servers: list[ClusterNode]) -> None:
        self.servers = servers
        bounds = [n * CLUSTER_SLOTS // len(servers) for n in range(len(servers) + 1)]
        for server, (first, end) in zip(servers, pairwise(bounds), strict=True):
            ask(server, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for server in servers[1:]:
            ask(servers[0], "CLUSTER", "MEET", "127.0.0.1", server.port, server.bus)
        until(lambda: all("cluster_state:ok" in ask(server, "CLUSTER", "INFO") for server in servers))
        until(lambda: all(len(ask(server, "CLUSTER", "SLOTS")) == len(servers) for server in servers))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def owner(self, slot: int) -> ClusterNode:
        """The server that has a slot of the cluster."""
        for first, last, (_, port, *_), *_ in ask(self.servers[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == port)
        raise AssertionError(f"nobody has slot {slot}")


@contextmanager
def running_cluster(size: int = 3) -> Iterator[RedisCluster]:
    with ExitStack() as stack:
        yield RedisCluster([stack.enter_context(ClusterNode()) for _ in range(size)])


class PrivateSentinel(PrivateRedis):
    """A sentinel that watches one primary under the name `sagas`, alone."""

    def __init__(self, primary: PrivateRedis) -> None:
        super().__init__()
        self._lines = (
            f"port {self.port}",
            f"sentinel monitor sagas 127.0.0.1 {primary.port} 1",
            "sentinel down-after-milliseconds sagas 500",
            "sentinel failover-timeout sagas 5000",
        )

    def _launch(self) -> Any:
        path: Path = self.folder / "sentinel.conf"
        path.write_text("\n".join(self._lines))
        return self._run([self._program, str(path), "--sentinel"])


class LossyProxy(Proxy):
    """A proxy that, once told so, breaks the connection instead of passing an answer on."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.answers_until_loss: int | None = None
        """How many more answers come through before one is lost; None: none is."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_client = writer.get_extra_info("sockname")[1] == self.port
        await super()._pump(cast(asyncio.StreamReader, _Watched(self, reader)) if to_client else reader, writer)


class _Watched:
    """The answers of a server."""

    def __init__(self, proxy: LossyProxy, reader: asyncio.StreamReader) -> None:
        self._proxy, self._reader = proxy, reader

    async def read(self, size: int) -> bytes:
        data = await self._reader.read(size)
        left = self._proxy.answers_until_loss
        if data and left is not None:
            self._proxy.answers_until_loss = left - 1 if left else None
            if not left:
                self._proxy.cut()
                return b""
        return data
