"""The note beside a committed offset: what is acknowledged beyond it. Kafka keeps it as the commit's metadata."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

_LONGEST: Final = 4000
"""Kafka takes 4,096 bytes unless it is told otherwise."""
_FORM: Final = re.compile(r"amends1;((?:\d+-\d+,?)*);((?:\d+:\d+,?)*)")


class Note(Struct, frozen=True):
    """`done` are ranges of acknowledged offsets, each without its end; `deliveries` how often others were handed out.

    Written as `amends1;2-5,9-10;0:1`, counted from the committed offset. What does not fit any more is left out, from
    the end: those records are delivered again, as after a crash.
    """

    done: tuple[tuple[int, int], ...] = ()
    deliveries: Mapping[int, int] = {}

    @property
    def end(self) -> int:
        """Behind the last offset that it tells of."""
        return max(self.done[-1][1] if self.done else 0, max(self.deliveries, default=-1) + 1)

    def __contains__(self, offset: int) -> bool:
        """Whether this one is acknowledged."""
        place = bisect_right(self.done, offset, key=_start) - 1
        return place >= 0 and offset < self.done[place][1]

    def write(self, watermark: int) -> str:
        """As text; empty when there is nothing to tell."""
        if not self.done and not self.deliveries:
            return ""
        ranges = [f"{start - watermark}-{stop - watermark}" for start, stop in self.done]
        counts = [f"{offset - watermark}:{count}" for offset, count in self.deliveries.items()]
        first = _fitting(ranges, _LONGEST)
        return f"amends1;{first};{_fitting(counts, _LONGEST - len(first))}"

    @classmethod
    def read(cls, watermark: int, text: str) -> Note:
        """Read it back; anything else is an empty note."""
        found = _FORM.fullmatch(text)
        if found is None:
            return cls()
        ranges = [part.split("-") for part in found[1].split(",") if part]
        counts = [part.split(":") for part in found[2].split(",") if part]
        return cls(
            tuple((watermark + int(start), watermark + int(stop)) for start, stop in ranges),
            {watermark + int(offset): int(count) for offset, count in counts},
        )


def _start(run: tuple[int, int]) -> int:
    return run[0]


def _fitting(parts: list[str], room: int) -> str:
    text = ",".join(parts)
    return text if len(text) <= room else text[:room].rpartition(",")[0]
