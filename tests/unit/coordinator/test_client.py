"""The client: every caller gets the answer to its own question, whatever else comes or goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amends.brokers import EmbeddedBroker, Outgoing
from amends.contracts import Envelope, Kind, Signal
from amends.coordinator import Coordinator, Refused, Saga, SagaClient, WaitFor, step
from amends.coordinator.stores import SqliteStore


class Approve(Signal):
    by: str = "ada"


class Approved(Saga):
    @step
    def approval(self) -> WaitFor[Approve]:
        return WaitFor(Approve)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = await EmbeddedBroker.open(tmp_path / "amends.db")
    yield broker
    await broker.close()


@pytest.fixture
async def sagas(broker: EmbeddedBroker) -> AsyncIterator[SagaClient]:
    store = SqliteStore.open(broker.path)
    async with (
        Coordinator([Approved], broker=broker, store=store).running(),
        SagaClient(broker=broker, store=store) as sagas,
    ):
        yield sagas
    await store.close()


async def test_words_of_one_id_to_several_sagas_have_each_their_own_answer(sagas: SagaClient) -> None:
    await sagas.start(Approved(), id="a-1")
    told = await asyncio.gather(
        sagas.signal("a-1", Approve(), id="word"),
        sagas.signal("nobody", Approve(), id="word"),
        return_exceptions=True,
    )
    assert told[0] is None
    assert isinstance(told[1], Refused)


async def test_two_who_say_the_same_word_are_both_answered(sagas: SagaClient) -> None:
    await sagas.start(Approved(), id="a-1")
    await asyncio.gather(*(sagas.signal("a-1", Approve(), id="word") for _ in range(2)))


async def test_an_answer_that_cannot_be_read_is_a_dead_letter_and_the_client_goes_on(
    sagas: SagaClient, broker: EmbeddedBroker
) -> None:
    watching = await sagas.start(Approved(), id="a-1")
    address = (await sagas.snapshot("a-1")).watchers[0]
    odd = Envelope(
        id="1",
        kind=Kind.NOTICE,
        type="odd",
        source="/test",
        subject="a-1",
        time=datetime.now(UTC),
        data=b"garbage",
        causation_id="1",
    )
    await broker.publish([Outgoing(address, odd)])
    await sagas.start(Approved(), id="a-2")
    await watching.signal(Approve())
    assert [letter.reason for letter in await broker.dead_letters()] == ["undecodable"]


async def test_a_word_that_cannot_be_sent_does_not_keep_others_from_being_sent(sagas: SagaClient) -> None:
    told = await asyncio.gather(
        sagas.signal("a-1", Approve(), id="\udcff"), sagas.start(Approved(), id="a-1"), return_exceptions=True
    )
    assert isinstance(told[0], UnicodeEncodeError)
    assert await sagas.snapshot("a-1")
