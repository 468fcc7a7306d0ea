"""What every `SagaStore` must do: subclass `SagaStoreContract`, and say how to open one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contract.handlings import count_for_each, count_many, forget_and_count_again
from tests.support.sagas import T0, commit, following, message, outbox_key, snapshot

from amends.brokers import Outgoing, ShardMap
from amends.contracts import InternalError, UsageError, slot_of
from amends.contracts.names import SLOTS
from amends.coordinator.core.snapshot import Phase, Snapshot
from amends.coordinator.store import (
    Commit,
    CommitResult,
    Interest,
    LedgerEntry,
    OutboxEntry,
    Parked,
    SagaQuery,
    SagaStore,
    SagaSummary,
)

COMMITTED, CONFLICT = CommitResult.COMMITTED, CommitResult.CONFLICT
ALL = (range(SLOTS),)
EVENT = "payments.order-paid.v1"


class SagaStoreContract(ABC):
    """The suite of the port. Each test begins with no data.

    `open` gives a store object on the data of the running test: a second call, while the first is open or after it was
    closed, gives one on the same data. `pass_time` moves store time; `unit` is the length in seconds that leases and
    ages have in the suite, so that an adapter whose time is real can make them short.
    """

    unit: float = 60.0

    @abstractmethod
    async def open(self) -> SagaStore: ...

    @abstractmethod
    async def pass_time(self, seconds: float) -> None: ...

    @pytest.fixture
    async def store(self) -> AsyncIterator[SagaStore]:
        store = await self.open()
        yield store
        await store.close()

    # commit and load

    async def test_unknown_id_has_neither_snapshot_nor_start(self, store: SagaStore) -> None:
        assert await held(store, "nobody") == (None, None)
        assert list(await store.load([])) == []

    async def test_a_start_is_loaded_as_it_was_committed_with_its_ledger_entry(self, store: SagaStore) -> None:
        first = snapshot(wake_at=T0 + timedelta(microseconds=7), stuck=True, waived=True)
        assert await results(store, commit(first, input_hash="abc")) == [COMMITTED]
        assert await held(store) == (first, LedgerEntry(first.incarnation, "abc", first.started_at))

    async def test_load_answers_in_the_order_asked_even_for_the_same_id_twice(self, store: SagaStore) -> None:
        a, b = snapshot("a"), snapshot("b")
        await store.commit([commit(b), commit(a)])
        found = await store.load(["a", "nobody", "b", "a"])
        assert [stored.snapshot for stored in found] == [a, None, b, a]

    async def test_ids_may_hold_any_printable_character(self, store: SagaStore) -> None:
        ids = ["o'clock", '"quoted"', "100%", "a_b", "[1]", "größe", "注文", "x" * 200, "🙂", "id with spaces", "\\n"]
        await store.commit([commit(snapshot(id)) for id in ids])
        assert [stored.snapshot and stored.snapshot.id for stored in await store.load(ids)] == ids
        assert len(await store.journal("o'clock")) == 1

    async def test_a_commit_on_its_predecessor_replaces_the_snapshot_and_keeps_the_start(
        self, store: SagaStore
    ) -> None:
        first = snapshot()
        second = following(first, at=T0 + timedelta(seconds=1))
        await store.commit([commit(first, input_hash="abc")])
        assert await results(store, commit(second, first)) == [COMMITTED]
        assert await held(store) == (second, LedgerEntry(first.incarnation, "abc", T0))

    async def test_what_was_committed_is_there_for_whoever_opens_the_store_next(self, store: SagaStore) -> None:
        first = snapshot()
        await store.commit([commit(first, outbox=(message("m"),))])
        await store.close()
        again = await self.open()
        assert (await again.load([first.id]))[0].snapshot == first
        assert len(await again.journal(first.id)) == 1
        await self.pass_time(2 * self.unit)
        assert [entry.key for entry in await again.overdue_outbox(ALL, self.unit, 10, self.unit)] == [outbox_key(first)]
        await again.close()

    async def test_closing_twice_does_no_harm(self, store: SagaStore) -> None:
        other = await self.open()
        await store.close()
        await store.close()
        first = snapshot()
        assert await results(other, commit(first)) == [COMMITTED]
        await other.close()

    async def test_a_start_of_an_id_that_is_there_conflicts(self, store: SagaStore) -> None:
        first = snapshot()
        await store.commit([commit(first)])
        assert await results(store, commit(snapshot(first.id))) == [CONFLICT]
        assert await current(store) == first

    async def test_a_commit_for_an_unknown_saga_conflicts(self, store: SagaStore) -> None:
        first = snapshot()
        assert await results(store, commit(following(first), first)) == [CONFLICT]
        assert await held(store) == (None, None)

    async def test_a_commit_on_an_older_version_conflicts(self, store: SagaStore) -> None:
        first = snapshot()
        second = following(first)
        await store.commit([commit(first)])
        await store.commit([commit(second, first)])
        assert await results(store, commit(following(first), first)) == [CONFLICT]
        assert await current(store) == second

    async def test_a_commit_on_a_version_that_the_store_has_not_seen_conflicts(self, store: SagaStore) -> None:
        first = snapshot()
        lost = following(first)
        await store.commit([commit(first)])
        assert await results(store, commit(following(lost), lost)) == [CONFLICT]
        assert await current(store) == first

    async def test_equal_version_with_another_commit_id_conflicts_after_a_failover(self, store: SagaStore) -> None:
        first = snapshot()
        ours, theirs = following(first), following(first)
        await store.commit([commit(first)])
        await store.commit([commit(theirs, first)])
        assert await results(store, commit(following(ours), ours)) == [CONFLICT]
        assert await current(store) == theirs

    async def test_equal_version_and_commit_id_of_another_incarnation_conflicts(self, store: SagaStore) -> None:
        first = snapshot(incarnation="one", commit_id="same")
        other = snapshot(incarnation="two", commit_id="same")
        await store.commit([commit(first)])
        assert await results(store, commit(following(other), other)) == [CONFLICT]
        assert await current(store) == first

    async def test_equal_commit_id_of_another_version_conflicts(self, store: SagaStore) -> None:
        first = snapshot(incarnation="one", commit_id="same")
        other = snapshot(incarnation="one", commit_id="same", version=4)
        await store.commit([commit(first)])
        assert await results(store, commit(following(other), other)) == [CONFLICT]
        assert await current(store) == first

    async def test_each_commit_of_a_call_succeeds_or_conflicts_on_its_own(self, store: SagaStore) -> None:
        a, b, c, d = (snapshot(id) for id in "abcd")
        await store.commit([commit(a), commit(b)])
        second_a, second_b = following(a), following(b)
        outcome = await results(
            store,
            commit(second_a, a),
            commit(following(second_b), second_b),
            commit(c),
            commit(following(d), d),
            commit(snapshot("a-new")),
        )
        assert outcome == [COMMITTED, CONFLICT, COMMITTED, CONFLICT, COMMITTED]
        found = await store.load(["a", "b", "c", "d"])
        assert [stored.snapshot for stored in found] == [second_a, b, c, None]

    async def test_a_conflict_leaves_no_trace(self, store: SagaStore) -> None:
        first = snapshot()
        await store.commit([commit(first, interests=(Interest(EVENT),))])
        lost = following(first)
        late = commit(following(lost, wake_at=T0), lost, outbox=(message("never"),), interests=())
        assert await results(store, late) == [CONFLICT]
        assert len(await store.journal(first.id)) == 1
        assert await store.next_due(ALL) is None
        assert list(await store.waiting(EVENT, {})) == [first.id]
        await self.pass_time(2 * self.unit)
        assert list(await store.overdue_outbox(ALL, self.unit, 10, self.unit)) == []

    async def test_two_commits_about_one_saga_in_a_call_are_refused(self, store: SagaStore) -> None:
        first = snapshot()
        with pytest.raises(InternalError, match="same saga"):
            await store.commit([commit(first), commit(following(first), first)])
        assert await held(store) == (None, None)

    async def test_a_commit_that_changes_the_incarnation_is_refused(self, store: SagaStore) -> None:
        first = snapshot()
        await store.commit([commit(first)])
        with pytest.raises(InternalError, match=r"order-1.*incarnation"):
            await store.commit([commit(snapshot(first.id, version=2), first)])
        assert await current(store) == first

    async def test_hundreds_of_commits_in_a_call(self, store: SagaStore) -> None:
        firsts = [snapshot(f"order-{n}") for n in range(301)]
        starts = await store.commit([commit(s, outbox=(message(f"m-{s.id}"),)) for s in firsts])
        assert list(starts) == [COMMITTED] * 301
        seconds = [following(s) for s in firsts]
        pairs = zip(seconds, firsts, strict=True)
        cleared = [outbox_key(s) for s in firsts]
        assert list(await store.commit([commit(s, f) for s, f in pairs], cleared)) == [COMMITTED] * 301
        assert [s.snapshot for s in await store.load([s.id for s in firsts])] == seconds
        await self.pass_time(2 * self.unit)
        assert list(await store.overdue_outbox(ALL, self.unit, 1000, self.unit)) == []

    # unknown outcomes and races

    async def test_a_start_repeated_under_its_commit_id_is_recognised_and_stores_nothing_again(
        self, store: SagaStore
    ) -> None:
        start = commit(snapshot(), outbox=(message("m"),))
        assert await results(store, start) == [COMMITTED]
        assert await results(store, start) == [COMMITTED]
        assert len(await store.journal(start.snapshot.id)) == 1
        await self.pass_time(2 * self.unit)
        assert len(await store.overdue_outbox(ALL, self.unit, 10, self.unit)) == 1

    async def test_a_commit_repeated_under_its_commit_id_is_recognised_and_stores_nothing_again(
        self, store: SagaStore
    ) -> None:
        first = snapshot()
        second = commit(following(first), first, outbox=(message("m"),))
        await store.commit([commit(first)])
        assert await results(store, second) == [COMMITTED]
        assert await results(store, second) == [COMMITTED]
        assert [record.version for record in await store.journal(first.id)] == [1, 2]
        await self.pass_time(2 * self.unit)
        assert len(await store.overdue_outbox(ALL, self.unit, 10, self.unit)) == 1

    async def test_a_repeated_commit_does_not_bring_back_what_was_cleared_or_leased(self, store: SagaStore) -> None:
        first = snapshot(wake_at=T0)
        start = commit(first, outbox=(message("m"),))
        await store.commit([start])
        await store.commit([], [outbox_key(first)])
        assert len(await store.due(ALL, 10, self.unit)) == 1
        assert await results(store, start) == [COMMITTED]
        assert list(await store.due(ALL, 10, self.unit)) == []
        await self.pass_time(self.unit / 2)
        assert list(await store.overdue_outbox(ALL, 0, 10, self.unit)) == []

    async def test_in_a_repeated_call_some_were_stored_and_some_were_not(self, store: SagaStore) -> None:
        stored, missing = commit(snapshot("a")), commit(snapshot("b"))
        await store.commit([stored])
        assert await results(store, stored, missing) == [COMMITTED, COMMITTED]
        assert [len(await store.journal(id)) for id in ("a", "b")] == [1, 1]

    async def test_a_commit_that_was_overtaken_conflicts_when_it_is_repeated(self, store: SagaStore) -> None:
        first = snapshot()
        second = following(first)
        await store.commit([commit(first)])
        await store.commit([commit(second, first)])
        await store.commit([commit(following(second), second)])
        assert await results(store, commit(second, first)) == [CONFLICT]

    async def test_of_two_stores_with_the_same_predecessor_exactly_one_commits(self, store: SagaStore) -> None:
        other = await self.open()
        before = snapshot()
        await store.commit([commit(before)])
        for _ in range(20):
            ours, theirs = following(before), following(before)
            (a,), (b,) = await asyncio.gather(
                store.commit([commit(ours, before)]), other.commit([commit(theirs, before)])
            )
            assert sorted((a, b)) == [COMMITTED, CONFLICT]
            before = ours if a is COMMITTED else theirs
            assert await current(store) == before
            assert await current(other) == before
        assert len(await store.journal(before.id)) == before.version
        await other.close()

    async def test_of_two_stores_that_start_the_same_id_exactly_one_commits(self, store: SagaStore) -> None:
        other = await self.open()
        ours, theirs = snapshot(), snapshot()
        (a,), (b,) = await asyncio.gather(store.commit([commit(ours)]), other.commit([commit(theirs)]))
        assert sorted((a, b)) == [COMMITTED, CONFLICT]
        assert await current(other) == (ours if a is COMMITTED else theirs)
        await other.close()

    async def test_one_store_sees_at_once_what_another_committed(self, store: SagaStore) -> None:
        other = await self.open()
        first = snapshot()
        await store.commit([commit(first)])
        assert await current(other) == first
        second = following(first)
        assert await results(other, commit(second, first)) == [COMMITTED]
        assert await current(store) == second
        await other.close()

    # the epoch

    async def test_the_epoch_is_told_with_every_saga_known_or_not_and_stays_while_the_store_lives(
        self, store: SagaStore
    ) -> None:
        first = snapshot(epoch="of-old")
        await store.commit([commit(first)])
        before = [stored.epoch for stored in await store.load([first.id, "nobody"])]
        again = await self.open()
        assert [stored.epoch for stored in await again.load([first.id, "nobody"])] == before
        # what a snapshot says is its own affair: only a reconciliation brings it up to date
        assert (await current(store)) == first
        await again.close()

    # the ledger

    async def test_an_id_is_refused_by_the_ledger_after_its_saga_was_purged(self, store: SagaStore) -> None:
        last = await ended(store, "order-1", T0)
        assert await store.purge(T0 + timedelta(seconds=1)) == 1
        found = await held(store)
        assert found == (None, LedgerEntry(last.incarnation, "hash", T0))
        assert await results(store, commit(snapshot("order-1"))) == [CONFLICT]
        assert await results(store, commit(following(last), last)) == [CONFLICT]
        assert await held(store) == found

    async def test_a_repeated_last_commit_of_a_purged_saga_conflicts(self, store: SagaStore) -> None:
        only = commit(snapshot(phase=Phase.COMPLETED))
        await store.commit([only])
        await store.purge(T0 + timedelta(seconds=1))
        assert await results(store, only) == [CONFLICT]

    async def test_purge_takes_sagas_that_ended_before_the_earliest_first_and_no_others(self, store: SagaStore) -> None:
        for n, id in enumerate(("c", "a", "b")):
            await ended(store, id, T0 + timedelta(seconds=n))
        await store.commit([commit(snapshot("running"))])
        assert await store.purge(T0 + timedelta(seconds=2), limit=1) == 1
        assert sorted(await ids(store)) == ["a", "b", "running"]
        assert await store.purge(T0 + timedelta(seconds=2), limit=1) == 1
        assert await store.purge(T0 + timedelta(seconds=2), limit=1) == 0
        assert sorted(await ids(store)) == ["b", "running"]

    async def test_purge_removes_journal_and_interests_but_not_what_waits_to_be_sent(self, store: SagaStore) -> None:
        last = snapshot(phase=Phase.COMPLETED)
        await store.commit([commit(last, outbox=(message("m"),), interests=(Interest(EVENT),))])
        assert await store.purge(T0 + timedelta(seconds=1)) == 1
        assert list(await store.journal(last.id)) == []
        assert list(await store.waiting(EVENT, {})) == []
        assert await store.count(SagaQuery()) == 0
        await self.pass_time(2 * self.unit)
        assert [entry.key for entry in await store.overdue_outbox(ALL, self.unit, 10, self.unit)] == [outbox_key(last)]

    async def test_the_ledger_lets_go_of_purged_sagas_only(self, store: SagaStore) -> None:
        await ended(store, "purged", T0)
        await store.purge(T0 + timedelta(seconds=1))
        await ended(store, "ended", T0)
        await store.commit([commit(snapshot("running"))])
        assert await store.purge_ledger(T0) == 0
        assert await store.purge_ledger(T0 + timedelta(seconds=1)) == 1
        found = await store.load(["purged", "ended", "running"])
        assert [stored.start is not None for stored in found] == [False, True, True]

    async def test_the_ledger_lets_go_of_those_that_ended_earliest_first(self, store: SagaStore) -> None:
        started = (("b", T0), ("a", T0 - timedelta(days=1)))
        for n, (id, at) in enumerate(started):
            first = snapshot(id, at=at)
            await store.commit([commit(first)])
            last = following(first, phase=Phase.COMPLETED, at=T0 + timedelta(seconds=n))
            await store.commit([commit(last, first)])
        await store.purge(T0 + timedelta(minutes=1))
        assert await store.purge_ledger(T0) == 0
        assert await store.purge_ledger(T0 + timedelta(minutes=1), limit=1) == 1
        assert [stored.start is None for stored in await store.load(["a", "b"])] == [False, True]

    async def test_purging_looks_at_the_slots_asked_for(self, store: SagaStore) -> None:
        every = [f"order-{n}" for n in range(12)]
        for id in every:
            await ended(store, id, T0)
        low = [id for id in every if slot_of(id) < SLOTS // 2]
        half = (range(SLOTS // 2),)
        after = T0 + timedelta(seconds=1)
        assert await store.purge(after, 100, ()) == 0
        assert await store.purge(after, 100, half) == len(low)
        assert sorted(await ids(store)) == sorted(set(every) - set(low))
        assert await store.purge(after) == len(every) - len(low)
        assert await store.purge_ledger(after, 100, half) == len(low)
        assert [id for id, one in zip(every, await store.load(every), strict=True) if one.start is None] == low

    async def test_a_child_is_not_purged_by_its_own_end(self, store: SagaStore) -> None:
        child = replace(snapshot("child", phase=Phase.COMPLETED), parent="order-1")
        await store.commit([commit(child), commit(snapshot("order-1", phase=Phase.COMPLETED))])
        assert await store.purge(T0 + timedelta(days=1)) == 1
        assert await current(store, "child") == child

    async def test_an_id_that_the_ledger_forgot_starts_anew_with_a_journal_of_its_own(self, store: SagaStore) -> None:
        await ended(store, "order-1", T0)
        await store.purge(T0 + timedelta(seconds=1))
        await store.purge_ledger(T0 + timedelta(seconds=1))
        again = snapshot("order-1")
        assert await results(store, commit(again, input_hash="other")) == [COMMITTED]
        assert [record.commit_id for record in await store.journal("order-1")] == [again.commit_id]
        start = (await store.load(["order-1"]))[0].start
        assert start == LedgerEntry(again.incarnation, "other", T0)

    async def test_a_start_that_the_ledger_forgot_and_that_comes_again_replaces_what_it_left_to_send(
        self, store: SagaStore
    ) -> None:
        start = commit(snapshot(phase=Phase.COMPLETED), outbox=(message("m"),))
        await store.commit([start])
        await store.purge(T0 + timedelta(seconds=1))
        await store.purge_ledger(T0 + timedelta(seconds=1))
        assert await results(store, start) == [COMMITTED]
        await self.pass_time(2 * self.unit)
        assert len(await store.overdue_outbox(ALL, self.unit, 10, self.unit)) == 1

    # timers

    async def test_due_gives_the_sagas_whose_time_has_come_earliest_first(self, store: SagaStore) -> None:
        now = await store.now()
        for id, seconds in (("b", -1.0), ("later", 3600.0), ("a", -2.0), ("now", 0.0)):
            await store.commit([commit(snapshot(id, wake_at=now + timedelta(seconds=seconds)))])
        await store.commit([commit(snapshot("no timer"))])
        due = await store.due(ALL, 10, self.unit)
        assert [(saga.saga_id, saga.wake_at) for saga in due] == [
            ("a", now - timedelta(seconds=2)),
            ("b", now - timedelta(seconds=1)),
            ("now", now),
        ]
        assert due[0].incarnation == ((await store.load(["a"]))[0].snapshot or snapshot()).incarnation

    async def test_due_gives_at_most_the_limit_and_leaves_the_rest_for_the_next_call(self, store: SagaStore) -> None:
        now = await store.now()
        for n in range(5):
            await store.commit([commit(snapshot(f"s{n}", wake_at=now - timedelta(seconds=10 - n)))])
        assert [saga.saga_id for saga in await store.due(ALL, 2, self.unit)] == ["s0", "s1"]
        assert [saga.saga_id for saga in await store.due(ALL, 10, self.unit)] == ["s2", "s3", "s4"]

    async def test_a_leased_saga_is_due_again_when_the_lease_has_run_out(self, store: SagaStore) -> None:
        await store.commit([commit(snapshot("a", wake_at=await store.now()))])
        assert len(await store.due(ALL, 10, self.unit)) == 1
        assert list(await store.due(ALL, 10, self.unit)) == []
        await self.pass_time(self.unit)
        assert [saga.saga_id for saga in await store.due(ALL, 10, self.unit)] == ["a"]
        assert list(await store.due(ALL, 10, self.unit)) == []

    async def test_a_lease_counts_for_every_store(self, store: SagaStore) -> None:
        other = await self.open()
        await store.commit([commit(snapshot("a", wake_at=await store.now()))])
        assert len(await store.due(ALL, 10, self.unit)) == 1
        assert list(await other.due(ALL, 10, self.unit)) == []
        await other.close()

    async def test_of_two_stores_that_sweep_at_once_each_due_saga_goes_to_one(self, store: SagaStore) -> None:
        other = await self.open()
        now = await store.now()
        await store.commit([commit(snapshot(f"s{n}", wake_at=now)) for n in range(10)])
        a, b = await asyncio.gather(store.due(ALL, 7, self.unit), other.due(ALL, 7, self.unit))
        assert sorted(saga.saga_id for saga in (*a, *b)) == [f"s{n}" for n in range(10)]
        await other.close()

    async def test_a_commit_ends_the_lease_and_sets_the_timer_anew(self, store: SagaStore) -> None:
        now = await store.now()
        first = snapshot(wake_at=now)
        await store.commit([commit(first)])
        await store.due(ALL, 10, self.unit)
        earlier = now - timedelta(seconds=5)
        await store.commit([commit(following(first, wake_at=earlier), first)])
        assert [saga.wake_at for saga in await store.due(ALL, 10, self.unit)] == [earlier]

    async def test_a_commit_without_timer_removes_it(self, store: SagaStore) -> None:
        first = snapshot(wake_at=await store.now())
        await store.commit([commit(first)])
        await store.commit([commit(following(first), first)])
        assert list(await store.due(ALL, 10, self.unit)) == []
        assert await store.next_due(ALL) is None

    @pytest.mark.parametrize("change", [{"phase": Phase.COMPLETED}, {"phase": Phase.COMPENSATED}, {"paused": True}])
    async def test_an_ended_or_paused_saga_has_no_timer(self, store: SagaStore, change: dict[str, Any]) -> None:
        first = snapshot(wake_at=await store.now())
        await store.commit([commit(first)])
        await store.commit([commit(following(first, wake_at=T0, **change), first)])
        assert list(await store.due(ALL, 10, self.unit)) == []
        assert await store.next_due(ALL) is None

    async def test_due_and_next_due_look_at_the_slots_asked_for(self, store: SagaStore) -> None:
        now = await store.now()
        sagas = [snapshot(f"order-{n}", wake_at=now - timedelta(seconds=n)) for n in range(12)]
        await store.commit([commit(saga) for saga in sagas])
        half = (range(SLOTS // 4), range(SLOTS // 2, 3 * SLOTS // 4))
        mine = [saga for saga in sagas if any(slot_of(saga.id) in span for span in half)]
        assert 0 < len(mine) < len(sagas)
        assert await store.next_due(half) == min(saga.wake_at for saga in mine if saga.wake_at)
        found = await store.due(half, 100, self.unit)
        assert {saga.saga_id for saga in found} == {saga.id for saga in mine}
        assert list(await store.due((), 100, self.unit)) == []
        assert await store.next_due(()) is None

    async def test_a_slot_range_ends_before_its_stop(self, store: SagaStore) -> None:
        saga = snapshot(wake_at=await store.now())
        slot = slot_of(saga.id)
        await store.commit([commit(saga)])
        assert await store.next_due((range(slot), range(slot + 1, SLOTS))) is None
        assert await store.next_due((range(slot, slot + 1),)) == saga.wake_at

    async def test_next_due_is_the_earliest_timer_that_is_not_leased(self, store: SagaStore) -> None:
        assert await store.next_due(ALL) is None
        now = await store.now()
        soon, later = now + timedelta(seconds=self.unit / 2), now + timedelta(days=1)
        await store.commit([commit(snapshot("later", wake_at=later))])
        assert await store.next_due(ALL) == later
        await store.commit([commit(snapshot("soon", wake_at=soon))])
        assert await store.next_due(ALL) == soon
        await store.commit([commit(snapshot("due", wake_at=now))])
        assert await store.next_due(ALL) == now

    async def test_next_due_of_a_leased_saga_is_the_end_of_its_lease(self, store: SagaStore) -> None:
        before = await store.now()
        await store.commit([commit(snapshot("due", wake_at=before))])
        await store.due(ALL, 10, self.unit)
        found = await store.next_due(ALL)
        assert found is not None
        assert before + timedelta(seconds=self.unit) <= found <= await store.now() + timedelta(seconds=self.unit)
        await store.commit([commit(snapshot("sooner", wake_at=before + timedelta(seconds=self.unit / 4)))])
        assert await store.next_due(ALL) == before + timedelta(seconds=self.unit / 4)
        await store.commit([commit(snapshot("later", wake_at=before + timedelta(days=1)))])
        await self.pass_time(self.unit / 2)
        await store.due(ALL, 1, self.unit * 10)
        assert await store.next_due(ALL) == found

    async def test_a_saga_is_due_when_next_due_says(self, store: SagaStore) -> None:
        now = await store.now()
        await store.commit([commit(snapshot("a", wake_at=now + timedelta(seconds=self.unit)))])
        assert list(await store.due(ALL, 10, self.unit)) == []
        await self.pass_time(self.unit)
        assert len(await store.due(ALL, 10, self.unit)) == 1

    # the outbox

    async def test_the_outbox_gives_what_was_not_cleared_with_its_messages_oldest_first(self, store: SagaStore) -> None:
        first, second = snapshot("b"), snapshot("a")
        messages = (message("m1", size=3000), message("m2"))
        await store.commit([commit(first, outbox=messages)])
        await self.pass_time(self.unit)
        await store.commit([commit(second, outbox=(message("m3"),)), commit(snapshot("silent"))])
        await self.pass_time(2 * self.unit)
        entries = await store.overdue_outbox(ALL, self.unit, 10, self.unit)
        assert [(entry.key, entry.messages) for entry in entries] == [
            (outbox_key(first), messages),
            (outbox_key(second), (message("m3"),)),
        ]

    async def test_fresh_outbox_entries_are_not_overdue(self, store: SagaStore) -> None:
        await store.commit([commit(snapshot(), outbox=(message(),))])
        assert list(await store.overdue_outbox(ALL, self.unit, 10, self.unit)) == []
        await self.pass_time(1.5 * self.unit)
        assert len(await store.overdue_outbox(ALL, self.unit, 10, self.unit)) == 1

    async def test_a_leased_outbox_entry_comes_again_when_the_lease_has_run_out(self, store: SagaStore) -> None:
        other = await self.open()
        await store.commit([commit(snapshot(), outbox=(message(),))])
        await self.pass_time(self.unit / 2)
        assert len(await store.overdue_outbox(ALL, 0, 10, self.unit)) == 1
        assert list(await store.overdue_outbox(ALL, 0, 10, self.unit)) == []
        assert list(await other.overdue_outbox(ALL, 0, 10, self.unit)) == []
        await self.pass_time(self.unit)
        assert len(await other.overdue_outbox(ALL, 0, 10, self.unit)) == 1
        await other.close()

    async def test_a_commit_of_the_saga_does_not_end_the_lease_of_its_outbox(self, store: SagaStore) -> None:
        first = snapshot()
        await store.commit([commit(first, outbox=(message(),))])
        await self.pass_time(self.unit / 2)
        assert len(await store.overdue_outbox(ALL, 0, 10, self.unit)) == 1
        await store.commit([commit(following(first), first)])
        assert list(await store.overdue_outbox(ALL, 0, 10, self.unit)) == []

    async def test_the_outbox_gives_at_most_the_limit_of_the_slots_asked_for(self, store: SagaStore) -> None:
        sagas = [snapshot(f"order-{n}") for n in range(12)]
        await store.commit([commit(saga, outbox=(message(),)) for saga in sagas])
        await self.pass_time(self.unit)
        low = [saga.id for saga in sagas if slot_of(saga.id) < SLOTS // 2]
        found = await store.overdue_outbox((range(SLOTS // 2),), 0, 2, self.unit)
        assert [entry.key.saga_id for entry in found] == low[:2]
        found = await store.overdue_outbox((range(SLOTS // 2),), 0, 100, self.unit)
        assert [entry.key.saga_id for entry in found] == low[2:]
        assert list(await store.overdue_outbox((), 0, 100, self.unit)) == []

    async def test_cleared_entries_do_not_come_again_and_others_stay(self, store: SagaStore) -> None:
        first = snapshot()
        second = following(first)
        await store.commit([commit(first, outbox=(message("m1"),))])
        await store.commit([commit(second, first, outbox=(message("m2"),))], [outbox_key(first)])
        await self.pass_time(self.unit)
        assert keys(await store.overdue_outbox(ALL, 0, 10, self.unit)) == [outbox_key(second)]
        assert list(await store.commit([], [outbox_key(second), outbox_key(first)])) == []
        await self.pass_time(2 * self.unit)
        assert keys(await store.overdue_outbox(ALL, 0, 10, self.unit)) == []

    async def test_clearing_names_the_incarnation(self, store: SagaStore) -> None:
        first = snapshot()
        await store.commit([commit(first, outbox=(message(),))])
        await store.commit([], [outbox_key(snapshot(first.id))])
        await self.pass_time(self.unit)
        assert keys(await store.overdue_outbox(ALL, 0, 10, self.unit)) == [outbox_key(first)]

    async def test_entries_are_cleared_even_when_the_commits_of_the_call_conflict(self, store: SagaStore) -> None:
        first = snapshot()
        await store.commit([commit(first, outbox=(message(),))])
        assert list(await store.commit([commit(snapshot(first.id))], [outbox_key(first)])) == [CONFLICT]
        await self.pass_time(self.unit)
        assert keys(await store.overdue_outbox(ALL, 0, 10, self.unit)) == []

    async def test_a_call_with_nothing_to_do_does_nothing(self, store: SagaStore) -> None:
        assert list(await store.commit([])) == []

    # interests

    async def test_a_saga_waits_for_an_event_with_the_values_it_names(self, store: SagaStore) -> None:
        wanted = Interest(EVENT, (("currency", b'"EUR"'), ("order_id", b'"42"')))
        await store.commit([commit(snapshot("a"), interests=(wanted,))])
        fields = {"order_id": b'"42"', "currency": b'"EUR"', "amount": b"7"}
        assert list(await store.waiting(EVENT, fields)) == ["a"]
        assert list(await store.waiting(EVENT, {**fields, "currency": b'"USD"'})) == []
        assert list(await store.waiting(EVENT, {**fields, "order_id": b"42"})) == []
        assert list(await store.waiting(EVENT, {"order_id": b'"42"'})) == []
        assert list(await store.waiting("payments.order-paid.v2", fields)) == []

    async def test_values_are_not_mixed_up_between_fields(self, store: SagaStore) -> None:
        await store.commit([commit(snapshot("a"), interests=(Interest(EVENT, (("x", b"1"), ("y", b"2"))),))])
        assert list(await store.waiting(EVENT, {"x": b"2", "y": b"1"})) == []
        assert list(await store.waiting(EVENT, {"x": b"1,2", "y": b""})) == []
        assert list(await store.waiting(EVENT, {"x": b"1", "y": b"2"})) == ["a"]

    async def test_an_interest_without_values_matches_every_event_of_the_type(self, store: SagaStore) -> None:
        await store.commit([commit(snapshot("a"), interests=(Interest(EVENT),))])
        assert list(await store.waiting(EVENT, {})) == ["a"]
        assert list(await store.waiting(EVENT, {"order_id": b'"42"'})) == ["a"]

    async def test_interests_in_different_fields_of_one_type_are_all_found_once(self, store: SagaStore) -> None:
        by_order, by_user, any_ = (
            Interest(EVENT, (("order_id", b"1"),)),
            Interest(EVENT, (("user", b'"ada"'),)),
            Interest(EVENT),
        )
        await store.commit(
            [
                commit(snapshot("order"), interests=(by_order, by_order)),
                commit(snapshot("user"), interests=(by_user,)),
                commit(snapshot("both"), interests=(by_order, by_user)),
                commit(snapshot("any"), interests=(any_,)),
            ]
        )
        assert sorted(await store.waiting(EVENT, {"order_id": b"1", "user": b'"ada"'})) == [
            "any",
            "both",
            "order",
            "user",
        ]
        assert sorted(await store.waiting(EVENT, {"order_id": b"1"})) == ["any", "both", "order"]

    async def test_a_commit_without_interests_leaves_them_and_one_with_some_replaces_them(
        self, store: SagaStore
    ) -> None:
        first = snapshot()
        second, third = following(first), following(following(first))
        await store.commit([commit(first, interests=(Interest(EVENT), Interest("a.b.v1")))])
        await store.commit([commit(second, first, interests=None)])
        assert list(await store.waiting(EVENT, {})) == [first.id]
        await store.commit([commit(third, second, interests=(Interest("a.b.v1"), Interest("c.d.v1")))])
        assert list(await store.waiting(EVENT, {})) == []
        assert [list(await store.waiting(type, {})) for type in ("a.b.v1", "c.d.v1")] == [[first.id]] * 2

    async def test_an_event_finds_its_saga_while_that_one_changes_what_else_it_waits_for(
        self, store: SagaStore
    ) -> None:
        wanted, other = Interest(EVENT, (("order_id", b"1"),)), Interest("a.b.v1")
        now = snapshot("a")
        await store.commit([commit(now, interests=(wanted, other))])
        another = await self.open()

        async def change(now: Snapshot) -> None:
            for number in range(200):
                then = following(now)
                await store.commit([commit(then, now, interests=(wanted,) if number % 2 else (wanted, other))])
                now = then

        changing = asyncio.create_task(change(now))
        looks = 0
        while not changing.done():
            assert list(await another.waiting(EVENT, {"order_id": b"1"})) == ["a"]
            looks += 1
            await asyncio.sleep(0)
        await changing
        assert looks
        await another.close()

    async def test_a_saga_with_no_interests_left_is_not_found(self, store: SagaStore) -> None:
        first, other = snapshot("a"), snapshot("b")
        await store.commit([commit(first, interests=(Interest(EVENT),)), commit(other, interests=(Interest(EVENT),))])
        await store.commit([commit(following(first, phase=Phase.COMPLETED), first, interests=())])
        assert list(await store.waiting(EVENT, {})) == ["b"]

    # parked messages

    async def test_parked_messages_stay_until_they_were_sent_oldest_first(self, store: SagaStore) -> None:
        parked = [Parked("place-order", 2, message(f"m{n}")) for n in (3, 1, 2)]
        await store.park(parked[:1])
        await store.park(parked[1:])
        assert messages(await store.unpark("place-order", 2, 10)) == [one.message for one in parked]
        assert messages(await store.unpark("place-order", 2, 2)) == [one.message for one in parked[:2]]
        await store.parked_sent(parked[:2])
        left = await store.unpark("place-order", 2, 10)
        assert [(one.saga, one.definition_version, one.message) for one in left] == [
            ("place-order", 2, message("m2")),
        ]

    async def test_parked_messages_are_kept_apart_by_saga_and_version(self, store: SagaStore) -> None:
        await store.park([Parked("place-order", 1, message("a")), Parked("place-order", 2, message("b"))])
        await store.park([Parked("ship-order", 1, message("a"))])
        assert messages(await store.unpark("place-order", 1, 10)) == [message("a")]
        assert messages(await store.unpark("place-order", 2, 10)) == [message("b")]
        assert messages(await store.unpark("place-order", 3, 10)) == []
        await store.parked_sent([Parked("ship-order", 1, message("a"))])
        assert messages(await store.unpark("place-order", 1, 10)) == [message("a")]
        assert messages(await store.unpark("ship-order", 1, 10)) == []

    async def test_parking_a_message_again_changes_nothing(self, store: SagaStore) -> None:
        await store.park([Parked("place-order", 1, message("a")), Parked("place-order", 1, message("b"))])
        await store.park([Parked("place-order", 2, message("a", size=5)), Parked("place-order", 1, message("b"))])
        assert messages(await store.unpark("place-order", 1, 10)) == [message("a"), message("b")]
        assert messages(await store.unpark("place-order", 2, 10)) == []

    async def test_a_message_parked_anew_while_it_is_on_its_way_out_is_kept(self, store: SagaStore) -> None:
        await store.park([Parked("place-order", 1, message("a"), "first")])
        on_its_way = await store.unpark("place-order", 1, 10)
        await store.park([Parked("place-order", 1, message("a"), "second")])
        await store.parked_sent(on_its_way)
        assert [one.key for one in await store.unpark("place-order", 1, 10)] == ["second"]

    async def test_parked_messages_are_counted_by_saga_and_version(self, store: SagaStore) -> None:
        assert await store.count_parked() == {}
        await store.park([Parked("ship-order", 1, message("a")), Parked("place-order", 2, message("a"))])
        await store.park([Parked("place-order", 10, message(f"m{n}")) for n in range(3)])
        await store.park([Parked("place-order", 10, message("m0"))])
        counted = await store.count_parked()
        assert list(counted.items()) == [(("place-order", 2), 1), (("place-order", 10), 3), (("ship-order", 1), 1)]
        await store.parked_sent(await store.unpark("place-order", 2, 10))
        assert await store.count_parked() == {("place-order", 10): 3, ("ship-order", 1): 1}

    async def test_parking_nothing_and_sending_what_is_not_parked_do_nothing(self, store: SagaStore) -> None:
        await store.park([])
        await store.parked_sent([])
        await store.parked_sent([Parked("place-order", 1, message("a"))])
        assert messages(await store.unpark("place-order", 1, 10)) == []

    # journal

    async def test_the_journal_has_the_record_of_every_commit_oldest_first(self, store: SagaStore) -> None:
        commits = history(12)
        for one in commits:
            await store.commit([one])
        assert list(await store.journal("order-1")) == [one.record for one in commits]

    async def test_the_journal_of_an_unknown_id_is_empty(self, store: SagaStore) -> None:
        assert list(await store.journal("nobody")) == []

    # lists

    async def test_a_line_of_the_list_says_how_the_saga_stands(self, store: SagaStore) -> None:
        first = snapshot("a")
        second = following(
            first,
            phase=Phase.COMPENSATING,
            at=T0 + timedelta(seconds=3),
            wake_at=T0 + timedelta(hours=1),
            stuck=True,
            waived=True,
            keys={"order_id": "42", "customer_id": "ada"},
        )
        await store.commit([commit(first)])
        await store.commit([commit(second, first)])
        assert list(await store.find(SagaQuery())) == [
            SagaSummary(
                id="a",
                saga="place-order",
                definition_version=1,
                phase=Phase.COMPENSATING,
                stuck=True,
                paused=False,
                waived=True,
                version=2,
                started_at=T0,
                updated_at=T0 + timedelta(seconds=3),
                wake_at=T0 + timedelta(hours=1),
                keys={"order_id": "42", "customer_id": "ada"},
            )
        ]

    async def test_lists_are_ordered_by_start_time(self, store: SagaStore) -> None:
        await zoo(store)
        order = ["done", "ended-b", "going-b", "odd", "on-hold", "sticky", "undoing", "ended-a"]
        assert await ids(store, order="oldest") == order
        assert await ids(store, order="newest") == order[::-1]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"saga": "ship-order"}, ["odd"]),
            ({"saga": "unknown"}, []),
            ({"phase": Phase.COMPLETED}, ["done", "ended-b"]),
            ({"phase": Phase.COMPENSATED}, ["ended-a"]),
            ({"phase": Phase.RUNNING}, ["going-b", "odd", "on-hold", "sticky"]),
            ({"stuck": True}, ["sticky", "undoing"]),
            ({"stuck": False, "phase": Phase.COMPENSATING}, []),
            ({"stuck": True, "phase": Phase.COMPENSATING}, ["undoing"]),
            ({"paused": True}, ["on-hold"]),
            ({"paused": False, "saga": "place-order", "phase": Phase.RUNNING}, ["going-b", "sticky"]),
            ({"waived": True}, ["ended-a"]),
            ({"waived": False, "phase": Phase.COMPENSATED}, []),
            ({"id_prefix": "ended-"}, ["ended-b", "ended-a"]),
            ({"id_prefix": "ended-", "waived": True}, ["ended-a"]),
            ({"id_prefix": "o", "saga": "place-order"}, ["on-hold"]),
            ({"id_prefix": "nothing"}, []),
            ({"started_after": T0 + timedelta(seconds=6)}, ["undoing", "ended-a"]),
            ({"started_before": T0 + timedelta(seconds=2)}, ["done", "ended-b"]),
            (
                {"started_after": T0 + timedelta(seconds=1), "started_before": T0 + timedelta(seconds=6)},
                ["ended-b", "going-b", "odd", "on-hold", "sticky"],
            ),
            ({"started_after": T0 + timedelta(days=1)}, []),
            ({"started_after": T0 + timedelta(seconds=2), "started_before": T0}, []),
            ({"started_before": T0 + timedelta(microseconds=1)}, ["done"]),
            ({"started_after": T0 + timedelta(seconds=1), "phase": Phase.COMPLETED}, ["ended-b"]),
            ({"started_after": T0 + timedelta(seconds=2), "saga": "place-order", "stuck": True}, ["sticky", "undoing"]),
            ({"started_after": T0 + timedelta(seconds=2), "id_prefix": "ended-"}, ["ended-a"]),
            ({"key": ("customer", "ada")}, ["done", "going-b", "odd", "undoing"]),
            ({"key": ("customer", "ad")}, []),
            ({"key": ("order", "ada")}, []),
            ({"key": ("order", "1")}, ["done"]),
            ({"key": ("customer", "ada"), "saga": "ship-order"}, ["odd"]),
            ({"key": ("customer", "ada"), "phase": Phase.RUNNING}, ["going-b", "odd"]),
            ({"key": ("customer", "ada"), "stuck": False}, ["done", "going-b", "odd"]),
            ({"key": ("customer", "ada"), "started_after": T0 + timedelta(seconds=3)}, ["odd", "undoing"]),
            ({"key": ("customer", "ada"), "started_before": T0 + timedelta(seconds=3)}, ["done", "going-b"]),
            ({"key": ("customer", "ada"), "id_prefix": "u"}, ["undoing"]),
            ({"id_prefix": ""}, ["done", "ended-b", "going-b", "odd", "on-hold", "sticky", "undoing", "ended-a"]),
        ],
        ids=str,
    )
    async def test_filters_of_lists_and_counts(self, store: SagaStore, query: dict[str, Any], found: list[str]) -> None:
        await zoo(store)
        assert await ids(store, order="oldest", **query) == found
        assert await ids(store, order="newest", **query) == found[::-1]
        assert await ids(store, order="newest", limit=1, **query) == found[::-1][:1]
        assert await ids(store, order="oldest", limit=2, **query) == found[:2]
        assert await store.count(SagaQuery(limit=1, **query)) == len(found)

    async def test_id_prefixes_are_taken_literally(self, store: SagaStore) -> None:
        everything = ["100%", "100_x", "100x", "ab", "aB", "größe-1", "größe-2", "größer", "🙂-1", "🙂🙂"]
        await store.commit([commit(snapshot(id)) for id in everything])
        for prefix in ("100", "100%", "100_", "a", "ab", "A", "größe", "größe-", "🙂", "1*"):
            expected = sorted(id for id in everything if id.startswith(prefix))
            assert sorted(await ids(store, id_prefix=prefix)) == expected

    async def test_lists_follow_every_change_of_phase_and_flags(self, store: SagaStore) -> None:
        now = snapshot()
        await store.commit([commit(now)])
        changes: list[dict[str, Any]] = [
            {"stuck": True},
            {"stuck": True, "paused": True},
            {"phase": Phase.COMPENSATING},
            {"phase": Phase.COMPENSATING},
            {"phase": Phase.COMPENSATED, "waived": True},
        ]
        for change in changes:
            then = following(now, **change)
            await store.commit([commit(then, now)])
            now = then
            (line,) = await store.find(SagaQuery())
            assert (line.phase, line.version) == (now.phase, now.version)
            assert (line.stuck, line.paused, line.waived) == (now.stuck, now.paused, bool(now.waived))
            for phase in Phase:
                assert await store.count(SagaQuery(phase=phase)) == (phase is now.phase)
            assert await store.count(SagaQuery(stuck=True)) == now.stuck
            assert await store.count(SagaQuery(paused=True)) == now.paused

    async def test_business_keys_are_taken_literally(self, store: SagaStore) -> None:
        values = ["42", "420", '42"', "42\n", "42:", "4\\2", "a\tb", "größe", "%", " ", "x" * 200]
        await store.commit([commit(snapshot(f"s{n}", keys={"k": value})) for n, value in enumerate(values)])
        for n, value in enumerate(values):
            (line,) = await store.find(SagaQuery(key=("k", value)))
            assert (line.id, line.keys) == (f"s{n}", {"k": value})
            assert await store.count(SagaQuery(key=("k", value))) == 1
        assert await ids(store, key=("k", "4")) == []
        assert await ids(store, key=("K", "42")) == []

    async def test_a_saga_is_found_by_the_business_keys_of_its_last_commit_only(self, store: SagaStore) -> None:
        now = snapshot(keys={"order": "1", "customer": "ada"})
        await store.commit([commit(now)])
        for keys in ({"order": "1", "customer": "bob"}, {}, {"parcel": "7"}, {"parcel": "7"}, {"order": "1"}):
            then = following(now, keys=keys)
            await store.commit([commit(then, now)])
            now = then
            for key in (("order", "1"), ("customer", "ada"), ("customer", "bob"), ("parcel", "7")):
                expected = [now.id] if keys.get(key[0]) == key[1] else []
                assert await ids(store, key=key) == expected
                assert await store.count(SagaQuery(key=key)) == len(expected)

    async def test_a_conflict_changes_no_business_key(self, store: SagaStore) -> None:
        first = snapshot(keys={"order": "1"})
        lost = following(first)
        await store.commit([commit(first)])
        assert await results(store, commit(following(lost, keys={"order": "2"}), lost)) == [CONFLICT]
        assert await results(store, commit(snapshot(first.id, keys={"order": "3"}))) == [CONFLICT]
        assert [await ids(store, key=("order", value)) for value in "123"] == [[first.id], [], []]

    async def test_a_purged_saga_is_not_found_by_its_business_keys(self, store: SagaStore) -> None:
        keys = {"order": "1", "customer": "ada"}
        await store.commit([commit(snapshot("ended", phase=Phase.COMPLETED, keys=keys))])
        await store.commit([commit(snapshot("running", keys=keys))])
        assert await store.purge(T0 + timedelta(seconds=1)) == 1
        assert await ids(store, key=("order", "1")) == ["running"]
        assert await store.count(SagaQuery(key=("customer", "ada"))) == 1

    async def test_of_many_sagas_of_one_business_key_the_first_are_listed(self, store: SagaStore) -> None:
        started = [T0 + timedelta(seconds=n) for n in range(150)]
        many = [snapshot(f"s{n:03}", at=at, keys={"customer": "ada"}) for n, at in enumerate(started)]
        await store.commit([commit(one) for one in many])
        everything = [one.id for one in many]
        assert await ids(store, order="newest", key=("customer", "ada")) == everything[:49:-1]
        assert await ids(store, order="oldest", key=("customer", "ada"), limit=7) == everything[:7]
        window = {"started_after": started[10], "started_before": started[140]}
        assert await ids(store, order="newest", limit=5, **window) == everything[139:134:-1]
        assert await ids(store, limit=1000, key=("customer", "ada"), **window) == everything[10:140]
        assert await store.count(SagaQuery(**window)) == 130
        assert await store.count(SagaQuery(key=("customer", "ada"), **window)) == 130

    async def test_a_hundred_are_listed_unless_another_limit_is_given(self, store: SagaStore) -> None:
        await store.commit([commit(snapshot(f"s{n:03}", at=T0 + timedelta(seconds=n))) for n in range(120)])
        assert await ids(store, order="newest") == [f"s{n:03}" for n in range(119, 19, -1)]
        assert len(await ids(store, limit=1000)) == 120
        assert await ids(store, limit=0) == []
        assert await store.count(SagaQuery()) == 120

    # the map

    async def test_the_first_map_is_adopted_and_the_same_one_accepted_later(self, store: SagaStore) -> None:
        await store.adopt(ShardMap(shards=4))
        await store.adopt(ShardMap(shards=4))
        other = await self.open()
        await other.adopt(ShardMap(shards=4))
        await other.close()

    @pytest.mark.parametrize("other", [ShardMap(shards=5), ShardMap(shards=4, version=2)], ids=str)
    async def test_another_map_than_the_stored_one_is_refused_with_both_numbers(
        self, store: SagaStore, other: ShardMap
    ) -> None:
        await store.adopt(ShardMap(shards=4))
        second = await self.open()
        with pytest.raises(UsageError, match=f"4 shards .*{other.shards} .*version {other.version}"):
            await second.adopt(other)
        await second.adopt(ShardMap(shards=4))
        await second.close()

    async def test_store_time_is_aware_and_does_not_go_back(self, store: SagaStore) -> None:
        before = await store.now()
        assert before.utcoffset() == timedelta()
        await self.pass_time(self.unit)
        assert await store.now() >= before + timedelta(seconds=self.unit)

    # handlings

    async def test_handlings_are_counted_for_each_message_and_seen_by_whoever_opens_the_store(
        self, store: SagaStore
    ) -> None:
        other = await self.open()
        await count_for_each(store, other)
        await other.close()

    async def test_forgotten_handlings_are_counted_from_the_beginning(self, store: SagaStore) -> None:
        await forget_and_count_again(store)

    async def test_many_handlings_are_counted_in_one_call(self, store: SagaStore) -> None:
        await count_many(store)


# what the tests say in one word


async def results(store: SagaStore, *commits: Commit) -> list[CommitResult]:
    return list(await store.commit(commits))


async def held(store: SagaStore, id: str = "order-1") -> tuple[Snapshot | None, LedgerEntry | None]:
    """What is stored of a saga, whatever the epoch of the store."""
    (stored,) = await store.load([id])
    return stored.snapshot, stored.start


async def current(store: SagaStore, id: str = "order-1") -> Snapshot | None:
    return (await store.load([id]))[0].snapshot


async def ended(store: SagaStore, id: str, at: datetime) -> Snapshot:
    """A saga of two commits that completed."""
    first = snapshot(id, at=at)
    last = following(first, phase=Phase.COMPLETED)
    assert await results(store, commit(first)) == [COMMITTED]
    assert await results(store, commit(last, first)) == [COMMITTED]
    return last


async def ids(store: SagaStore, **query: Any) -> list[str]:
    return [line.id for line in await store.find(SagaQuery(**{"order": "oldest", **query}))]


async def zoo(store: SagaStore) -> None:
    """One saga of each sort, started a second apart."""
    sorts: list[tuple[str, dict[str, Any]]] = [
        ("done", {"phase": Phase.COMPLETED, "keys": {"order": "1", "customer": "ada"}}),
        ("ended-b", {"phase": Phase.COMPLETED, "keys": {"customer": "bob"}}),
        ("going-b", {"keys": {"customer": "ada"}}),
        ("odd", {"saga": "ship-order", "keys": {"customer": "ada"}}),
        ("on-hold", {"paused": True}),
        ("sticky", {"stuck": True}),
        ("undoing", {"phase": Phase.COMPENSATING, "stuck": True, "keys": {"customer": "ada"}}),
        ("ended-a", {"phase": Phase.COMPENSATED, "waived": True}),
    ]
    commits = [commit(snapshot(id, at=T0 + timedelta(seconds=n), **kind)) for n, (id, kind) in enumerate(sorts)]
    await store.commit(commits[::-1])


def history(length: int) -> list[Commit]:
    """The commits of one saga, one after the other."""
    now = snapshot()
    commits = [commit(now)]
    for n in range(1, length):
        then = following(now, at=T0 + timedelta(seconds=n), state=b"\xa1x" * n)
        commits.append(commit(then, now))
        now = then
    return commits


def keys(entries: Sequence[OutboxEntry]) -> list[Any]:
    return [entry.key for entry in entries]


def messages(parked: Sequence[Parked]) -> list[Outgoing]:
    return [one.message for one in parked]
