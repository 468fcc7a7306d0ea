"""From a URL to a store."""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

from amends.contracts import UsageError
from amends.coordinator.store import SagaStore
from amends.coordinator.stores.memory import MemoryStore
from amends.coordinator.stores.sqlite import SqliteStore

DEFAULT_PATH: Final = ".amends/amends.db"

_AVAILABLE: Final = (
    "Available are sqlite: (durable, one machine), redis: (durable, several machines; also rediss:, redis+cluster: and "
    "redis+sentinel:) and memory: (one program)"
)

_memories: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, MemoryStore]] = WeakKeyDictionary()


async def connect_store(url: str | None = None) -> SagaStore:
    """Open the store of a URL.

    `sqlite:` is the file `.amends/amends.db`, `sqlite:relative/path.db` and `sqlite:///absolute/path.db` are others; an
    embedded broker may use the same. `memory:` and `memory:name` are shared by all who open the same name in one event
    loop, and keep their sagas as long as that exists. `redis://host:6379/0` and its relatives are described at
    `amends.brokers.redis_link.read_url`; they need `amends[redis]`. None means `sqlite:`. Raises `UsageError` for any
    other URL, `StoreUnavailable`, and `StoreCorrupt`.
    """
    scheme, colon, rest = (url or "sqlite:").partition(":")
    if not colon:
        raise UsageError(f"{scheme!r} is no store URL: it has no scheme. {_AVAILABLE}")
    match scheme:
        case "sqlite":
            return SqliteStore.open(_path(rest))
        case "memory":
            return _memories.setdefault(asyncio.get_running_loop(), {}).setdefault(rest, MemoryStore())
        case "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel" | "rediss+sentinel":
            return await _open_redis(f"{scheme}:{rest}")
        case _:
            raise UsageError(f"{scheme}: is no kind of store. {_AVAILABLE}")


async def _open_redis(url: str) -> SagaStore:
    try:
        from amends.coordinator.stores.redis import RedisStore
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in ("redis", "hiredis"):
            raise
        raise UsageError(f"the Redis store needs the package {package}. pip install 'amends[redis]'") from None
    return await RedisStore.open(url)


def _path(rest: str) -> str:
    if rest == ":memory:":
        raise UsageError("sqlite::memory: cannot be shared by the connections of a store. Use memory:")
    if not rest.startswith("//"):
        return rest or DEFAULT_PATH
    host, _, path = rest[2:].partition("/")
    if host or not path:
        raise UsageError(
            f"sqlite:{rest} names no file. Write sqlite:relative/path.db or sqlite:///absolute/path.db (three slashes)"
        )
    return f"/{path}"
