"""An inbox in the broker's own file records outcomes and publishes their replies in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.broker import message
from tests.contract.inbox import DONE, begin, work, write
from tests.support.timeline import Timeline

from amends.brokers import EmbeddedBroker, MemoryBroker, Outgoing
from amends.brokers.sqlite_file import FileUnavailable
from amends.contracts import InternalError, ReplyOutcome
from amends.participants import Session, SqliteInbox
from amends.participants.inbox import Performed, PublishingInbox, Raised, Work
from amends.participants.rows import Answered, Claimed


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    broker = await EmbeddedBroker.open(tmp_path / "amends.db")
    await broker._file.write(lambda db: db.execute("CREATE TABLE written (text)").fetchone())
    yield broker
    await broker.close()


@pytest.fixture
async def inbox(broker: EmbeddedBroker) -> AsyncIterator[SqliteInbox]:
    inbox = SqliteInbox.open(broker.path, clock=Timeline())
    yield inbox
    await inbox.close()


def replying(work: Work, address: str = "service:replies") -> Work:
    def reply(answer: Answered) -> Outgoing:
        return message(address, f"{work.request.effect_key}: {answer.outcome}")

    return Work(work.request, work.run, reply)


def column(broker: EmbeddedBroker, sql: str) -> list[Any]:
    def job(db: sqlite3.Connection) -> list[Any]:
        return [value for (value,) in db.execute(sql)]

    return broker._file.read(job)


async def published(broker: EmbeddedBroker) -> list[str]:
    consumer = await broker.consume_service("replies")
    ids = [delivery.envelope.id for delivery in await consumer.receive() if delivery.envelope]
    await consumer.close()
    return ids


async def test_inbox_joins_the_broker_of_its_file_and_no_other(inbox: SqliteInbox, broker: EmbeddedBroker) -> None:
    assert isinstance(inbox, PublishingInbox)
    assert inbox.joins(broker)
    assert not inbox.joins(MemoryBroker())
    with pytest.raises(InternalError):
        await inbox.transact_and_publish([], MemoryBroker())


async def test_answers_are_published_and_a_handler_that_raised_says_nothing(
    inbox: SqliteInbox, broker: EmbeddedBroker
) -> None:
    works = [
        replying(work(begin("a"), write("a"))),
        replying(work(begin("b"), write("b"), error=RuntimeError())),
        replying(work(begin("c"), write("c"), outcome=ReplyOutcome.REJECTED)),
    ]
    answers = await inbox.transact_and_publish(works, broker)
    assert answers[0] == DONE
    assert isinstance(answers[1], Raised)
    assert column(broker, "SELECT text FROM written") == ["a"]
    assert await published(broker) == ["a: done", "c: rejected"]


async def test_when_the_transaction_fails_there_is_neither_row_nor_reply(
    inbox: SqliteInbox, broker: EmbeddedBroker
) -> None:
    def out_of_room(claimed: Claimed, session: Session) -> Performed:
        session.execute("PRAGMA max_page_count=1")
        session.execute("INSERT INTO written VALUES (zeroblob(1000000))")
        return Performed(ReplyOutcome.DONE)

    good = replying(work(begin("a"), write("a")))
    with pytest.raises(FileUnavailable, match="full"):
        await inbox.transact_and_publish([good, replying(Work(begin("b"), out_of_room))], broker)
    for table in ("written", "inbox", "broker_messages"):
        assert column(broker, f"SELECT count(*) FROM {table}") == [0]

    # the same again, as after a redelivery
    await broker._file.write(lambda db: db.execute("PRAGMA max_page_count=1000000").fetchone())
    assert await inbox.transact_and_publish([good], broker) == [DONE]
    assert await published(broker) == ["a: done"]
