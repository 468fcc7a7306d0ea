"""Packs that go back: their envelopes are published as single messages before the pack is acknowledged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from amends.brokers.packing import SPLIT
from amends.brokers.port import BrokerUnavailable
from amends.brokers.rabbitmq.lane import Lane
from amends.brokers.rabbitmq.wire import Parcel, wrap_again
from amends.contracts.packs import Unpacked

if TYPE_CHECKING:
    from amends.brokers.rabbitmq.names import Names
    from amends.brokers.rabbitmq.publisher import Publisher


class Torn(Struct, frozen=True, eq=False):
    """A pack in a lane that is to be split: what of it is still open, and how often it was handed out before."""

    lane: Lane
    tag: int
    parts: Sequence[Unpacked]
    deliveries: int


class Splitter:
    """Splits packs. Killed in the middle, it leaves some envelopes twice, and none less than once."""

    def __init__(self, publisher: Publisher, names: Names) -> None:
        self._publisher, self._names = publisher, names

    async def split(self, packs: Iterable[Torn]) -> None:
        """Store the parts as single messages, and acknowledge their packs. Raises `BrokerUnavailable`."""
        torn = [pack for pack in packs if not pack.lane.closed]
        parcels: list[Parcel] = []
        for pack in torn:
            for part in pack.parts:
                parcel = wrap_again(part, self._names.plain(pack.lane.queue))
                parcel.headers[SPLIT] = str(pack.deliveries)
                parcels.append(parcel)
        if not parcels:
            return
        if lost := await self._publisher.publish(parcels):
            raise BrokerUnavailable(f"the queue {parcels[lost[0]].key!r} is not there for what was in a pack")
        for lane in {pack.lane for pack in torn}:
            await lane.acknowledge({pack.tag for pack in torn if pack.lane is lane})
