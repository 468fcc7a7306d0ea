"""Rows of the inbox go when nobody will ask for them any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs
from tests.support.desk import Reserve, Reserved
from tests.support.timeline import Timeline
from tests.support.waiting import assert_eventually

from amends.brokers import MemoryBroker
from amends.brokers.retention import FOREVER
from amends.contracts import ReplyOutcome, UsageError
from amends.participants import MemoryInbox, Participant, Retention
from amends.participants.forgetting import Forgetter
from amends.participants.rows import Answered, Settle

DAY = timedelta(days=1)
KEPT = Retention(inbox=90 * DAY)


async def close_effect(inbox: MemoryInbox, time: Timeline, key: str = "o-1~i/reserve#0") -> None:
    await inbox.begin([Settle(effect_key=key, revision=0, issued_at=time.now())])


@pytest.fixture
def time() -> Timeline:
    return Timeline()


@pytest.fixture
def inbox(time: Timeline) -> MemoryInbox:
    return MemoryInbox(time)


def forgetter(inbox: MemoryInbox, time: Timeline, retention: Retention = KEPT) -> Forgetter:
    return Forgetter("inventory", inbox, retention, time, time.sleep)


async def test_rows_are_forgotten_after_their_retention_and_then_in_doubt(inbox: MemoryInbox, time: Timeline) -> None:
    issued = time.now()
    await close_effect(inbox, time)
    time.advance(90 * 86_400)
    assert await forgetter(inbox, time).purge() == 0
    time.advance(1)
    assert await forgetter(inbox, time).purge() == 1
    (answer,) = await inbox.begin([Settle(effect_key="o-1~i/reserve#0", revision=0, issued_at=issued)])
    assert answer == Answered(ReplyOutcome.IN_DOUBT)


async def test_of_the_processes_of_a_service_one_purges_each_time(inbox: MemoryInbox, time: Timeline) -> None:
    one, other = forgetter(inbox, time), forgetter(inbox, time)
    await one.purge(86_400)
    mark = await inbox.low_water_mark()
    assert mark == time.now() - 90 * DAY
    time.advance(3_600)
    await other.purge(86_400)
    assert await inbox.low_water_mark() == mark
    time.advance(86_400)
    await other.purge(86_400)
    assert await inbox.low_water_mark() == time.now() - 90 * DAY


async def test_it_is_looked_after_every_day_and_an_inbox_kept_for_ever_never(
    inbox: MemoryInbox, time: Timeline
) -> None:
    running = asyncio.create_task(forgetter(inbox, time).run())
    assert await time.asleep() == 60, "the rush of a start is left to pass"
    assert await inbox.low_water_mark() is None
    time.advance(60)
    assert await time.asleep() == 86_400
    first = await inbox.low_water_mark()
    time.advance(86_400)
    assert await time.asleep() == 86_400
    assert await inbox.low_water_mark() == time.now() - 90 * DAY != first
    running.cancel()
    untouched = MemoryInbox(time)
    assert await forgetter(untouched, time, FOREVER).purge() == 0
    assert await untouched.low_water_mark() is None


async def test_an_inbox_that_cannot_be_purged_is_told_of_and_tried_again(inbox: MemoryInbox, time: Timeline) -> None:
    class Broken(MemoryInbox):
        async def purge(self, before: object) -> int:
            raise ValueError("no such row")

    with capture_logs() as logs:
        running = asyncio.create_task(forgetter(Broken(time), time).run())
        await time.asleep()
        time.advance(60)
        await time.asleep()
    running.cancel()
    assert [entry["event"] for entry in logs] == ["the inbox cannot be purged"]


async def test_a_running_participant_forgets_by_itself() -> None:
    second = timedelta(seconds=1)
    kept = Retention(sagas=second, ledger=second, inbox=second / 5, messages=second / 10)
    inventory = Participant("inventory", retention=kept)

    @inventory.action
    def reserve(command: Reserve) -> Reserved:
        return Reserved(reservation="r")

    inbox = MemoryInbox()
    await inbox.begin([Settle(effect_key="o-1~i/reserve#0", revision=0, issued_at=None)])

    async def is_forgotten() -> bool:
        return not inbox._rows

    async with inventory.running(MemoryBroker(), inbox=inbox):
        await assert_eventually(is_forgotten)


def test_settings_that_do_not_go_together_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENDS_INBOX_RETENTION", "7d")
    inventory = Participant("inventory")
    with pytest.raises(UsageError, match=r"inbox_retention=1w is not longer than message_age=2w.*Raise"):
        inventory.running(MemoryBroker(), inbox=MemoryInbox())
