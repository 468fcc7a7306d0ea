"""One partition in the hands of one consumer: what waits, what is in hand, and up to where all is acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from math import inf
from typing import Any, Final

from aiokafka import TopicPartition

from amends.brokers.kafka.items import Item, OpenRecord, Pack
from amends.brokers.kafka.notes import Note, count_at, counted, from_offset, reach_in
from amends.brokers.kafka.wire import handed_out_before, parts_in

_ENOUGH_WAITING: Final = 1024
_FEW_WAITING: Final = 256
_FARTHEST: Final = 10_000

_AHEAD: Final = 512
"""How much more than was handed out a commit says may be in hand: while it lasts nobody has to wait for the next."""
_AHEAD_UNREAD: Final = 64
"""The same in records that have not come yet."""

_LAST: Final = 2**63 - 1

_SUSPECT: Final = 2
"""A record that so many consumers may have died of is handed out alone."""


class Partition:
    """Keeps the records of a partition apart: waiting, in hand, acknowledged.

    A group can only commit one offset per partition: everything below it is done. So the offset stops at the oldest
    record that is not acknowledged, and what is acknowledged beyond it goes into the note that is committed along.

    The note also says, beforehand, up to where records may be in hand: only what is within that `reach` is handed out.
    So whoever takes over from a dead consumer knows what it may have died of. That counts as delivered, a pack is
    split, and what two may have died of, or what is delivered for the last time, is handed out alone: nothing else of
    the partition is in hand then, and nothing else is blamed.

    `committed` is what Kafka was last told, or had when we came, and `end` where its next record was to be then.
    `delivery_limit` is None for a reader without a group,
    of whose deliveries nobody keeps account.
    """

    def __init__(
        self,
        tp: TopicPartition,
        start: int | None,
        committed: tuple[int, str] | None = None,
        *,
        end: int | None = None,
        delivery_limit: int | None = None,
    ) -> None:
        self.tp = tp
        self.waiting: deque[Item] = deque()
        self.to_split: list[Pack] = []
        self.in_hand = 0
        self.lost = False
        self.paused = False
        self.next_offset = start
        """The offset to be read next; None when that is up to Kafka."""
        self._limit = delivery_limit
        self._note = Note()
        if committed is not None:
            self._note = Note.read(*committed).inherited(committed[0], _LAST if end is None else end)
        self._open: dict[int, OpenRecord] = {}
        self._taken_to = self._note.end
        self._handed_to = 0
        self._reach = inf if delivery_limit is None else 0
        self._committed = committed
        self._suspects: set[int] = set()
        """The offsets of those that go alone, when their turn comes."""
        self._alone: int | None = None
        """The one of them that is in hand."""

    @property
    def committed(self) -> tuple[int, str] | None:
        return self._committed

    @committed.setter
    def committed(self, told: tuple[int, str]) -> None:
        self._committed = told
        if self._limit is not None:
            self._reach = reach_in(*told) or 0

    @property
    def oldest(self) -> Any:
        """The oldest record that is here and not settled, or None."""
        return next(iter(self._open.values())).record if self._open else None

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
            if offset >= note.end:
                self._add(record, 0, 0)
            elif offset not in note:
                self._add(record, count_at(note.deliveries, offset), count_at(note.deaths, offset))
        if records:
            self.next_offset = max(known or 0, records[-1].offset + 1)

    def _add(self, record: Any, deliveries: int, deaths: int) -> None:
        parts = parts_in(record)
        if parts is None:
            before = handed_out_before(record)
            self._open[record.offset] = OpenRecord(record, 1, before, deliveries, deaths)
            self._wait(Item(self, record, before + deliveries, deaths))
            return
        gone, seen = self._note.parts.get(record.offset, (0, 0))
        left = [(place, part) for place, part in enumerate(parts) if not gone >> place & 1]
        if not left:
            return
        self._open[record.offset] = found = OpenRecord(record, len(left), 0, deliveries, deaths)
        found.gone, found.seen = gone, seen
        if deaths:
            self.to_split.append(Pack(self, record, [part for _, part in left], deliveries))
            return
        for place, part in left:
            item = Item(self, record, deliveries - bool(seen and not seen >> place & 1), 0)
            item.part, item.place = part, place
            self._wait(item)

    def _wait(self, item: Item) -> None:
        if self._goes_alone(item):
            self._suspects.add(item.offset)
        self.waiting.append(item)

    @property
    def ready(self) -> bool:
        """Whether the oldest that waits may be handed out now."""
        if not self.waiting or self._alone is not None:
            return False
        item = self.waiting[0]
        if self._goes_alone(item):
            return not self.in_hand and self._reach == item.offset + 1
        return item.offset < self._reach

    def take(self) -> Item:
        """Hand out the oldest that waits, which is `ready`."""
        item = self.waiting.popleft()
        if self._goes_alone(item):
            self._alone = item.offset
        item.in_hand = True
        item.deliveries += 1
        self.in_hand += 1
        self._open[item.offset].taken(item)
        self._handed_to = item.offset + 1
        self._taken_to = max(self._taken_to, self._handed_to)
        return item

    def done(self, item: Item) -> None:
        """An item in hand is acknowledged."""
        record = self._open[item.offset]
        self._not_in_hand(item, record)
        record.left -= 1
        record.gone |= 1 << item.place
        if not record.left:
            del self._open[item.offset]
            self._suspects.discard(item.offset)

    def split(self, pack: Pack) -> None:
        """The messages of a pack are published again one by one."""
        self.to_split.remove(pack)
        del self._open[pack.record.offset]

    def put_back(self, items: Iterable[Item]) -> None:
        """Items in hand wait in their old places again."""
        back = list(items)
        for item in back:
            self._not_in_hand(item, self._open[item.offset])
            if self._goes_alone(item):
                self._suspects.add(item.offset)
        self.waiting = deque(sorted(chain(back, self.waiting), key=_place))

    def _not_in_hand(self, item: Item, record: OpenRecord) -> None:
        item.in_hand = False
        self.in_hand -= 1
        record.in_hand -= 1
        if self._alone == item.offset:
            self._alone = None

    def _goes_alone(self, item: Item) -> bool:
        if self._limit is None:
            return False
        return item.deaths >= _SUSPECT or 0 < item.deliveries >= self._limit - 1

    # commits

    @property
    def wants_commit(self) -> bool:
        """Whether something waits that can only be handed out, or soon, after a commit."""
        return self._limit is not None and bool(self.waiting) and self._next_reach() != self._reach

    def progress(self, *, parting: bool = False) -> tuple[int, str] | None:
        """What to commit: the offset up to which all is acknowledged, and the note. None while nothing is known."""
        if self.next_offset is None:
            return None
        done: list[tuple[int, int]] = []
        deliveries: list[tuple[int, int]] = []
        deaths: list[tuple[int, int]] = []
        parts: dict[int, tuple[int, int]] = {}
        taken_to = min(self._taken_to, self.next_offset)
        behind: int | None = None
        for offset, record in self._open.items():
            if offset >= taken_to:
                break
            if behind is not None and behind < offset:
                done.append((behind, offset))
            behind = offset + 1
            # should we die, that will be counted for all within our reach
            deliveries.append((offset, record.deliveries - bool(record.in_hand and not parting)))
            deaths.append((offset, record.deaths))
            if record.is_mixed:
                parts[offset] = record.gone, record.seen
        if behind is not None and behind < taken_to:
            done.append((behind, taken_to))
        # what the note of our predecessor tells of records that have not come here yet
        done += [(max(start, self.next_offset), stop) for start, stop in self._note.done if stop > self.next_offset]
        note = Note(
            tuple(done),
            counted(deliveries) + from_offset(self._note.deliveries, self.next_offset),
            counted(deaths) + from_offset(self._note.deaths, self.next_offset),
            parts | {at: bits for at, bits in self._note.parts.items() if at >= self.next_offset},
            None if parting or self._limit is None else self._next_reach(),
        )
        watermark = next(iter(self._open), self.next_offset)
        return watermark, note.write(watermark)

    def _next_reach(self) -> int:
        """What the next commit should say: as before, as long as that lasts."""
        if self._alone is not None:
            return self._alone + 1
        wall = self._next_suspect()
        if self.waiting and self.waiting[0].offset == wall and not self.in_hand:
            return int(wall) + 1
        if min(wall, self._ahead(_AHEAD // 2, _AHEAD_UNREAD // 2)) <= self._reach <= wall:
            return int(self._reach)
        return max(self._handed_to, int(min(wall, self._ahead(_AHEAD, _AHEAD_UNREAD))))

    def _next_suspect(self) -> float:
        found: float = min(self._suspects, default=inf)
        start = self.next_offset or 0
        for counts, least in ((self._note.deaths, _SUSPECT), (self._note.deliveries, max(1, (self._limit or 0) - 1))):
            unread = (max(first, start) for first, stop, count in counts if count >= least and stop > start)
            found = min(found, next(unread, inf))
        return found

    def _ahead(self, read: int, unread: int) -> int:
        """Behind so many of those that wait, or will come."""
        return self.waiting[read - 1].offset + 1 if len(self.waiting) >= read else (self.next_offset or 0) + unread


def _place(item: Item) -> tuple[int, int]:
    return item.offset, item.place
