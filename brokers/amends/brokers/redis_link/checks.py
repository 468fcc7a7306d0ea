"""A look at how Redis is set up, when the connection is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from msgspec import Struct
from redis.exceptions import NoPermissionError

from amends.brokers.redis_link.errors import translate
from amends.brokers.redis_link.nodes import Node
from amends.contracts import UsageError

log = structlog.get_logger("amends.redis")

OLDEST: Final = (7, 0)


class Facts(Struct, frozen=True):
    """What the servers can do. `waits_for_disk`: WAITAOF exists, and there is an append-only file to wait for."""

    waits_for_disk: bool = False


async def look(nodes: Sequence[Node], *, clustered: bool) -> Facts:
    """Warn of what would lose sagas.

    Raises `UsageError` for a Redis that is too old, or is part of a cluster when none was named.
    """
    facts = [await _look(node, clustered) for node in nodes]
    return Facts(all(fact.waits_for_disk for fact in facts))


async def _look(node: Node, clustered: bool) -> Facts:
    info, fsync, found = await node.run([("INFO",), ("CONFIG", "GET", "appendfsync"), ("COMMAND", "INFO", "waitaof")])
    if isinstance(info, NoPermissionError):
        log.warning(
            "this user may not ask Redis how it is set up",
            redis=node.where,
            remedy="make sure that maxmemory-policy is noeviction and appendonly is yes, or allow INFO",
        )
        return Facts()
    if isinstance(info, Exception):
        raise translate(info, node.where)
    told = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    version = told.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise UsageError(f"Redis at {node.where} is version {version}. Use Redis 7.0 or later, or Valkey")
    if told.get("cluster_enabled") == "1" and not clustered:
        raise UsageError(f"Redis at {node.where} is part of a cluster. Name it as redis+cluster:// in the URL")
    if (policy := told.get("maxmemory_policy", "noeviction")) != "noeviction":
        log.warning(
            "Redis may throw sagas away when its memory is full",
            redis=node.where,
            maxmemory_policy=policy,
            remedy="set maxmemory-policy noeviction",
        )
    # CONFIG is forbidden by many hosted services, which know their disks
    mode = fsync[1].decode() if isinstance(fsync, list) and fsync else "unknown"
    persistent = told.get("aof_enabled") == "1"
    if not persistent:
        log.warning(
            "Redis keeps no append-only file: sagas are lost when it restarts",
            redis=node.where,
            remedy="set appendonly yes, and appendfsync always (or everysec, which may lose the last second)",
        )
    elif mode == "no":
        log.warning(
            "Redis does not see to it that its append-only file reaches the disk",
            redis=node.where,
            appendfsync=mode,
            remedy="set appendfsync always (or everysec, which may lose the last second)",
        )
    elif mode == "everysec":
        log.info(
            "a crash of the machine that Redis runs on may lose the last second of sagas",
            redis=node.where,
            appendfsync=mode,
            remedy="set appendfsync always where that is too much",
        )
    return Facts(waits_for_disk=persistent and isinstance(found, list) and bool(found[0]))
