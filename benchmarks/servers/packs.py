"""Packs of letters, put together from what was encoded beforehand."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from amends.contracts.packs import write_pack
from benchmarks.servers.letters import BLANK, Letter, alike, envelope_of
from benchmarks.servers.recording import Recording, names

ID: Final = names(0)[0]
MARK: Final = b"#" * len(BLANK.mark)
"""Stands where the mark of a letter will be."""


class _Stamp(msgspec.Struct):
    """What is read of a message in a pack."""

    id: str


_read_stamps = msgspec.json.Decoder(list[_Stamp]).decode
_blanks: dict[tuple[str, bool, int], bytes] = {}


def event_of(recording: Recording, box: str, letter: Letter) -> bytes:
    """A letter as it stands in a pack."""
    key = (box, *alike(recording, letter))
    blank = _blanks.get(key)
    if blank is None:
        envelope = replace(envelope_of(recording, box, letter), id=MARK.decode())
        blank = _blanks[key] = write_pack([envelope])[1:-1]
    return filled(blank, letter)


def pack_of(events: list[bytes]) -> bytes:
    return b"[" + b",".join(events) + b"]"


def read_pack(body: bytes) -> list[Letter]:
    return [Letter.read(stamp.id) for stamp in _read_stamps(body)]


def filled(blank: bytes, letter: Letter) -> bytes:
    """What was encoded for order 0, for another one."""
    return blank.replace(MARK, letter.mark.encode()).replace(ID, names(letter.number)[0])
