"""The note beside a committed offset: what Kafka does not remember of the records behind it, kept as the commit's
metadata."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from msgspec import Struct

_LONGEST: Final = 4000
"""Kafka takes 4,096 bytes unless it is told otherwise."""
_FORM: Final = re.compile(
    r"amends2;((?:\d+-\d+,?)*);((?:\d+-\d+:\d+,?)*);((?:\d+-\d+:\d+,?)*);((?:\d+:[\da-f]+:[\da-f]+,?)*);(\d*)"
)

Ranges = tuple[tuple[int, int], ...]
"""Offsets, each range without its end."""
Counts = tuple[tuple[int, int, int], ...]
"""Ranges of offsets with a number that is more than 0, in order, none overlapping."""


class Note(Struct, frozen=True):
    """What is known of the records from the committed offset on.

    `done` are acknowledged; `deliveries` says how often others were handed out, `deaths` how many consumers died that
    may have had them in hand. `reach` is there while a consumer is at work: below it, anything may be in its hands.
    Whoever finds it there knows that the one before died.

    `parts` tells of packs that are acknowledged in part: which parts are, as bits, and which of the others were handed
    out as often as `deliveries` says (the rest once less; no bits: all of them).

    Written as `amends2;2-5,9-10;0-1:1;;0:f:10;64`, counted from the committed offset. What does not fit any more is
    left out, from the end: those records are delivered again, as after a crash.
    """

    done: Ranges = ()
    deliveries: Counts = ()
    deaths: Counts = ()
    parts: Mapping[int, tuple[int, int]] = {}
    reach: int | None = None

    @property
    def end(self) -> int:
        """Behind the last offset that it tells of."""
        return max((ranges[-1][1] for ranges in (self.done, self.deliveries, self.deaths) if ranges), default=0)

    def __contains__(self, offset: int) -> bool:
        """Whether this one is acknowledged."""
        place = bisect_right(self.done, offset, key=_start) - 1
        return place >= 0 and offset < self.done[place][1]

    def write(self, watermark: int) -> str:
        """As text; empty when there is nothing to tell."""
        if self == _EMPTY:
            return ""
        reach = "" if self.reach is None else str(self.reach - watermark)
        done = _fitting([f"{start - watermark}-{stop - watermark}" for start, stop in self.done], _LONGEST)
        room = _LONGEST - len(done)
        deaths = _fitting(_counts_text(self.deaths, watermark), room // 3)
        parts = _fitting([f"{at - watermark}:{gone:x}:{seen:x}" for at, (gone, seen) in self.parts.items()], room // 3)
        deliveries = _fitting(_counts_text(self.deliveries, watermark), room - len(deaths) - len(parts))
        return f"amends2;{done};{deliveries};{deaths};{parts};{reach}"

    @classmethod
    def read(cls, watermark: int, text: str) -> Note:
        """Read it back; anything else is an empty note."""
        found = _FORM.fullmatch(text)
        if found is None:
            return _EMPTY
        return cls(
            tuple(
                (watermark + int(start), watermark + int(stop)) for start, stop in _split(found[1].replace("-", ":"))
            ),
            _read_counts(found[2], watermark),
            _read_counts(found[3], watermark),
            {watermark + int(at): (int(gone, 16), int(seen, 16)) for at, gone, seen in _split(found[4])},
            watermark + int(found[5]) if found[5] else None,
        )

    def inherited(self, watermark: int, end: int) -> Note:
        """As whoever comes next has to take it: what was within the reach of a dead consumer was perhaps handed out.

        What comes from `end` on was not there yet.
        """
        if self.reach is None:
            return self
        suspects = (watermark, max(watermark, min(self.reach, end)))
        return Note(self.done, _one_more(self.deliveries, *suspects), _one_more(self.deaths, *suspects), self.parts)


_EMPTY: Final = Note()


def reach_in(watermark: int, text: str) -> int | None:
    """The reach alone of a note that was written here."""
    last = text.rpartition(";")[2]
    return watermark + int(last) if last else None


def count_at(counts: Counts, offset: int) -> int:
    """The number of one offset."""
    place = bisect_right(counts, offset, key=_start) - 1
    return counts[place][2] if place >= 0 and offset < counts[place][1] else 0


def from_offset(counts: Counts, offset: int) -> Counts:
    """What they tell of this offset and those behind it."""
    return tuple((max(start, offset), stop, count) for start, stop, count in counts if stop > offset)


def counted(numbers: Iterable[tuple[int, int]]) -> Counts:
    """From offsets in order, with their numbers. Offsets left out belong to whatever surrounds them."""
    found: list[tuple[int, int, int]] = []
    last = 0
    for offset, number in numbers:
        if number and number == last:
            found[-1] = (found[-1][0], offset + 1, number)
        elif number:
            found.append((offset, offset + 1, number))
        last = number
    return tuple(found)


def _one_more(counts: Counts, start: int, stop: int) -> Counts:
    """Each number from `start` to `stop` is larger by one."""
    cuts = sorted({start, stop, *(cut for one in counts for cut in one[:2])})
    found: list[tuple[int, int, int]] = []
    for left, right in pairwise(cuts):
        number = count_at(counts, left) + (start <= left < stop)
        if number and found and found[-1][1:] == (left, number):
            found[-1] = (found[-1][0], right, number)
        elif number:
            found.append((left, right, number))
    return tuple(found)


def _start(run: tuple[int, ...]) -> int:
    return run[0]


def _counts_text(counts: Counts, watermark: int) -> list[str]:
    return [f"{start - watermark}-{stop - watermark}:{count}" for start, stop, count in counts]


def _read_counts(text: str, watermark: int) -> Counts:
    parts = _split(text.replace("-", ":"))
    return tuple((watermark + int(start), watermark + int(stop), int(count)) for start, stop, count in parts)


def _split(text: str) -> list[list[str]]:
    return [part.split(":") for part in text.split(",") if part]


def _fitting(parts: list[str], room: int) -> str:
    text = ",".join(parts)
    return text if len(text) <= room else text[:room].rpartition(",")[0]
