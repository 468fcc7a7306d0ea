"""The store that several machines share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final

import msgspec

from amends.brokers import Outgoing, ShardMap
from amends.brokers.handlings import HANDLINGS_KEPT
from amends.brokers.redis_link import Call, RedisLink, RedisUnavailable, ServerTime, command, read_url
from amends.contracts import Clock
from amends.coordinator.core.journal import JournalRecord, decode_record, encode_record
from amends.coordinator.store import (
    EVERYWHERE,
    Commit,
    CommitResult,
    DueSaga,
    LedgerEntry,
    OutboxEntry,
    OutboxKey,
    Parked,
    SagaQuery,
    SagaSummary,
    StoreCorrupt,
    Stored,
    StoreUnavailable,
)
from amends.coordinator.stores.checks import check_commits
from amends.coordinator.stores.facets import facets_of
from amends.coordinator.stores.redis import scripts
from amends.coordinator.stores.redis.bodies import decode_body, encode_body
from amends.coordinator.stores.redis.interests import Interests, Watch, read_watch
from amends.coordinator.stores.redis.keys import (
    Head,
    Keys,
    Place,
    expected,
    facets_text,
    keys_text,
    outbox_field,
    read_outbox_field,
    read_start,
    start_text,
)
from amends.coordinator.stores.redis.leasing import SENDING, TIMERS, Leasing
from amends.coordinator.stores.redis.listing import Listing
from amends.coordinator.stores.redis.merging import Bounds, Member, first_of
from amends.coordinator.stores.times import micros, moment

_PACK: Final = msgspec.msgpack.Encoder()
_MESSAGE: Final = msgspec.msgpack.Decoder(Outgoing)
_MESSAGES: Final = msgspec.msgpack.Decoder(tuple[Outgoing, ...])


_MOST: Final = 64
"""How many sagas one script call handles: Redis does nothing else meanwhile, for half a millisecond."""


class RedisStore:
    """A `SagaStore` in Redis 7.0 or later, or Valkey: one server, a Sentinel service or a cluster. `RedisStore.open`.

    What `commit` reported survives what Redis' own settings say: with `appendfsync always` a crash of the machine, with
    `everysec` all but about its last second; with `durability=replicated` in the URL, it is also on so many replicas.
    Store time is the server's; in a cluster the servers' clocks must agree (NTP), as leases are measured by that of
    the saga's own server.
    """

    def __init__(self, link: RedisLink, clock: Clock | None = None) -> None:
        self._link = link
        self._keys = Keys(link.url.namespace)
        self._time = ServerTime(link.time, clock)
        self._interests = Interests(link, self._keys)
        self._listing = Listing(link, self._keys)
        self._leasing = Leasing(link, self._time)
        self._closed = False

    @classmethod
    async def open(cls, url: str, clock: Clock | None = None) -> RedisStore:
        """Connect, and warn of settings that could lose sagas. The URL is described at `read_url`.

        Store time is the server's; tests give a `clock` instead. Raises `UsageError` and `StoreUnavailable`.
        """
        with _as_store_errors():
            return cls(await RedisLink.open(read_url(url)), clock)

    async def adopt(self, shard_map: ShardMap) -> None:
        key = self._keys.shard_map
        with _as_store_errors():
            _, found = await self._link.run(
                [command(key, "SET", key, msgspec.json.encode(shard_map), "NX"), command(key, "GET", key)],
                durable=True,
            )
        with self._corrupt(key, "the shard map"):
            stored = msgspec.json.decode(found, type=ShardMap)
        shard_map.check(stored, f"the Redis store at {self._link.where}")

    async def now(self) -> datetime:
        """Asks the server every few seconds and reckons in between, so it may answer while the server is away."""
        with _as_store_errors():
            return await self._time.now()

    async def ping(self) -> None:
        with _as_store_errors():
            await self._link.probe([place.beat for place in self._keys.places])

    async def load(self, saga_ids: Sequence[str]) -> Sequence[Stored]:
        wanted = list(dict.fromkeys(saga_ids))
        found: dict[str, Stored] = {}
        groups = list(self._link.together(wanted, self._keys.tag, _MOST))
        calls = [scripts.HYDRATE.call([self._keys.saga(id) for id in group], ()) for group in groups]
        with _as_store_errors():
            answers = await self._link.run(calls)
        for group, (epoch, *answer) in zip(groups, answers, strict=True):
            life = epoch.decode()
            found.update((id, self._stored(id, elements, life)) for id, elements in zip(group, answer, strict=True))
        return [found[saga_id] for saga_id in saga_ids]

    def _stored(self, saga_id: str, elements: list[bytes], epoch: str) -> Stored:
        if not elements:
            return Stored(None, None, epoch)
        with self._corrupt(self._keys.saga(saga_id), f"the saga {saga_id!r}"):
            saga, start = read_start(elements[1])
            if not elements[0]:
                return Stored(None, start, epoch)
            head, body = Head.read(elements[0])
            return Stored(decode_body(body, saga_id, saga, head), start, epoch)

    # commits

    async def commit(self, commits: Sequence[Commit], cleared: Sequence[OutboxKey] = ()) -> Sequence[CommitResult]:
        check_commits(commits)
        watches = {commit.snapshot.id: self._interests.change(commit) for commit in commits}
        added = [call for saga_id, watch in watches.items() if watch for call in self._interests.add(saga_id, watch)]
        groups = list(self._link.together(commits, lambda commit: self._keys.tag(commit.snapshot.id), _MOST))
        calls = [self._commit_call(group, watches) for group in groups]
        clearing = self._clear_calls(cleared)
        with _as_store_errors():
            await self._link.run(added, durable=True)
            answers = await self._link.run([*clearing, *calls], durable=bool(calls))
        results: dict[str, CommitResult] = {}
        obsolete: list[Call] = []
        for group, answer in zip(groups, answers[len(clearing) :], strict=True):
            for commit, code, interests in zip(group, answer[::2], answer[1::2], strict=True):
                saga_id = commit.snapshot.id
                results[saga_id] = CommitResult.COMMITTED if code else CommitResult.CONFLICT
                if code:
                    self._interests.remember(commit)
                    obsolete.extend(self._unwatch(saga_id, interests))
                elif (watch := watches[saga_id]) and self._watch(saga_id, interests).token != watch.token:
                    # had an earlier try of this commit been stored, and overtaken since, its interests would hold
                    obsolete.extend(self._interests.remove(saga_id, watch))
        await self._tidy(obsolete)
        return [results[commit.snapshot.id] for commit in commits]

    def _commit_call(self, commits: Sequence[Commit], watches: dict[str, Watch | None]) -> Call:
        keys: list[str] = []
        words: list[str | bytes | int] = [self._time.word()]
        for commit in commits:
            saga_id = commit.snapshot.id
            at = self._keys.place(saga_id)
            keys += (
                at.saga(saga_id),
                at.timers,
                at.timer_leases,
                at.outbox,
                at.sending,
                at.index,
                at.kinds,
                at.keys,
                at.ids,
                at.ended,
            )
            words += self._words(commit, watches[saga_id])
        return scripts.COMMIT.call(keys, words)

    def _words(self, commit: Commit, watch: Watch | None) -> tuple[str | bytes | int, ...]:
        """In the order of commit.lua."""
        snapshot, before = commit.snapshot, commit.predecessor
        facets, wake_at, keys = facets_of(snapshot), micros(snapshot.wake_at), keys_text(snapshot.keys)
        head = Head(
            snapshot.incarnation,
            snapshot.version,
            snapshot.commit_id,
            facets,
            wake_at,
            snapshot.definition_version,
            micros(commit.record.at),
            keys,
        )
        start = LedgerEntry(snapshot.incarnation, commit.input_hash, snapshot.started_at)
        sent = outbox_field(snapshot.id, snapshot.incarnation, snapshot.version) if commit.outbox else ""
        return (
            snapshot.id,
            "" if before is None else expected(before.incarnation, before.version, before.commit_id),
            snapshot.commit_id,
            head.before(encode_body(snapshot)),
            facets_text(facets),
            keys,
            "" if wake_at is None else wake_at,
            "" if snapshot.retained_from is None else micros(snapshot.retained_from),
            start_text(snapshot.saga, start),
            self._interests.word(watch),
            encode_record(commit.record),
            sent,
            _PACK.encode(commit.outbox) if commit.outbox else "",
        )

    def _clear_calls(self, cleared: Sequence[OutboxKey]) -> list[Call]:
        calls: list[Call] = []
        for group in self._link.together(cleared, lambda key: self._keys.tag(key.saga_id), _MOST):
            places = [self._keys.place(key.saga_id) for key in group]
            fields = [outbox_field(key.saga_id, key.incarnation, key.version) for key in group]
            calls.append(scripts.CLEAR.call([key for at in places for key in (at.outbox, at.sending)], fields))
        return calls

    def _watch(self, saga_id: str, data: bytes) -> Watch:
        with self._corrupt(self._keys.saga(saga_id), f"the interests of saga {saga_id!r}"):
            return read_watch(data)

    def _unwatch(self, saga_id: str, data: bytes) -> Iterator[Call]:
        if data:
            yield from self._interests.remove(saga_id, self._watch(saga_id, data))

    async def _tidy(self, obsolete: Sequence[Call]) -> None:
        with suppress(RedisUnavailable):  # what is left behind is believed by nobody
            await self._link.run(obsolete)

    # what is due

    async def due(self, slots: Sequence[range], limit: int, lease_s: float) -> Sequence[DueSaga]:
        due: list[DueSaga] = []
        with _as_store_errors():
            leased = await self._leasing.lease(TIMERS, self._places(slots), limit, lease_s)
        for member, element in leased:
            with self._corrupt(self._keys.saga(member.name), f"the head of saga {member.name!r}"):
                head, _ = Head.read(element)
            due.append(DueSaga(member.name, head.incarnation, moment(member.at)))
        return due

    async def next_due(self, slots: Sequence[range]) -> datetime | None:
        with _as_store_errors():
            return moment(await self._leasing.earliest(TIMERS, self._places(slots)))

    async def overdue_outbox(
        self, slots: Sequence[range], older_than_s: float, limit: int, lease_s: float
    ) -> Sequence[OutboxEntry]:
        entries: list[OutboxEntry] = []
        with _as_store_errors():
            places = self._places(slots)
            leased = await self._leasing.lease(SENDING, places, limit, lease_s, older_than_s)
        for member, messages in leased:
            key = read_outbox_field(member.name)
            with self._corrupt(member.place.outbox, f"a message of saga {key.saga_id!r}"):
                entries.append(OutboxEntry(key, _MESSAGES.decode(messages)))
        return entries

    def _places(self, slots: Sequence[range]) -> list[Place]:
        return [self._keys.places[slot] for span in slots for slot in span]

    # events and parked messages

    async def waiting(self, event_type: str, fields: dict[str, bytes]) -> Sequence[str]:
        with _as_store_errors(), self._corrupt(self._keys.events(event_type), "the interests of a saga"):
            return await self._interests.waiting(event_type, fields)

    async def park(self, parked: Sequence[Parked]) -> None:
        if not parked:
            return
        names = self._keys.parked_names
        calls: list[Call] = [command(names, "SADD", names, *sorted({one.saga for one in parked}))]
        for group in self._link.together(parked, lambda one: one.saga, _MOST):
            words: list[str | bytes | int] = []
            for one in group:
                words += (one.definition_version, one.key, _PACK.encode(one.message))
            calls.append(scripts.PARK.call([key for one in group for key in self._keys.parked(one.saga)], words))
        with _as_store_errors():
            await self._link.run(calls, durable=True)

    async def unpark(self, saga: str, definition_version: int, limit: int) -> Sequence[Parked]:
        messages, order, _ = self._keys.parked(saga)
        with _as_store_errors():
            (flat,) = await self._link.run([scripts.UNPARK.call([messages, order], (definition_version, limit))])
        found: list[Parked] = []
        for name, value in zip(flat[::2], flat[1::2], strict=True):
            key = name.decode()
            with self._corrupt(messages, f"the message {key!r} to a saga {saga!r}"):
                message = _MESSAGE.decode(value.partition(b"\n")[2])
            found.append(Parked(saga, definition_version, message, key))
        return found

    async def parked_sent(self, parked: Sequence[Parked]) -> None:
        calls: list[Call] = []
        for group in self._link.together(parked, lambda one: one.saga, _MOST):
            keys = [key for one in group for key in self._keys.parked(one.saga)[:2]]
            calls.append(scripts.PARKED_SENT.call(keys, [one.key for one in group]))
        with _as_store_errors():
            await self._link.run(calls)

    # counting handlings

    async def count_handlings(self, messages: Sequence[str]) -> None:
        kept_s = int(HANDLINGS_KEPT.total_seconds())
        calls: list[Call] = []
        for key in map(self._keys.handlings, messages):
            calls += (command(key, "INCR", key), command(key, "EXPIRE", key, kept_s))
        with _as_store_errors():
            await self._link.run(calls)

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        with _as_store_errors():
            found = await self._link.run([command(key, "GET", key) for key in map(self._keys.handlings, messages)])
        return [int(count or 0) for count in found]

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        with _as_store_errors():
            await self._link.run([command(key, "DEL", key) for key in map(self._keys.handlings, messages)])

    async def count_parked(self) -> Mapping[tuple[str, int], int]:
        key = self._keys.parked_names
        counts: Counter[tuple[str, int]] = Counter()
        with _as_store_errors():
            (found,) = await self._link.run([command(key, "SMEMBERS", key)])
            names = sorted(name.decode() for name in found)
            orders = [self._keys.parked(name)[1] for name in names]
            answers = await self._link.run([command(order, "ZRANGE", order, 0, -1) for order in orders])
        for name, entries in zip(names, answers, strict=True):
            counts.update((name, int(entry.partition(b":")[0])) for entry in entries)
        return dict(sorted(counts.items()))

    # looking back

    async def journal(self, saga_id: str) -> Sequence[JournalRecord]:
        key = self._keys.saga(saga_id)
        with _as_store_errors():
            (records,) = await self._link.run([command(key, "LRANGE", key, 3, -1)])
        with self._corrupt(key, f"the journal of saga {saga_id!r}"):
            return [decode_record(record) for record in records]

    async def find(self, query: SagaQuery) -> Sequence[SagaSummary]:
        with _as_store_errors(), self._corrupt("saga:…", "a saga"):
            return await self._listing.find(query)

    async def count(self, query: SagaQuery) -> int:
        with _as_store_errors(), self._corrupt("saga:…", "a saga"):
            return await self._listing.count(query)

    # forgetting

    async def purge(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        before = micros(ended_before)
        obsolete: list[Call] = []
        purged = 0
        with _as_store_errors():
            found = await self._first_before(lambda place: place.ended, before, limit, slots)
            groups = list(self._link.together(found, lambda member: member.place.prefix, _MOST))
            calls: list[Call] = []
            for group in groups:
                keys: list[str] = []
                for one in group:
                    at = one.place
                    keys += (at.saga(one.name), at.index, at.kinds, at.keys, at.ids, at.ended, at.ledger)
                calls.append(scripts.PURGE.call(keys, (before, *(one.name for one in group))))
            for group, answer in zip(groups, await self._link.run(calls), strict=True):
                for one, interests in zip(group, answer, strict=True):
                    if interests is not None:
                        purged += 1
                        obsolete.extend(self._unwatch(one.name, interests))
        await self._tidy(obsolete)
        return purged

    async def purge_ledger(self, ended_before: datetime, limit: int = 1000, slots: Sequence[range] = EVERYWHERE) -> int:
        with _as_store_errors():
            found = await self._first_before(lambda place: place.ledger, micros(ended_before), limit, slots)
            calls = [
                scripts.FORGET.call(
                    [key for one in group for key in (one.place.ledger, one.place.saga(one.name))],
                    [one.name for one in group],
                )
                for group in self._link.together(found, lambda member: member.place.prefix, _MOST)
            ]
            return sum(await self._link.run(calls))

    async def _first_before(
        self, name: Callable[[Place], str], before: int, limit: int, slots: Sequence[range]
    ) -> list[Member]:
        bounds = Bounds(stop=f"({before}")
        # these sets know no leases
        return await first_of(self._link, self._places(slots), lambda at: (name(at), name(at)), bounds, limit)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._link.close()

    @contextmanager
    def _corrupt(self, key: str, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, IndexError, msgspec.MsgspecError) as error:
            raise StoreCorrupt(
                f"Redis at {self._link.where}, key {key}: {what} cannot be read ({error}). Restore it from a backup"
            ) from error


@contextmanager
def _as_store_errors() -> Iterator[None]:
    try:
        yield
    except RedisUnavailable as error:
        raise StoreUnavailable(str(error)) from error
