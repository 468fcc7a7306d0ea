"""Where everything is. Fixed for ever, as sagas live longer than releases.

A *place* is keys that live together and begin alike: `amends:{s0413}:` for virtual slot 413. Redis Cluster keeps all
keys with the same `{…}` on one server, so that one script may change them as one step. In the place of a slot are

| key | type | what |
|---|---|---|
| `saga:ID` | list | head and snapshot, start, interests, then the journal's records; once purged: nothing, start |
| `timers`, `timers:leases` | sorted sets | ids by due time; by the end of their lease |
| `outbox` | hash | the messages of a commit, by id, incarnation and version |
| `sending`, `sending:leases` | sorted sets | entries of the outbox by the time of their commit; by lease |
| `index` | sorted set | `NAME:FACETS:START:ID` of every saga, in the order of these texts |
| `kinds` | hash | how many sagas there are of each `NAME:FACETS` |
| `keys` | sorted set | `NAME:"VALUE":START:ID` of every business key of every saga |
| `ids` | sorted set | all ids, in their order, for finding them by their beginning |
| `ended`, `ledger` | sorted sets | ids of ended sagas, and of purged ones, by their end |

Lists read these indexes of all slots and merge them: they change in the same step as the saga, so there is nothing
that could lag behind or need repair, and a commit touches one server. One saga is one list because small lists are what
Redis packs best.

Events do not know the slots of those who wait for them, so their index has places by event type (`amends:{e:TYPE}:`),
on other servers. It may say too much, never too little: see `interests`. Messages put aside are in `amends:{p:NAME}:`;
the names for which there ever were some are the set `amends:{map}:parked`. Counts of handlings that were begun are in
strings `amends:{h:MESSAGE}`, which expire.

Times are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from amends.contracts import slot_of
from amends.contracts.names import SLOTS
from amends.coordinator.store import LedgerEntry, OutboxKey
from amends.coordinator.stores.times import micros, moment

_END: Final = "\n"
"""Ends a word in a text of several. No id holds it, as it cannot be printed."""


class Place(Struct, frozen=True, gc=False):
    """The keys of one virtual slot that all its sagas share."""

    prefix: str
    timers: str
    timer_leases: str
    outbox: str
    sending: str
    sending_leases: str
    index: str
    kinds: str
    keys: str
    ids: str
    ended: str
    ledger: str
    beat: str

    @classmethod
    def of(cls, prefix: str) -> Place:
        names = ("timers", "timers:leases", "outbox", "sending", "sending:leases", "index", "kinds", "keys", "ids")
        return cls(prefix, *(prefix + name for name in (*names, "ended", "ledger", "beat")))

    def saga(self, saga_id: str) -> str:
        return f"{self.prefix}saga:{saga_id}"


class Keys:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.shard_map = f"{namespace}:{{map}}:shards"
        self.parked_names = f"{namespace}:{{map}}:parked"
        self.places = [Place.of(f"{namespace}:{{s{slot:04}}}:") for slot in range(SLOTS)]
        self._namespace = namespace

    def place(self, saga_id: str) -> Place:
        return self.places[slot_of(saga_id)]

    def saga(self, saga_id: str) -> str:
        return self.place(saga_id).saga(saga_id)

    def tag(self, saga_id: str) -> str:
        """What keys of one script call have in common in a cluster."""
        return self.place(saga_id).prefix

    def handlings(self, message: str) -> str:
        """How often the handling of a message was begun."""
        return f"{self._namespace}:{{h:{message}}}"

    def events(self, event_type: str) -> str:
        """The beginning of the keys of an event type."""
        return f"{self._namespace}:{{e:{event_type}}}:"

    def parked(self, saga: str) -> tuple[str, str, str]:
        """Messages, order and count of what is put aside for a saga's name."""
        prefix = f"{self._namespace}:{{p:{saga}}}:"
        return f"{prefix}messages", f"{prefix}order", f"{prefix}count"


def facets_text(facets: int) -> str:
    """Facets in names of kinds and in heads."""
    return f"{facets:02}"


class Head(Struct, frozen=True, gc=False):
    """How a saga stands: the beginning of the first element of its list. The snapshot follows."""

    incarnation: str
    version: int
    commit_id: str
    facets: int
    wake_at: int | None
    definition_version: int
    updated_at: int
    keys: str

    def before(self, body: bytes) -> bytes:
        """The element: this, and the snapshot."""
        wake_at = "" if self.wake_at is None else self.wake_at
        text = (
            f"{self.incarnation}\n{self.version}\n{self.commit_id}\n{facets_text(self.facets)}\n{wake_at}\n"
            f"{self.definition_version}\n{self.updated_at}\n{self.keys}\n"
        )
        return text.encode() + body

    @classmethod
    def read(cls, element: bytes) -> tuple[Head, bytes]:
        """The head, and the bytes of the snapshot. Raises `ValueError`."""
        incarnation, version, commit_id, facets, wake_at, definition, updated_at, keys, body = element.split(b"\n", 8)
        due = int(wake_at) if wake_at else None
        numbers = int(facets), due, int(definition), int(updated_at)
        return cls(incarnation.decode(), int(version), commit_id.decode(), *numbers, keys.decode()), body


def expected(incarnation: str, version: int, commit_id: str) -> str:
    """How the head of a predecessor begins."""
    return _END.join((incarnation, str(version), commit_id, ""))


def key_text(name: str, value: str) -> str:
    """A business key in its index and in heads. The value is quoted, so that none is the beginning of another."""
    return f"{name}:{msgspec.json.encode(value).decode()}"


def keys_text(keys: Mapping[str, str]) -> str:
    """Business keys in heads. No value holds the character between them, as JSON escapes it."""
    return "\t".join(key_text(name, value) for name, value in keys.items())


def read_keys(text: str) -> dict[str, str]:
    """What `keys_text` was made of. Raises `msgspec.DecodeError`."""
    split = (key.partition(":") for key in text.split("\t") if key)
    return {name: msgspec.json.decode(value, type=str) for name, _, value in split}


def started_text(moment: datetime) -> str:
    """The time of a start in indexes, where it is in order."""
    return f"{micros(moment):015x}"


def start_text(saga: str, start: LedgerEntry) -> str:
    """The second element: what never changes, and outlives the rest."""
    return _END.join((saga, started_text(start.started_at), start.incarnation, start.input_hash))


def read_start(text: bytes) -> tuple[str, LedgerEntry]:
    """The saga's name and its ledger entry. Raises `ValueError`."""
    saga, started_at, incarnation, input_hash = text.decode().split(_END, 3)
    return saga, LedgerEntry(incarnation, input_hash, moment(int(started_at, 16)))


def outbox_field(saga_id: str, incarnation: str, version: int) -> str:
    return _END.join((saga_id, incarnation, str(version)))


def read_outbox_field(text: str) -> OutboxKey:
    saga_id, incarnation, version = text.split(_END)
    return OutboxKey(saga_id, incarnation, int(version))
