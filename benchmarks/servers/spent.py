"""What processes have spent, as Linux tells it in /proc. Elsewhere nothing is known, and all of it is 0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# places behind the name of the program in /proc/PID/stat: parent, and both kinds of time, own and of ended children
_PARENT, _TIMES = 1, slice(11, 15)


def cpu_s(pid: int) -> float:
    """The processor seconds of a process and of all that it has started."""
    return sum(sum(map(int, fields[_TIMES])) for _, fields in _family(pid)) / _TICKS


def bytes_written(pid: int) -> int:
    """What a process and those it has started have sent to the disk, or will, when the system writes its buffers."""
    total = 0
    for process, _ in _family(pid):
        try:
            told = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
        except OSError:
            continue
        total += int(told["write_bytes"])
    return total


def _family(pid: int) -> Iterator[tuple[Path, list[str]]]:
    children: dict[int, list[int]] = {}
    known: dict[int, list[str]] = {}
    for process in _PROC.glob("[0-9]*"):
        try:
            # the name is in parentheses, and may hold anything
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        known[int(process.name)] = fields
        children.setdefault(int(fields[_PARENT]), []).append(int(process.name))
    left = [pid]
    while left:
        one = left.pop()
        left += children.get(one, [])
        if one in known:
            yield _PROC / str(one), known[one]
