"""Where a run takes place: a broker and a store, started for it alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.chaos.plan import OF_BROKERS, OF_STORES, Kind
from tests.support.servers import PrivateKafka, PrivateRabbitmq, PrivateRedis, Server

AOF = {"appendonly": "yes", "appendfsync": "always"}
"""Every commit is on disk before it is answered, so that a `kill -9` of Redis loses none."""

TITLES = {"rabbitmq": "RabbitMQ + Redis", "kafka": "Kafka + Redis", "embedded": "embedded"}


class Ground(NamedTuple):
    """The servers of a run and their URLs, which are "" for the embedded ones.

    `lease_s` is how long a process must be silent until the broker gives away what it had.
    """

    title: str
    broker: Server | None
    store: Server | None
    broker_url: str
    store_url: str
    lease_s: float

    @property
    def kinds(self) -> frozenset[Kind]:
        """What can go wrong here."""
        impossible = frozenset[Kind]() if self.broker else OF_BROKERS | OF_STORES
        return frozenset(Kind) - impossible


@contextmanager
def ground(on: str, lease_s: float, folder: Path) -> Iterator[Ground]:
    """Start the servers of `rabbitmq`, `kafka` or `embedded`, with their data in `folder`. Raises `ServiceMissing`."""
    with ExitStack() as stack:
        if on == "embedded":
            yield Ground(TITLES[on], None, None, "", "", lease_s)
            return
        store = stack.enter_context(PrivateRedis(AOF, folder / "redis"))
        broker: Server
        if on == "rabbitmq":
            broker = stack.enter_context(PrivateRabbitmq(folder / "rabbitmq"))
            url = f"{broker.url}?heartbeat={lease_s / 2:.0f}"
        else:
            broker = stack.enter_context(PrivateKafka(folder / "kafka"))
            url = f"{broker.url}?session_timeout_s={lease_s:g}"
        yield Ground(TITLES[on], broker, store, url, store.url, lease_s)
