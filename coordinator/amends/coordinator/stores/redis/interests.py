"""Who waits for an event: an index that may say too much, and never too little.

An event knows its type and its fields, but not the sagas, so it looks up entries by those, on another server than the
sagas'. Entries are added before the commit that they belong to and name it; those of the commit before are removed
after it. So whoever finds an entry, of whichever commit, asks the saga itself what it waits for now: the index may have
moved on since it was read. A crash in between leaves entries that nobody believes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from amends.brokers.redis_link import Call, RedisLink, command
from amends.coordinator.store import Commit, Interest
from amends.coordinator.stores.redis import scripts
from amends.coordinator.stores.redis.keys import Keys

_PACK: Final = msgspec.msgpack.Encoder()
_REMEMBERED: Final = 10_000
_MOST: Final = 64


class Watch(Struct, frozen=True, array_like=True):
    """What a saga waits for since the commit `token`, as its list has it: event type, names and digests of values."""

    token: str
    entries: tuple[tuple[str, str, bytes], ...]

    @classmethod
    def of(cls, commit_id: str, interests: Sequence[Interest]) -> Watch:
        return cls(commit_id, tuple(dict.fromkeys(_entry(interest) for interest in interests)))


_UNPACK: Final = msgspec.msgpack.Decoder(Watch)


def read_watch(data: bytes) -> Watch:
    """Raises `msgspec.MsgspecError`."""
    return _UNPACK.decode(data) if data else Watch("", ())


def _entry(interest: Interest) -> tuple[str, str, bytes]:
    names = msgspec.json.encode([name for name, _ in interest.where]).decode()
    return interest.event_type, names, b"".join(_digest(value) for _, value in interest.where)


def _digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=16).digest()


class Interests:
    """Keeps the index in step with the commits of one store."""

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link, self._keys = link, keys
        # most commits of a saga repeat its interests: then there is nothing to do. Valid as long as the commit is the
        # saga's last one, which its successor proves by naming it as predecessor
        self._known: OrderedDict[str, tuple[str, tuple[Interest, ...]]] = OrderedDict()

    def change(self, commit: Commit) -> Watch | None:
        """What a commit makes of the interests; None when it leaves them as they are."""
        if commit.interests is None:
            return None
        known = self._known.get(commit.snapshot.id)
        before = commit.predecessor
        if known is not None and before is not None and known == (before.commit_id, commit.interests):
            return None
        return Watch.of(commit.snapshot.commit_id, commit.interests)

    def remember(self, commit: Commit) -> None:
        """This commit is stored."""
        saga_id, commit_id = commit.snapshot.id, commit.snapshot.commit_id
        known = self._known.pop(saga_id, None)
        interests = commit.interests
        if interests is None and known is not None and commit.predecessor and known[0] == commit.predecessor.commit_id:
            interests = known[1]
        if interests is not None and not commit.snapshot.phase.ended:
            self._known[saga_id] = (commit_id, interests)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def word(self, watch: Watch | None) -> bytes | str:
        """What the script is told: `=` leaves the interests alone."""
        if watch is None:
            return "="
        return _PACK.encode(watch) if watch.entries else b""

    def add(self, saga_id: str, watch: Watch) -> Iterator[Call]:
        for event_type, names, digests in watch.entries:
            place = self._keys.events(event_type)
            yield command(place, "SADD", f"{place}names", names)
            yield command(place, "SADD", _key(place, names, digests), f"{saga_id}\n{watch.token}")

    def remove(self, saga_id: str, watch: Watch) -> Iterator[Call]:
        for event_type, names, digests in watch.entries:
            place = self._keys.events(event_type)
            yield command(place, "SREM", _key(place, names, digests), f"{saga_id}\n{watch.token}")

    async def waiting(self, event_type: str, fields: dict[str, bytes]) -> list[str]:
        """The ids of sagas that wait for such an event, in order."""
        place = self._keys.events(event_type)
        (known,) = await self._link.run([command(place, "SMEMBERS", f"{place}names")])
        digests = {name: _digest(value) for name, value in fields.items()}
        wanted: set[tuple[str, str, bytes]] = set()
        for names in known:
            those = msgspec.json.decode(names, type=list[str])
            if all(name in digests for name in those):
                wanted.add((event_type, names.decode(), b"".join(digests[name] for name in those)))
        asked = [command(place, "SMEMBERS", _key(place, names, values)) for _, names, values in wanted]
        found = await self._link.run(asked)
        saga_ids = sorted({entry.decode().partition("\n")[0] for entries in found for entry in entries})
        watches = await self._watches(saga_ids)
        return [saga_id for saga_id in saga_ids if not wanted.isdisjoint(watches[saga_id].entries)]

    async def _watches(self, saga_ids: Sequence[str]) -> dict[str, Watch]:
        """What each saga waits for now."""
        groups = list(self._link.together(saga_ids, self._keys.tag, _MOST))
        calls = [scripts.LOAD.call([self._keys.saga(id) for id in group], (2, 2)) for group in groups]
        return {
            saga_id: read_watch(elements[0] if elements else b"")
            for group, answer in zip(groups, await self._link.run(calls), strict=True)
            for saga_id, elements in zip(group, answer, strict=True)
        }


def _key(place: str, names: str, digests: bytes) -> bytes:
    return f"{place}where:{names}:".encode() + digests
