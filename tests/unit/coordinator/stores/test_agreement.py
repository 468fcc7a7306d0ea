"""The memory store and the SQLite store answer the same to whatever is done to them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from tests.support.sagas import T0, HandClock, commit, following, message, outbox_key, snapshot

from amends.brokers import ShardMap
from amends.contracts import UsageError
from amends.contracts.names import SLOTS
from amends.coordinator.core.snapshot import Phase, Snapshot
from amends.coordinator.store import (
    Commit,
    Interest,
    OutboxEntry,
    Parked,
    SagaQuery,
    SagaStore,
)
from amends.coordinator.stores import MemoryStore, SqliteStore

IDS = ("order-1", "order-2", "ord", "größe", "x%_'")
VALUES = (b"1", b'"1"', b"null")

limits = st.integers(1, 4)
slots = st.sampled_from([(range(SLOTS),), (range(SLOTS),), (range(SLOTS // 2),), (range(100, 500), range(700, 900))])
seconds = st.sampled_from([0, 1, 2, 30])
wakes = st.sampled_from([None, 0, 0, 1, 2, 30])
names = st.sampled_from(["a", "b"])
where = st.dictionaries(names, st.sampled_from(VALUES), max_size=2).map(lambda d: tuple(sorted(d.items())))
wanted = st.lists(st.builds(Interest, st.sampled_from(["paid.v1", "sent.v1"]), where), max_size=3).map(tuple)
looks = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from([Phase.RUNNING, Phase.RUNNING, *Phase]),
        "stuck": st.booleans(),
        "paused": st.sampled_from([False, False, True]),
        "waived": st.booleans(),
        "state": st.binary(max_size=20),
        "keys": st.dictionaries(st.sampled_from("kn"), st.sampled_from(["1", '"', "2"])),
    },
)
queries = st.builds(
    SagaQuery,
    saga=st.none() | st.sampled_from(["place-order", "ship-order", "unknown"]),
    phase=st.none() | st.sampled_from(Phase),
    stuck=st.none() | st.booleans(),
    paused=st.none() | st.booleans(),
    waived=st.none() | st.booleans(),
    key=st.none() | st.sampled_from([("k", "1"), ("k", '"'), ("n", "1")]),
    started_after=st.none() | st.integers(0, 40).map(lambda s: T0 + timedelta(seconds=s)),
    started_before=st.none() | st.integers(0, 40).map(lambda s: T0 + timedelta(seconds=s)),
    id_prefix=st.none() | st.sampled_from(["", "order-", "ord", "gr", "x%", "z"]),
    order=st.sampled_from(["newest", "oldest"]),
    limit=st.integers(0, 6),
)


class Stores(RuleBasedStateMachine):
    """Drives both stores, on one clock."""

    commits: Bundle[Commit] = Bundle("commits")
    letters: Bundle[Parked] = Bundle("letters")

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = HandClock()
        self.memory = MemoryStore(self.clock)
        self.sqlite = self.runner.run(self._open())

    async def _open(self) -> SqliteStore:
        return SqliteStore.open(Path(self.folder.name) / "amends.db", self.clock)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.sqlite.close())
            self.runner.close()
            self.folder.cleanup()

    def both(
        self, ask: Callable[[SagaStore], Awaitable[Any]], see: Callable[[Any], Any] = lambda answer: answer
    ) -> Any:
        """Ask both stores the same and compare what they say, as `see` makes it comparable."""

        async def answer(store: SagaStore) -> Any:
            return await ask(store)

        expected, found = (self.runner.run(answer(store)) for store in (self.memory, self.sqlite))
        assert see(found) == see(expected)

    def wake(self, after: int | None) -> Any:
        return None if after is None else self.clock.now() + timedelta(seconds=after)

    # commits

    @rule(
        target=commits,
        id=st.sampled_from(IDS),
        saga=st.sampled_from(["place-order", "ship-order"]),
        look=looks,
        wake=wakes,
        sends=st.integers(0, 2),
        interests=st.none() | wanted,
    )
    def begin(self, id: str, saga: str, look: Any, wake: int | None, sends: int, interests: Any) -> Commit:
        made = snapshot(id, saga=saga, at=self.clock.now(), wake_at=self.wake(wake), **look)
        outbox = tuple(message() for _ in range(sends))
        return self.committed(commit(made, outbox=outbox, interests=interests, input_hash=str(sends)))

    @rule(
        target=commits,
        before=commits,
        look=looks,
        wake=wakes,
        sends=st.integers(0, 2),
        interests=st.none() | wanted,
        clears=st.booleans(),
    )
    def follow(self, before: Commit, look: Any, wake: int | None, sends: int, interests: Any, clears: bool) -> Commit:
        made = following(before.snapshot, at=self.clock.now(), wake_at=self.wake(wake), **look)
        after = commit(made, before.snapshot, outbox=tuple(message() for _ in range(sends)), interests=interests)
        return self.committed(after, *([before.snapshot] if clears else []))

    def committed(self, one: Commit, *cleared: Snapshot) -> Commit:
        self.both(lambda store: store.commit([one], [outbox_key(s) for s in cleared]), list)
        return one

    @rule(some=st.lists(commits, max_size=5), cleared=st.lists(commits, max_size=3))
    def repeat(self, some: list[Commit], cleared: list[Commit]) -> None:
        one_each = list({one.snapshot.id: one for one in some}.values())
        keys = [outbox_key(one.snapshot) for one in cleared]
        self.both(lambda store: store.commit(one_each, keys), list)

    @rule(ended_before=seconds, limit=limits, slots=slots)
    def purge(self, ended_before: int, limit: int, slots: Any) -> None:
        self.both(lambda store: store.purge(self.clock.now() - timedelta(seconds=ended_before), limit, slots))

    @rule(ended_before=seconds, limit=limits, slots=slots)
    def purge_ledger(self, ended_before: int, limit: int, slots: Any) -> None:
        self.both(lambda store: store.purge_ledger(self.clock.now() - timedelta(seconds=ended_before), limit, slots))

    # time

    @rule(by=st.sampled_from([0.000001, 1, 2, 30]))
    def pass_time(self, by: float) -> None:
        self.clock.advance(by)

    @rule(slots=slots, limit=limits, lease_s=seconds, later=st.sampled_from([0, 0, 1, 2]))
    def sweep(self, slots: Any, limit: int, lease_s: int, later: int) -> None:
        for _ in range(2):
            self.both(lambda store: store.due(slots, limit, lease_s), list)
            self.both(lambda store: store.next_due(slots))
            self.clock.advance(later)

    @rule(slots=slots, age=seconds, limit=limits, lease_s=seconds, later=st.sampled_from([0, 0, 1, 2]))
    def relay(self, slots: Any, age: int, limit: int, lease_s: int, later: int) -> None:
        def see(entries: list[OutboxEntry]) -> Any:
            return [(entry.key, entry.messages) for entry in entries]

        for _ in range(2):
            self.both(lambda store: store.overdue_outbox(slots, age, limit, lease_s), see)
            self.clock.advance(later)

    # what waits

    @rule(type=st.sampled_from(["paid.v1", "sent.v1", "other.v1"]), where=where)
    def waiting(self, type: str, where: Any) -> None:
        self.both(lambda store: store.waiting(type, dict(where)), list)

    @rule(target=letters, saga=st.sampled_from(["a", "b"]), version=st.integers(1, 2), id=st.sampled_from("mno"))
    def park(self, saga: str, version: int, id: str) -> Parked:
        parked = Parked(saga, version, message(id, size=version))
        self.both(lambda store: store.park([parked]))
        return parked

    @rule(letter=consumes(letters))
    def parked_sent(self, letter: Parked) -> None:
        self.both(lambda store: store.parked_sent([letter]))

    @rule(saga=st.sampled_from(["a", "b"]), version=st.integers(1, 2), limit=limits)
    def unpark(self, saga: str, version: int, limit: int) -> None:
        def see(found: list[Parked]) -> Any:
            return [(one.saga, one.definition_version, one.message) for one in found]

        self.both(lambda store: store.unpark(saga, version, limit), see)
        self.both(lambda store: store.count_parked(), lambda counted: list(counted.items()))

    # lists

    @rule(query=queries)
    def find(self, query: SagaQuery) -> None:
        self.both(lambda store: store.find(query), list)
        self.both(lambda store: store.count(query))

    @rule(shards=st.integers(1, 2))
    def adopt(self, shards: int) -> None:
        async def attempt(store: SagaStore) -> bool:
            try:
                await store.adopt(ShardMap(shards=shards))
            except UsageError:
                return False
            return True

        self.both(attempt)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.sqlite.close())
        self.sqlite = self.runner.run(self._open())

    @invariant()
    def the_same_is_stored(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.both(lambda store: store.load(IDS), lambda found: [(stored.snapshot, stored.start) for stored in found])
        self.both(journals)
        self.both(lambda store: store.count(SagaQuery()))


async def journals(store: SagaStore) -> list[Any]:
    return [list(await store.journal(id)) for id in IDS]


TestAgreement = Stores.TestCase
TestAgreement.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
