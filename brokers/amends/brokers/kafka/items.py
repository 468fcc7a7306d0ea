"""Messages between their arrival and their acknowledgement, and the records that they came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amends.contracts.packs import Unpacked

if TYPE_CHECKING:
    from amends.brokers.kafka.partition import Partition


class Item:
    """A message between its arrival and its acknowledgement: a record, or a part of one that is a pack."""

    __slots__ = ("deaths", "deliveries", "in_hand", "part", "partition", "place", "record")

    def __init__(self, partition: Partition, record: Any, deliveries: int, deaths: int) -> None:
        self.partition, self.record, self.deliveries, self.deaths = partition, record, deliveries, deaths
        self.part: Unpacked | None = None
        self.place = 0
        self.in_hand = False

    @property
    def offset(self) -> int:
        return self.record.offset  # type: ignore[no-any-return]


class OpenRecord:
    """A record that is not settled: how many of its messages are not, and how often one of them was handed out.

    Its own headers may tell of earlier deliveries; those are in `before`, and in no note. Of a pack, `gone` and `seen`
    are as in the note.
    """

    __slots__ = ("before", "deaths", "deliveries", "gone", "in_hand", "left", "record", "seen")

    def __init__(self, record: Any, left: int, before: int, deliveries: int, deaths: int) -> None:
        self.record = record
        self.left, self.before, self.deliveries, self.deaths = left, before, deliveries, deaths
        self.in_hand = self.gone = self.seen = 0

    @property
    def is_mixed(self) -> bool:
        """Whether its messages have not fared alike."""
        return bool(self.gone or (self.deliveries and self.left > 1 and self.seen.bit_count() < self.left))

    def taken(self, item: Item) -> None:
        self.in_hand += 1
        times = item.deliveries - self.before
        if times > self.deliveries:
            self.deliveries, self.seen = times, 0
        if times == self.deliveries:
            self.seen |= 1 << item.place


class Pack:
    """A pack that somebody may have died of: it has to be split before anything of it is handed out."""

    __slots__ = ("deliveries", "partition", "parts", "record")

    def __init__(self, partition: Partition, record: Any, parts: Sequence[Unpacked], deliveries: int) -> None:
        self.partition, self.record, self.parts, self.deliveries = partition, record, parts, deliveries
