"""The router: brings domain events to the sagas that wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from amends.brokers import Broker, Consumer, Delivery, Outgoing
from amends.contracts import TerminalError, slot_of
from amends.contracts.names import slot_address
from amends.coordinator.core.matching import fields_of
from amends.coordinator.core.snapshot import Recording
from amends.coordinator.store import SagaStore

SUBSCRIBER: Final = "amends-coordinator"
"""The name under which all coordinators of one installation subscribe: each event comes to one of them."""


class Router:
    """Looks up which sagas an event is for, and sends it on to their own queues under its own id."""

    def __init__(self, store: SagaStore, broker: Broker) -> None:
        self._store, self._broker = store, broker

    async def process(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        """Send a batch on, then acknowledge it. Raises `StoreUnavailable` or `BrokerUnavailable`."""
        messages: list[Outgoing] = []
        handled: list[Delivery] = []
        for delivery in deliveries:
            envelope = delivery.envelope
            if envelope is None:
                await consumer.dead_letter(delivery, "undecodable", delivery.problem)
                continue
            try:
                fields = fields_of(Recording(envelope.type, envelope.data, envelope.content_type))
            except TerminalError as error:
                await consumer.dead_letter(delivery, "undecodable", str(error))
                continue
            for saga_id in await self._store.waiting(envelope.type, fields):
                onward = replace(envelope, subject=saga_id, causation_id=envelope.id, partition_key=saga_id)
                messages.append(Outgoing(slot_address(slot_of(saga_id)), onward))
            handled.append(delivery)
        if messages:
            await self._broker.publish(messages)
        if handled:
            await consumer.ack(handled)
