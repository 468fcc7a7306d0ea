"""The SQLite inbox keeps the contract of its port, and shares its transaction with handlers."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.contract.inbox import (
    CLOSED,
    DONE,
    SharedInboxContract,
    TransactionalInboxContract,
    begin,
    settle,
    work,
    write,
)
from tests.support.timeline import Timeline

from amends.brokers.sqlite_file import FileUnavailable
from amends.contracts import ReplyOutcome, TerminalError, UsageError
from amends.participants import Session, SqliteInbox, TransactionalInbox
from amends.participants.inbox import Performed, Raised, Work
from amends.participants.rows import Claimed


class TestSqliteInbox(SharedInboxContract, TransactionalInboxContract):
    @pytest.fixture(autouse=True)
    def _new_rows(self, tmp_path: Path) -> None:
        self.time = Timeline()
        self.path = tmp_path / "inventory.db"
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("CREATE TABLE written (text)")

    async def open(self) -> TransactionalInbox:
        return SqliteInbox.open(self.path, clock=self.time)

    async def written(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [text for (text,) in connection.execute("SELECT text FROM written ORDER BY rowid")]

    async def test_claim_is_on_disk_when_it_is_told(self, inbox: TransactionalInbox) -> None:
        await inbox.begin([begin()])
        with closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("SELECT count(*) FROM inbox").fetchone() == (1,)

    async def test_handlers_of_other_jobs_are_not_touched_by_one_that_breaks_the_transaction(
        self, inbox: TransactionalInbox
    ) -> None:
        def commit(claimed: Claimed, session: Session) -> Performed:
            session.connection.execute("COMMIT")
            return Performed(ReplyOutcome.DONE)

        broken = asyncio.ensure_future(self.transact(inbox, Work(begin("a"), commit)))
        good = asyncio.ensure_future(self.transact(inbox, work(begin("b"), write("b"))))
        with pytest.raises(UsageError, match="ended the inbox's transaction"):
            await broken
        assert await good == [DONE]
        assert await self.written() == ["b"]

    async def test_trouble_with_the_file_is_not_the_handlers_failure(self, inbox: TransactionalInbox) -> None:
        def out_of_room(claimed: Claimed, session: Session) -> Performed:
            session.execute("PRAGMA max_page_count=1")
            session.execute("INSERT INTO written VALUES (zeroblob(1000000))")
            return Performed(ReplyOutcome.DONE)

        with pytest.raises(FileUnavailable, match="full"):
            await self.transact(inbox, work(begin("a"), write("a")), Work(begin("b"), out_of_room))
        assert await self.written() == []

    async def test_row_that_cannot_be_read_is_named(self, inbox: TransactionalInbox) -> None:
        await inbox.begin([settle("order-7~i/a#0")])
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("UPDATE inbox SET row = x'00'")
            connection.commit()
        with pytest.raises(TerminalError, match="order-7~i/a#0"):
            await inbox.begin([begin("order-7~i/a#0")])
        assert await self.ask(inbox, settle("order-8~i/a#0")) == CLOSED

    async def test_ping_tells_of_a_file_that_was_closed(self) -> None:
        inbox = SqliteInbox.open(self.path, clock=self.time)
        await inbox.ping()
        await inbox.close()
        with pytest.raises(FileUnavailable):
            await inbox.ping()

    async def test_handler_that_raised_may_run_again_in_the_same_call(self, inbox: TransactionalInbox) -> None:
        answers = await self.transact(inbox, work(begin(), write("a"), error=RuntimeError()), work(begin(), write("b")))
        assert isinstance(answers[0], Raised)
        assert answers[1] == DONE
        assert await self.written() == ["b"]
