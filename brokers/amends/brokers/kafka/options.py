"""From a `kafka://` URL to the settings of a connection."""

from __future__ import annotations

import difflib
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Struct

from amends.contracts import UsageError
from amends.contracts.names import is_wire_name

_SASL: Final = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}
_SECRETS: Final = ("servers", "user", "password")


class KafkaOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach Kafka, and how to behave there. All but servers, user and password are written behind the `?`.

    `prefix` begins the name of every topic and group. `partitions` is how many the topics of services, events and
    clients get when they are made here; `replication` how many copies, 0 means three, or as many as there are brokers.
    `retention_s` is how long messages are kept, handled or not: longer than any consumer may be away. A message that
    was handed out `delivery_limit` times is a dead letter when its turn comes again. A process that shows no sign of
    life for `session_timeout_s` loses its partitions to the others. When partitions move, whoever has messages in hand
    gets `drain_s` to finish. `max_message_bytes` bounds one message with its attributes. `publish_timeout_s` is how
    long a publication waits for Kafka before it fails.

    `sasl` is plain, scram-sha-256 or scram-sha-512; `tls` encrypts, with the authorities of the system or of `cafile`.
    """

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = None
    prefix: str = "amends"
    partitions: int = 8
    replication: int = 0
    retention_s: float = 7 * 86_400.0
    delivery_limit: int = 50
    session_timeout_s: float = 10.0
    drain_s: float = 2.0
    max_message_bytes: int = 1_000_000
    publish_timeout_s: float = 15.0
    sasl: str = "plain"
    tls: bool = False
    cafile: str | None = None

    def __post_init__(self) -> None:
        if not self.servers or not all(self.servers):
            raise UsageError("the URL names no Kafka server. Write kafka://host:9092 or kafka://one:9092,two:9092")
        if not is_wire_name(self.prefix):
            raise UsageError(f"prefix={self.prefix!r} cannot begin a topic's name. Use letters, digits and . _ -")
        for name in ("partitions", "delivery_limit", "session_timeout_s", "max_message_bytes", "publish_timeout_s"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name}={getattr(self, name)} does not fit: it must be more than 0")
        if self.sasl not in _SASL:
            raise UsageError(f"sasl={self.sasl!r} is not known. Use one of {', '.join(_SASL)}")
        if self.sasl != "plain" and self.user is None:
            raise UsageError(f"sasl={self.sasl} without a user. Write kafka://user:password@host:9092")

    def __repr__(self) -> str:
        """Without the password, so that it gets into no log."""
        return f"KafkaOptions({self.place})"

    @property
    def place(self) -> str:
        """Where this is, for messages to people."""
        who = f" as user {self.user!r}" if self.user is not None else ""
        return f"Kafka at {', '.join(self.servers)}{who}"

    @property
    def mechanism(self) -> str:
        """The name of the SASL mechanism, as Kafka writes it."""
        return _SASL[self.sasl]

    @classmethod
    def parse(cls, url: str) -> KafkaOptions:
        """Read `kafka://[user:password@]host:port[,host:port…][?option=value&…]`. Raises `UsageError`."""
        parts = urlsplit(url)
        if parts.scheme != "kafka" or parts.path.strip("/") or parts.fragment:
            raise UsageError("a Kafka URL is kafka://[user:password@]host:port[,host:port…][?option=value&…]")
        login, at, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        given: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
        names = [name for name in cls.__struct_fields__ if name not in _SECRETS]
        for name in given:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"Did you mean {close[0]}? " if close else ""
                raise UsageError(f"{name} is no option of a Kafka URL. {hint}There are {', '.join(names)}")
        if at:
            given.update(user=unquote(user), password=unquote(password))
        given["servers"] = tuple(hosts.split(","))
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"an option of the Kafka URL does not fit: {error}") from None
