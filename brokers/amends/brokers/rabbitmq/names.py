"""The names of queues and exchanges at the broker. They are part of the wire: see docs/protocol.md."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from amends.brokers.queues import shard_queue, subscriber_queue
from amends.contracts import UsageError
from amends.contracts.names import client_address, is_wire_name, service_address

NAMESPACE: Final = "amends"
_LAYOUT: Final = "v1"
_LONGEST: Final = 255


class Names(Struct, frozen=True):
    """All names of one installation; `prefix` is namespace and version of the layout, as `amends.v1`."""

    prefix: str

    @classmethod
    def of(cls, namespace: str) -> Names:
        """Raises `UsageError` for what cannot be part of a queue's name."""
        if not is_wire_name(namespace) or len(namespace) > 60:
            raise UsageError(
                f"namespace={namespace!r} cannot be part of queue names. Use up to 60 of: letters, digits, . _ -"
            )
        return cls(f"{namespace}.{_LAYOUT}")

    # exchanges

    @property
    def slots(self) -> str:
        """Direct: the address of a slot, as `slot:0413`, is the routing key to the queue of its shard."""
        return f"{self.prefix}.slots"

    @property
    def events(self) -> str:
        """Direct: the type of the event is the routing key to the queue of each subscriber."""
        return f"{self.prefix}.events"

    @property
    def members(self) -> str:
        """Fan-out: to all who share the shards."""
        return f"{self.prefix}.members"

    @property
    def returned(self) -> str:
        """Fan-out, to a queue of the same name: what RabbitMQ itself takes out of queues."""
        return f"{self.prefix}.returned"

    # queues

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dead-letters"

    def service(self, service: str) -> str:
        return self._queue("service", service)

    def packs(self, service: str) -> str:
        """The second queue of a service: packs for those of its consumers that read them."""
        return self._queue("packs", service)

    def plain(self, queue: str) -> str:
        """Where the single messages out of a queue's packs go: to itself, or to the first queue of its service."""
        start = self.packs("")
        return self.service(queue[len(start) :]) if queue.startswith(start) else queue

    def shard(self, shard: int) -> str:
        return self._queue("shard", f"{shard:02d}")

    def subscriber(self, subscriber: str) -> str:
        return self._queue("subscriber", subscriber)

    def client(self, client: str) -> str:
        return self._queue("client", client)

    def member(self, id: int) -> str:
        return self._queue("member", f"{id:016x}")

    def lock(self, what: str) -> str:
        """An exclusive queue: whoever has declared it holds the lock."""
        return self._queue("lock", what)

    def record(self, what: str) -> str:
        """A queue that holds one message: a small durable record."""
        return self._queue("record", what)

    def address_of(self, queue: str) -> str:
        """What the port calls a queue: `service:inventory`, `shard:03`, `subscriber:watcher`; else the name itself."""
        kind, _, name = queue.removeprefix(f"{self.prefix}.").partition(".")
        match kind:
            case "service" | "packs":
                return service_address(name)
            case "shard" if name.isdecimal():
                return shard_queue(int(name))
            case "subscriber":
                return subscriber_queue(name)
            case "client":
                return client_address(name)
        return queue

    def _queue(self, kind: str, name: str) -> str:
        full = f"{self.prefix}.{kind}.{name}"
        if len(full.encode()) > _LONGEST:
            raise UsageError(f"{name[:60]!r}… is too long for a queue at RabbitMQ: names have up to {_LONGEST} bytes")
        return full
