"""Names on the wire and in storage: tags, slots, keys and addresses. All of them are fixed for ever."""

import re
from functools import lru_cache
from typing import Final
from zlib import crc32

from msgspec import Struct

from amends.contracts.errors import InvalidIdError

SLOTS: Final = 1024
"""How many virtual slots saga ids hash to. Part of every storage key and reply address."""

_WIRE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def kebab(name: str) -> str:
    """`ReserveStock` -> `reserve-stock`."""
    return _WORD_BREAK.sub("-", name).lower()


def is_wire_name(name: object) -> bool:
    """Whether this can be (part of) a name on the wire: ASCII letters, digits and `. _ -`, as queues and topics are."""
    return isinstance(name, str) and _WIRE_NAME.fullmatch(name) is not None


def check_saga_id(saga_id: str) -> str:
    """Return `saga_id`, or raise `InvalidIdError`."""
    if not saga_id:
        raise InvalidIdError(saga_id, "is empty")
    if len(saga_id) > 200:
        raise InvalidIdError(saga_id, f"has {len(saga_id)} characters")
    if not saga_id.isprintable():
        raise InvalidIdError(saga_id, "holds a character that cannot be printed")
    return saga_id


@lru_cache(32_768)
def slot_of(saga_id: str) -> int:
    """The virtual slot of a saga: CRC-32 of its UTF-8 bytes, modulo 1,024."""
    return crc32(saga_id.encode()) % SLOTS


class EffectKey(Struct, frozen=True, gc=False):
    """What happens at most once: one visit of one step (of one item) in one incarnation of one saga.

    Written `id~incarnation/step#visit` with `/item` behind it for a `for_each` step. A *command key* is an
    effect key with `@revision`: one wording of the effect.
    """

    saga_id: str
    incarnation: str
    step: str
    visit: int = 0
    item: int | None = None

    @property
    def run(self) -> str:
        """The part behind the incarnation: the name of the step run inside its saga."""
        return run_key(self.step, self.visit, self.item)

    def __str__(self) -> str:
        return f"{self.saga_id}~{self.incarnation}/{self.run}"

    @classmethod
    def parse(cls, text: str) -> "EffectKey":
        """Read an effect key back. Raises `ValueError` when it is none."""
        saga_id, tilde, rest = text.rpartition("~")
        parts = rest.split("/")
        if not tilde or len(parts) not in (2, 3):
            raise ValueError(f"{text!r} is no effect key (id~incarnation/step#visit)")
        step, _, visit = parts[1].partition("#")
        return cls(saga_id, parts[0], step, int(visit), int(parts[2]) if len(parts) == 3 else None)


def run_key(step: str, visit: int = 0, item: int | None = None) -> str:
    """`charge#0`, or `pick#0/3` for the fourth item of a `for_each` step."""
    return f"{step}#{visit}" if item is None else f"{step}#{visit}/{item}"


def command_key(effect_key: str, revision: int) -> str:
    """One wording of an effect: its key and the revision."""
    return f"{effect_key}@{revision}"


def service_address(service: str) -> str:
    """Where the commands of a service go: competing consumers, one of them gets each message."""
    return f"service:{service}"


def slot_address(slot: int) -> str:
    """Where replies, timers and words for the sagas of a slot go. The broker maps slots to shards."""
    return f"slot:{slot:04d}"


def client_address(client: str) -> str:
    """A private address of one connected client; it vanishes with the client."""
    return f"client:{client}"


def topic_address(event_type: str) -> str:
    """Where an event is published: every subscriber of the type gets a copy."""
    return f"event:{event_type}"


_REPLY_ADDRESS = re.compile(r"(?:service|client):.+|slot:(\d{4})")


def is_reply_address(text: str) -> bool:
    """Whether an answer can be sent to this: a service, a client or a slot. A foreign sender may name anything."""
    found = _REPLY_ADDRESS.fullmatch(text)
    return found is not None and int(found[1] or 0) < SLOTS
