"""What has been over for long enough is removed by whoever owns its slot, and nothing sooner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.rig import Order, Rig
from tests.support.sagas import HandClock, commit, following, snapshot

from amends.brokers import MemoryBroker, Retention
from amends.brokers.retention import FOREVER
from amends.contracts import UsageError, slot_of
from amends.coordinator import CoordinatorConfig, Policy, Saga, StoreUnavailable
from amends.coordinator.coordinator import Engine
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.purger import Purger
from amends.coordinator.registry import Registry
from amends.coordinator.store import EVERYWHERE
from amends.coordinator.stores import MemoryStore
from amends.coordinator.trouble import Trouble

DAY = timedelta(days=1)
RETENTION = Retention(sagas=30 * DAY, ledger=60 * DAY)


class History:
    """A store in which sagas have ended, and a purger of it."""

    def __init__(self, retention: Retention = RETENTION, fault: Callable[[str], None] | None = None) -> None:
        self.clock = HandClock()
        self.store = MemoryStore(self.clock, fault=fault)
        self.purger = Purger(self.store, retention)
        self.purger.own(EVERYWHERE)

    async def end(self, *ids: str) -> None:
        for id in ids:
            first = snapshot(id, at=self.clock.now())
            await self.store.commit([commit(first)])
            await self.store.commit([commit(following(first, phase=Phase.COMPLETED, at=self.clock.now()), first)])

    async def known(self, id: str) -> tuple[bool, bool]:
        """Whether its saga is there, and whether its id is remembered."""
        (stored,) = await self.store.load([id])
        return stored.snapshot is not None, stored.start is not None

    def pass_days(self, days: float) -> None:
        self.clock.advance(days * 86_400)


async def test_an_ended_saga_goes_after_its_retention_and_its_id_after_that_of_the_ledger() -> None:
    history = History()
    await history.end("o-1")
    for days, expected in ((30, (True, True)), (0.001, (False, True)), (59.9, (False, True)), (0.2, (False, False))):
        history.pass_days(days)
        await history.purger.purge()
        assert await history.known("o-1") == expected


async def test_a_running_saga_is_kept_however_old_it_is() -> None:
    history = History()
    await history.store.commit([commit(snapshot("o-1"))])
    history.pass_days(10_000)
    assert await history.purger.purge() == 0
    assert await history.known("o-1") == (True, True)


async def test_a_long_saga_is_remembered_from_its_end_and_not_from_its_start() -> None:
    history = History()
    first = snapshot("o-1", at=history.clock.now())
    await history.store.commit([commit(first)])
    history.pass_days(500)
    await history.store.commit([commit(following(first, phase=Phase.COMPLETED, at=history.clock.now()), first)])
    history.pass_days(31)
    await history.purger.purge()
    assert await history.known("o-1") == (False, True)


async def test_what_is_kept_for_ever_is_never_removed() -> None:
    history = History(FOREVER)
    await history.end("o-1")
    history.pass_days(100_000)
    assert await history.purger.purge() == 0
    only_ids = History(Retention(sagas=DAY, ledger=None))
    await only_ids.end("o-1")
    only_ids.pass_days(100_000)
    await only_ids.purger.purge()
    assert await only_ids.known("o-1") == (False, True)


async def test_more_than_a_batch_is_removed_at_once() -> None:
    history = History()
    await history.end(*(f"o-{n}" for n in range(450)))
    history.pass_days(31)
    assert await history.purger.purge() == 450


async def test_a_coordinator_removes_only_what_is_in_its_slots() -> None:
    history = History()
    ids = [f"o-{n}" for n in range(20)]
    await history.end(*ids)
    history.pass_days(31)
    history.purger.own(())
    assert await history.purger.purge() == 0
    history.purger.own((range(512),))
    await history.purger.purge()
    assert [id for id in ids if (await history.known(id))[0]] == [id for id in ids if slot_of(id) >= 512]


async def test_a_store_that_is_away_is_waited_for_and_then_purged() -> None:
    history = History()
    met: list[str] = []

    def fault(point: str) -> None:
        if point == "purge:before" and len(met) < 2:
            met.append(point)
            history.purger.own(EVERYWHERE)  # look again at once
            raise StoreUnavailable("away")

    history.store._fault = fault
    await history.end("o-1")
    history.pass_days(31)
    running = asyncio.create_task(history.purger.run(Trouble("the purge")))
    with capture_logs() as logs:
        async with asyncio.timeout(30):
            while (await history.known("o-1"))[0]:
                await asyncio.sleep(0)
    running.cancel()
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "the purge waits; it goes on by itself"
    ]


async def test_a_start_that_is_repeated_after_the_saga_was_removed_is_known_again() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1", "first")
    await rig.run()
    rig.clock.advance(31 * 86_400)
    assert await rig.engine.purger.purge() == 1
    await rig.start(Order(), "o-1", "second")
    await rig.run()
    assert rig.notices[-1][1].existing
    assert set(rig.shop.effects.values()) == {1}


async def test_an_id_that_is_forgotten_by_hand_before_its_time_does_nothing_anew() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1", "first")
    await rig.run()
    now = await rig.store.now() + timedelta(seconds=1)
    assert (await rig.store.purge(now), await rig.store.purge_ledger(now)) == (1, 1)
    await rig.start(Order(), "o-1", "second")
    await rig.run()
    assert (await rig.snapshot("o-1")).phase is Phase.COMPLETED
    assert set(rig.shop.effects.values()) == {1}
    rig.clock.advance(2 * 91 * 86_400)
    await rig.engine.purger.purge()
    rig.clock.advance(1)
    await rig.start(Order(), "o-1", "third")
    await rig.run()
    assert len(rig.shop.effects) == 4, "another saga, with effects of its own"


# times that must go together


class Endless(Saga): ...


class Long(Saga, deadline=timedelta(days=80)): ...


class Forgetful(MemoryBroker):
    """A broker whose messages do not live for ever."""

    def __init__(self, kept: timedelta) -> None:
        super().__init__()
        self.messages_kept = kept


def engine(
    saga: type[Saga] = Endless, *, kept: timedelta | None = None, policy: Policy | None = None, **times: Any
) -> Engine:
    broker = MemoryBroker() if kept is None else Forgetful(kept)
    config = CoordinatorConfig(retention=Retention(**times))
    return Engine(Registry([saga]), broker, MemoryStore(), policy or Policy(), config)


def test_rule_7_a_deadline_that_outlives_the_inboxes_is_refused_with_both_values_and_the_remedy() -> None:
    with pytest.raises(
        UsageError, match=r"long\.v1 may run for 80d.*inbox_retention=90d.*Raise inbox_retention to 94d"
    ):
        engine(Long)
    engine(Long, inbox=timedelta(days=94))
    engine(Long, inbox=None)


def test_rule_7_sagas_without_deadline_are_told_how_long_they_may_take() -> None:
    with capture_logs() as logs:
        engine()
    (told,) = logs
    assert (told["sagas"], told["within"]) == (["endless.v1"], "76d")
    assert "deadline=" in told["remedy"]
    with capture_logs() as logs:
        engine(inbox=None)
    assert logs == []


def test_rule_7_commands_that_may_begin_later_than_any_message_may_come_are_refused() -> None:
    policy = Policy(command_ttl=timedelta(days=20))
    with pytest.raises(UsageError, match=r"command_ttl=20d.*message_age=2w.*Lower command_ttl"):
        engine(policy=policy)


@pytest.mark.parametrize(
    ("kept", "problem"),
    [
        (timedelta(days=30), r"keeps messages for 30d.*message_age=2w.*Raise message_age to 30d"),
        (timedelta(minutes=4), r"keeps messages for 4m.*command_ttl=5m.*keep them for longer"),
    ],
)
def test_rule_7_a_broker_that_keeps_messages_for_too_long_or_too_short_is_refused(
    kept: timedelta, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        engine(kept=kept)


def test_a_broker_that_forgets_within_a_day_is_warned_of() -> None:
    with capture_logs() as logs:
        engine(kept=timedelta(hours=1), inbox=None)
    assert [(entry["log_level"], entry["messages_kept"]) for entry in logs] == [("warning", "1h")]
