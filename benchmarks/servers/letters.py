"""What a bare loop knows of a message: of which order it is, and where in its life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from amends.contracts import Envelope
from benchmarks.servers.recording import Recording

SHARDS, SERVICE, CLIENT = "shards", "service", "client"
BOXES: Final = (SHARDS, SERVICE, CLIENT)
SHARD_COUNT: Final = 8
"""As many as amends has by default."""
BATCH: Final = 256
"""How many messages a loop takes at a time."""
PACK: Final = 32
"""How many go into one message, where they are packed."""


class Letter(NamedTuple):
    """`watched`: somebody waits for the end of the order."""

    number: int
    place: int
    watched: bool

    @property
    def mark(self) -> str:
        """What it is known by on the way, of the same length for all."""
        return f"{self.number:06d}{self.place:02d}{self.watched:d}"

    @classmethod
    def read(cls, mark: str) -> Letter:
        return cls(int(mark[:6]), int(mark[6:8]), mark[8] == "1")

    @property
    def shard(self) -> int:
        return self.number % SHARD_COUNT


BLANK: Final = Letter(0, 0, False)
"""The order in whose words everything is recorded."""

Sendings: TypeAlias = Sequence[tuple[str, Letter]]
"""Letters, and the box that each is for."""


class Post(Protocol):
    """Carries letters. `receive` waits for up to about 256; its token acknowledges them, once those before are."""

    async def publish(self, sendings: Sendings) -> None: ...
    async def receive(self) -> tuple[Sequence[Letter], Any]: ...
    async def ack(self, token: Any) -> None: ...
    async def close(self) -> None: ...


def envelope_of(recording: Recording, box: str, letter: Letter) -> Envelope:
    """What the letter says, in the words of order 0."""
    life = recording.of(letter.number)
    match box:
        case "shards":
            return life.arrivals[letter.place]
        case "service":
            return life.commands[letter.place]
        case _:
            return life.end


def alike(recording: Recording, letter: Letter) -> tuple[bool, int]:
    """Letters that say the same but for the order's id."""
    return recording.of(letter.number) is recording.refused, letter.place
