"""What processes have spent, as Linux tells it in /proc. Elsewhere nothing is known, and all of it is 0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# places behind the name of the program in /proc/PID/stat: session, and the two kinds of time, own and of ended children
_SESSION, _TIMES = 3, slice(11, 15)


def cpu_s(group: int) -> float:
    """The processor seconds of a session (`start_new_session=True`) and of what has ended in it."""
    return sum(sum(map(int, fields[_TIMES])) for _, fields in _members(group)) / _TICKS


def bytes_written(group: int) -> int:
    """What the processes of a session have sent to the disk, or will, when the system writes its buffers."""
    total = 0
    for process, _ in _members(group):
        try:
            told = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
        except OSError:
            continue
        total += int(told["write_bytes"])
    return total


def _members(group: int) -> Iterator[tuple[Path, list[str]]]:
    for process in _PROC.glob("[0-9]*"):
        try:
            # the name is in parentheses, and may hold anything
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[_SESSION]) == group:
            yield process, fields
