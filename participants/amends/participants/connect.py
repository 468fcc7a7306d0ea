"""Which inbox a URL means, and which one goes with a broker."""

from __future__ import annotations

from amends.brokers import Broker, EmbeddedBroker
from amends.contracts import Clock, UsageError
from amends.participants.inbox import Inbox
from amends.participants.memory_inbox import MemoryInbox
from amends.participants.sqlite_inbox import SqliteInbox

_KNOWN = "Use sqlite:///absolute/path, sqlite:relative/path or memory:"


async def connect_inbox(url: str, *, clock: Clock | None = None) -> Inbox:
    """Open the inbox of a URL: `sqlite:///absolute/path`, `sqlite:relative/path`, or `memory:` (a new one each time).

    `embedded:` is understood as `sqlite:`. Raises `UsageError` for any other URL, and what opening the file raises.
    """
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise UsageError(f"inbox {url!r} is no URL. {_KNOWN}")
    match scheme.lower():
        case "memory":
            return MemoryInbox(clock)
        case "sqlite" | "embedded":
            return SqliteInbox.open(_path(url, rest), clock=clock)
        case _:
            raise UsageError(f"there is no inbox {scheme}: in this version. {_KNOWN}")


def inbox_beside(broker: Broker, *, clock: Clock | None = None) -> Inbox:
    """The inbox that goes with a broker: in the embedded broker's own file, in memory beside one in memory.

    Raises `UsageError` for a broker that others share and that has no file.
    """
    if isinstance(broker, EmbeddedBroker):
        return SqliteInbox.open(broker.path, clock=clock)
    if not broker.shared:
        return MemoryInbox(clock)
    raise UsageError('this broker needs an inbox that is named: running(inbox="sqlite:shop.db")')


def _path(url: str, rest: str) -> str:
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host or not path:
            raise UsageError(f"{url} names no file. {_KNOWN}")
        rest = slash + path
    if not rest or rest == ":memory:":
        raise UsageError(f"{url} names no file. {_KNOWN}")
    return rest
