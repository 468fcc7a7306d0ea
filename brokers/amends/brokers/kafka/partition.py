"""One partition in the hands of one consumer: what waits, what is in hand, and up to where all is acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from aiokafka import TopicPartition

from amends.brokers.kafka.notes import Note

_ENOUGH_WAITING: Final = 1024
_FEW_WAITING: Final = 256
_FARTHEST: Final = 10_000


class Item:
    """A record between its arrival and its acknowledgement."""

    __slots__ = ("deliveries", "in_hand", "partition", "record")

    def __init__(self, partition: Partition, record: Any, deliveries: int) -> None:
        self.partition, self.record, self.deliveries = partition, record, deliveries
        self.in_hand = False

    @property
    def offset(self) -> int:
        return self.record.offset  # type: ignore[no-any-return]


class Partition:
    """Keeps the records of a partition apart: waiting, in hand, acknowledged.

    A group can only commit one offset per partition: everything below it is done. So the offset stops at the oldest
    record that is not acknowledged, and what is acknowledged beyond it goes into the note that is committed along.

    `committed` is what Kafka was last told, or had when we came.
    """

    def __init__(self, tp: TopicPartition, start: int | None, committed: tuple[int, str] | None = None) -> None:
        self.tp = tp
        self.committed = committed
        self.waiting: deque[Item] = deque()
        self.in_hand = 0
        self.lost = False
        self.paused = False
        self.next_offset = start
        """The offset to be read next; None when that is up to Kafka."""
        self._note = Note.read(*committed) if committed is not None else Note()
        self._open: dict[int, Item] = {}
        self._taken_to = self._note.end

    @property
    def full(self) -> bool:
        """Whether no more should be read now: enough waits, or a slow record holds up the commits."""
        return len(self.waiting) >= _ENOUGH_WAITING or self._distance >= _FARTHEST

    @property
    def has_room(self) -> bool:
        """Whether reading should go on after it was paused."""
        return len(self.waiting) <= _FEW_WAITING and self._distance < _FARTHEST

    @property
    def _distance(self) -> int:
        return (self.next_offset or 0) - next(iter(self._open)) if self._open else 0

    def add(self, records: Sequence[Any]) -> None:
        """Records in the order of their offsets; those that are known or acknowledged already are left out."""
        known, note = self.next_offset, self._note
        for record in records:
            offset = record.offset
            if known is not None and offset < known:
                continue
            if offset < note.end and offset in note:
                continue
            item = Item(self, record, note.deliveries.get(offset, 0))
            self._open[offset] = item
            self.waiting.append(item)
        if records:
            self.next_offset = max(known or 0, records[-1].offset + 1)

    def take(self) -> Item:
        """Hand out the oldest that waits."""
        item = self.waiting.popleft()
        item.in_hand = True
        item.deliveries += 1
        self.in_hand += 1
        self._taken_to = max(self._taken_to, item.offset + 1)
        return item

    def done(self, item: Item) -> None:
        """An item in hand is acknowledged."""
        item.in_hand = False
        self.in_hand -= 1
        del self._open[item.offset]

    def put_back(self, items: Iterable[Item]) -> None:
        """Items in hand wait in their old places again."""
        back = list(items)
        for item in back:
            item.in_hand = False
        self.in_hand -= len(back)
        self.waiting = deque(sorted(chain(back, self.waiting), key=_offset))

    def progress(self, *, parting: bool = False) -> tuple[int, str] | None:
        """What to commit: the offset up to which all is acknowledged, and the note. None while nothing is known.

        The note names what is acknowledged beyond that; at `parting`, also how often the others were handed out.
        """
        if self.next_offset is None:
            return None
        done: list[tuple[int, int]] = []
        counts: dict[int, int] = {}
        taken_to = min(self._taken_to, self.next_offset)
        behind: int | None = None
        for offset, item in self._open.items():
            if offset >= taken_to:
                break
            if behind is not None and behind < offset:
                done.append((behind, offset))
            behind = offset + 1
            if parting:
                counts[offset] = item.deliveries
        if behind is not None and behind < taken_to:
            done.append((behind, taken_to))
        # what the note of our predecessor tells of records that have not come here yet
        done += [(max(start, self.next_offset), stop) for start, stop in self._note.done if stop > self.next_offset]
        counts.update((offset, n) for offset, n in self._note.deliveries.items() if offset >= self.next_offset)
        watermark = next(iter(self._open), self.next_offset)
        return watermark, Note(tuple(done), counts).write(watermark)


def _offset(item: Item) -> int:
    return item.offset
