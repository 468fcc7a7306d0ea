"""Packs in any broker: which messages of a call go together, and what of a pack is still open at its consumer.

A pack holds several envelopes and costs the broker as much as one message. It goes only where its consumers are known
to read packs. A consumer hands its envelopes out one by one, and acknowledges the pack when none of them is open any
more. A pack that comes a second time is split before anything of it is handled: its envelopes are published again as
single messages, with the same ids, and then the pack is acknowledged. So an envelope that kills its consumer takes the
others along once, and no more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Final

from amends.contracts import Envelope
from amends.contracts.packs import Unpacked, is_pack, read_pack

FEWEST: Final = 4
"""Fewer envelopes to one destination go as single messages: at low load a consumer shares the work by the message, and
loses no more than one when it dies."""

MOST: Final = 32
"""In one pack. Larger ones gain little, and what a killed consumer had in hand is handled again by the pack."""

MOST_BYTES: Final = 256 * 1024
"""Of one pack, about: well below what brokers take in one message (1 MiB in Kafka)."""

SPLIT: Final = "amends-split"
"""Header of a message that was split off a pack: how often the pack had been handed out, as decimal digits."""

UNREADABLE_TYPE: Final = "application/cloudevents+json"
"""Content type of a message that was split off a pack and cannot be read: its body is one JSON event."""

_ATTRIBUTES: Final = 700
"""About the bytes that an envelope takes beside its data."""


def grouped(destinations: Sequence[Hashable | None], envelopes: Sequence[Envelope]) -> list[list[int]]:
    """The numbers of the envelopes that go together in one message, each group in the order of the call.

    `destinations` says for each envelope where it goes, None when it must go alone. Envelopes to one destination keep
    their order over all its groups; a group of one is no pack.
    """
    if len(envelopes) < FEWEST:
        return [[number] for number in range(len(envelopes))]
    groups: list[list[int]] = []
    together: dict[Hashable, list[int]] = {}
    for number, destination in enumerate(destinations):
        if destination is None:
            groups.append([number])
        else:
            together.setdefault(destination, []).append(number)
    for numbers in together.values():
        if len(numbers) < FEWEST:
            groups += [[number] for number in numbers]
        else:
            groups += _packs(numbers, envelopes)
    return groups


def _packs(numbers: Sequence[int], envelopes: Sequence[Envelope]) -> Iterable[list[int]]:
    # of one size, so that no last one is a pack of one, which might go another way
    packs = -(-len(numbers) // MOST)
    size = -(-len(numbers) // packs)
    pack: list[int] = []
    volume = 0
    for number in numbers:
        bytes_ = _ATTRIBUTES + len(envelopes[number].data) * 4 // 3
        if pack and (len(pack) == size or volume + bytes_ > MOST_BYTES):
            yield pack
            pack, volume = [], 0
        pack.append(number)
        volume += bytes_
    yield pack


def parts_of(content_type: str | None, body: bytes) -> list[Unpacked] | None:
    """What is in a message that is a pack, never empty; None when it is a single one.

    A body that is no pack at all, or an empty one, gives one part that cannot be read: the whole body.
    """
    if not is_pack(content_type):
        return None
    try:
        parts = read_pack(body)
    except ValueError as error:
        return [Unpacked(None, body, f"a pack cannot be read: {error}")]
    return parts or [Unpacked(None, body, "a pack without messages")]


class OpenPack:
    """A pack in the hands of a consumer. Its parts are named by their place in it, from 0."""

    __slots__ = ("_open", "parts")

    def __init__(self, parts: Sequence[Unpacked]) -> None:
        self.parts = parts
        self._open = dict.fromkeys(range(len(parts)))

    def settle(self, part: int) -> bool:
        """This one is acknowledged or among the dead letters. Says whether nothing is open any more."""
        self._open.pop(part, None)
        return not self._open

    @property
    def touched(self) -> bool:
        """Whether some of it is settled: given back as a whole, that would come again."""
        return len(self._open) < len(self.parts)

    @property
    def left(self) -> list[Unpacked]:
        """What is still open, in its order."""
        return [self.parts[part] for part in self._open]
