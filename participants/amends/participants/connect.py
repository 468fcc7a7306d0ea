"""Which inbox a URL means, and which one goes with a broker."""

from __future__ import annotations

from amends.brokers import Broker, EmbeddedBroker
from amends.contracts import Clock, UsageError
from amends.participants.inbox import Inbox
from amends.participants.memory_inbox import MemoryInbox
from amends.participants.sqlite_inbox import SqliteInbox

_KNOWN = "Use redis://host, sqlite:///absolute/path, sqlite:relative/path or memory:"


async def connect_inbox(url: str, *, clock: Clock | None = None) -> Inbox:
    """Open the inbox of a URL: `sqlite:///absolute/path`, `sqlite:relative/path`, or `memory:` (a new one each time).

    `embedded:` is understood as `sqlite:`. `redis://host:6379/0`, `redis+cluster://…` and `redis+sentinel://…` are
    described at `amends.brokers.redis_link.read_url`; they need `amends[redis]`. Raises `UsageError` for any other URL,
    and what opening the file raises, or a `TransientError` when Redis is away.
    """
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise UsageError(f"inbox {url!r} is no URL. {_KNOWN}")
    match scheme.lower():
        case "memory":
            return MemoryInbox(clock)
        case "sqlite" | "embedded":
            return SqliteInbox.open(_path(url, rest), clock=clock)
        case "redis" | "rediss" | "redis+cluster" | "rediss+cluster" | "redis+sentinel" | "rediss+sentinel":
            return await _open_redis(f"{scheme.lower()}:{rest}", clock)
        case _:
            raise UsageError(f"there is no inbox {scheme}: in this version. {_KNOWN}")


async def _open_redis(url: str, clock: Clock | None) -> Inbox:
    try:
        from amends.participants.redis_inbox import RedisInbox
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in ("redis", "hiredis"):
            raise
        raise UsageError(f"the Redis inbox needs the package {package}. pip install 'amends[redis]'") from None
    return await RedisInbox.open(url, clock=clock)


def inbox_beside(broker: Broker, *, clock: Clock | None = None) -> Inbox:
    """The inbox that goes with a broker: in the embedded broker's own file, in memory beside one in memory.

    Raises `UsageError` for a broker that others share and that has no file.
    """
    if isinstance(broker, EmbeddedBroker):
        return SqliteInbox.open(broker.path, clock=clock)
    if not broker.shared:
        return MemoryInbox(clock)
    raise UsageError('this broker needs an inbox that is named: running(inbox="redis://host"), or "sqlite:shop.db"')


def _path(url: str, rest: str) -> str:
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host or not path:
            raise UsageError(f"{url} names no file. {_KNOWN}")
        rest = slash + path
    if not rest or rest == ":memory:":
        raise UsageError(f"{url} names no file. {_KNOWN}")
    return rest
