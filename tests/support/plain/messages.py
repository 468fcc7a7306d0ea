"""Messages and addresses as docs/protocol.md has them, by the `cloudevents` package. Nothing of amends is imported."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Protocol
from zlib import crc32

from cloudevents.core.v1.event import CloudEvent

COPIED = (
    "subject", "correlationid", "effectkey", "revision", "attempt", "incarnation", "sagaversion", "commitid",
    "partitionkey", "traceparent", "tracestate",
)  # fmt: skip
"""What a reply has from the message that it answers."""


class Unreadable(Exception):
    """A message that nobody can process, with a short reason and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class Received(Protocol):
    """A message in hand, from the queue of a service."""

    service: str

    def read(self) -> CloudEvent:
        """Raises `Unreadable`."""
        ...


class Transport(Protocol):
    """One of the two brokers."""

    def commands(self, service: str) -> AsyncIterator[Received]: ...

    async def done(self, received: Received) -> None:
        """It is answered: do not send it again."""
        ...

    async def bury(self, received: Received, unreadable: Unreadable) -> None:
        """Put it to the dead letters."""
        ...

    async def listen(self, client: str) -> AsyncIterator[CloudEvent]:
        """What is said to a caller, from now on."""
        ...

    async def send(self, address: str, event: CloudEvent) -> None:
        """Return when it is stored."""
        ...


def slot_of(saga_id: str) -> int:
    return crc32(saga_id.encode()) % 1024


def slot_address(saga_id: str) -> str:
    return f"slot:{slot_of(saga_id):04d}"


def about(unreadable: Unreadable, service: str) -> dict[str, str]:
    """What is told of a dead letter, beside its own headers."""
    return {
        "amends-queue": f"service:{service}",
        "amends-reason": unreadable.reason,
        "amends-detail": str(unreadable),
        "amends-at": datetime.now(UTC).isoformat(),
        "amends-deliveries": "1",
    }


def reply(asked: CloudEvent, source: str, outcome: str, type: str, data: dict[str, Any]) -> CloudEvent:
    """The answer to a command, an undo or a settle."""
    attributes = asked.get_attributes()
    copied = {name: attributes[name] for name in COPIED if name in attributes}
    about = (attributes["effectkey"], attributes["revision"], attributes["attempt"], attributes["amendskind"], outcome)
    return CloudEvent(
        {
            **copied,
            "id": hashlib.sha256("\n".join(about).encode()).hexdigest(),
            "amendskind": "reply",
            "type": type,
            "source": source,
            "datacontenttype": "application/json",
            "outcome": outcome,
            "causationid": asked.get_id(),
        },
        data,
    )
