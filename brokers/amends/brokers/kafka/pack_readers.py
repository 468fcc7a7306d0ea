"""Which services have participants of ours, who read packs; others may be in any language, and get single messages."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from amends.brokers.kafka.topics import Topics
from amends.brokers.port import BrokerUnavailable
from amends.contracts.names import service_address

_LOOK_S: Final = 3.0


class PackReaders:
    """Knows of each service that is sent to whether participants of ours consume it now.

    Their group shares out its partitions by a rule of ours, which Kafka tells of every group. It is asked every few
    seconds, never while somebody publishes: what is published in between goes by what was known last.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._known: dict[str, bool] = {}
        self._new = asyncio.Event()

    def consume(self, service: str) -> bool:
        """Whether packs may be sent to this service."""
        known = self._known.get(service)
        if known is None:
            self._known[service] = known = False
            self._new.set()
        return known

    def joined(self, service: str) -> None:
        """A participant of this process consumes it now."""
        self._known[service] = True

    async def look(self) -> None:
        """Ask Kafka about the services that are sent to. Raises `BrokerUnavailable`."""
        self._new.clear()
        groups = {self._topics.group_of(service_address(service)): service for service in self._known}
        for group, ours in (await self._topics.are_ours(groups)).items():
            self._known[groups[group]] = ours

    async def watch(self) -> None:
        """Ask again and again, until cancelled."""
        await self._new.wait()
        while True:
            # an outage is told elsewhere; what was known stays so
            with suppress(BrokerUnavailable):
                await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._new.wait()
