"""From a URL to what is needed to connect."""

from __future__ import annotations

import re
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from msgspec import Struct

from amends.contracts import UsageError

SCHEMES: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")

_OURS: Final = ("namespace", "durability", "replicas", "wait", "sentinel_username", "sentinel_password")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_HOW: Final = (
    "Write redis://[user:password@]host[:port][/database], redis+cluster://host:port,host:port or "
    "redis+sentinel://host:port,host:port/service[/database]"
)


class Durability(Struct, frozen=True):
    """`replicas` replicas must have confirmed a write within `wait_s` seconds. 0: none is waited for."""

    replicas: int = 0
    wait_s: float = 2.0


class RedisUrl(Struct, frozen=True):
    """Where Redis is, and how it is to be used. `sentinel` are user and password for the sentinels themselves."""

    kind: Literal["single", "cluster", "sentinel"]
    hosts: tuple[tuple[str, int], ...]
    tls: bool
    credentials: str
    service: str
    sentinel: tuple[str | None, str | None]
    database: int
    query: str
    namespace: str
    durability: Durability

    def plain(self, host: str, port: int) -> str:
        """The URL of one server, as redis-py reads it."""
        credentials = f"{self.credentials}@" if self.credentials else ""
        bracketed = f"[{host}]" if ":" in host else host
        query = f"?{self.query}" if self.query else ""
        return f"redis{'s' if self.tls else ''}://{credentials}{bracketed}:{port}/{self.database}{query}"

    @property
    def where(self) -> str:
        """The hosts, for messages to people: without password."""
        named = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{named} (service {self.service!r})" if self.service else named


def read_url(url: str) -> RedisUrl:
    """Take a URL apart. Raises `UsageError`, without repeating what may be a password.

    `?namespace=shop` puts `shop:` before every key (default `amends`); `?durability=replicated&replicas=1&wait=2` makes
    every commit wait until that many replicas have confirmed it, for up to so many seconds. `?sentinel_password=` is
    for sentinels that want one. Other parameters are redis-py's.
    """
    try:
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        default = 26379 if parts.scheme.endswith("+sentinel") else 6379
        addresses = tuple(_address(host, default) for host in hosts.split(","))
    except ValueError as error:
        raise UsageError(f"this Redis URL cannot be read ({error}). {_HOW}") from None
    tls, _, kind = parts.scheme.removeprefix("redis").partition("+")
    if parts.scheme not in SCHEMES or (not kind and len(addresses) > 1):
        raise UsageError(f"{parts.scheme}: is no URL of one Redis. {_HOW}")
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = [unquote(part) for part in parts.path.split("/") if part]
    service = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not service:
        raise UsageError(f"this URL does not name the sentinels' service. {_HOW}")
    database = path.pop(0) if path else "0"
    if path or not database.isdigit() or (kind == "cluster" and database != "0"):
        raise UsageError(f"this Redis URL has a path that is no database number. {_HOW}")
    return RedisUrl(
        kind="cluster" if kind == "cluster" else "sentinel" if kind == "sentinel" else "single",
        hosts=addresses,
        tls=tls == "s",
        credentials=credentials,
        service=service,
        sentinel=(asked.get("sentinel_username"), asked.get("sentinel_password")),
        database=int(database),
        query=urlencode({name: value for name, value in asked.items() if name not in _OURS}),
        namespace=_namespace(asked.get("namespace", "amends")),
        durability=_durability(asked),
    )


def _address(text: str, default: int) -> tuple[str, int]:
    split = urlsplit(f"//{text}")
    return split.hostname or "localhost", split.port or default


def _namespace(name: str) -> str:
    if not _NAMESPACE.fullmatch(name):
        raise UsageError(f"namespace={name!r} does not fit: use 1 to 64 letters, digits and . _ : -")
    return name


def _durability(asked: dict[str, Any]) -> Durability:
    mode = asked.get("durability", "local")
    if mode == "local":
        return Durability()
    if mode != "replicated":
        raise UsageError(f"durability={mode!r} is none: use local (the default) or replicated")
    try:
        replicas, wait_s = int(asked.get("replicas", 1)), float(asked.get("wait", 2.0))
    except ValueError as error:
        raise UsageError(f"durability=replicated: {error}. Write replicas=1&wait=2 (seconds)") from None
    if replicas < 1 or not 0.001 <= wait_s <= 4:
        raise UsageError("durability=replicated needs replicas of 1 or more and a wait of 0.001 to 4 seconds")
    return Durability(replicas, wait_s)
