"""The payments service of the order example, written from docs/protocol.md alone: its effects and its inbox are in one
SQLite file, and so in one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from cloudevents.core.v1.event import CloudEvent
from tests.support.plain.messages import Transport, Unreadable, reply

SERVICE = "payments"
SKEW = timedelta(seconds=5)

TABLES = (
    """CREATE TABLE IF NOT EXISTS inbox
       (effect_key TEXT PRIMARY KEY, state TEXT NOT NULL, revision INTEGER NOT NULL, type TEXT, data TEXT)""",
    # no key is unique here, on purpose: what is done twice is there twice
    "CREATE TABLE IF NOT EXISTS ledger (effect_key TEXT, order_id TEXT, account TEXT, amount INTEGER)",
)


class Row(NamedTuple):
    """What is known of an effect: `done`, `rejected`, `closed` or `undone`; the reply or the rejection."""

    state: str
    revision: int = 0
    type: str | None = None
    data: str | None = None


class Answer(NamedTuple):
    outcome: str
    type: str = "amends.done.v1"
    data: dict[str, Any] = {}


class Payments:
    """Handles one message at a time. `reached` is told when an effect is written (`effect`), and when it is committed
    (`commit`): tests let the process die there."""

    def __init__(self, path: str, reached: Callable[[str], None] = lambda point: None) -> None:
        self._reached = reached
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        for table in TABLES:
            self._db.execute(table)

    def handle(self, asked: CloudEvent) -> CloudEvent | None:
        """Decide and store; the reply, or None when there is nothing to say. Raises `Unreadable`."""
        key, data = asked.get_extension("effectkey"), asked.get_data()
        if not key or not isinstance(data, dict):
            raise Unreadable("undecodable", "no effect key, or no data")
        answer = self._transact(asked, str(key), data)
        return None if answer is None else reply(asked, "/plain/payments", *answer)

    def _transact(self, asked: CloudEvent, key: str, data: dict[str, Any]) -> Answer | None:
        kind, type = asked.get_extension("amendskind"), asked.get_type()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            found = self._db.execute("SELECT state, revision, type, data FROM inbox WHERE effect_key = ?", (key,))
            row = None if (values := found.fetchone()) is None else Row(*values)
            match kind, type:
                case "command", "payments.charge.v1":
                    answer = self._command(asked, key, row, data)
                case "undo", "payments.refund.v1":
                    answer = self._undo(asked, key, row, data)
                case "settle", "amends.settle.v1":
                    answer = self._settle(asked, key, row)
                case _:
                    raise Unreadable("unknown-type", f"{SERVICE} knows no {kind} {type}")
            self._db.execute("COMMIT")
        except Unreadable:
            self._db.execute("ROLLBACK")
            raise
        except Exception as error:
            self._db.execute("ROLLBACK")
            failure = {"error": error.__class__.__name__, "message": str(error)}
            return Answer("undo-failed" if kind == "undo" else "failed", "amends.failure.v1", failure)
        self._reached("commit")
        return answer

    def _command(self, asked: CloudEvent, key: str, row: Row | None, data: dict[str, Any]) -> Answer | None:
        if row is not None and not (row.state == "rejected" and _revision(asked) > row.revision):
            return _recorded(row) if row.state in ("done", "rejected") else Answer(row.state)
        not_after = asked.get_extension("notafter")
        if not_after and datetime.now(UTC) > datetime.fromisoformat(not_after) + SKEW:
            return None
        answer = self._charge(key, data)
        self._store(key, Row(answer.outcome, _revision(asked), answer.type, json.dumps(answer.data)))
        return answer

    def _undo(self, asked: CloudEvent, key: str, row: Row | None, data: dict[str, Any]) -> Answer:
        if row is not None and row.state == "undone":
            return Answer("undone")
        if (row is not None and row.state == "done") or data["reply"] is not None:
            self._refund(key, data["command"]["data"])
            self._store(key, Row("undone"))
            return Answer("undone")
        if row is None or row.state == "rejected":
            self._store(key, Row("closed", _revision(asked)) if row is None else row._replace(state="closed"))
        return Answer("closed")

    def _settle(self, asked: CloudEvent, key: str, row: Row | None) -> Answer:
        if row is None:
            self._store(key, Row("closed", _revision(asked)))
            return Answer("closed")
        if row.state == "done":
            return _recorded(row)
        if row.state == "undone":
            return Answer("undone")
        if row.state == "rejected":
            self._store(key, row._replace(state="closed"))
        if row.type is None or _revision(asked) > row.revision:
            return Answer("closed")
        return _recorded(row)._replace(outcome="rejected")

    # the business

    def _charge(self, key: str, command: dict[str, Any]) -> Answer:
        if command["amount"] <= 0:
            raise ValueError(f"{command['amount']} is nothing to charge")
        if command["account"].endswith("/empty"):
            return Answer("rejected", "payment-refused.v1", {"reason": "insufficient funds"})
        self._write(key, command, -command["amount"])
        return Answer("done", "payment-taken.v1", {"receipt": key})

    def _refund(self, key: str, command: dict[str, Any]) -> None:
        self._write(key, command, command["amount"])

    def _write(self, key: str, command: dict[str, Any], amount: int) -> None:
        entry = (key, command["order_id"], command["account"], amount)
        self._db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?)", entry)
        self._reached("effect")

    def _store(self, key: str, row: Row) -> None:
        self._db.execute("INSERT OR REPLACE INTO inbox VALUES (?, ?, ?, ?, ?)", (key, *row))


def _recorded(row: Row) -> Answer:
    assert row.type is not None
    assert row.data is not None
    return Answer(row.state, row.type, json.loads(row.data))


def _revision(asked: CloudEvent) -> int:
    return int(asked.get_extension("revision") or 0)


async def serve(transport: Transport, payments: Payments) -> None:
    """Decide and store, answer, acknowledge; for ever."""
    async for received in transport.commands(SERVICE):
        try:
            asked = received.read()
            answer = payments.handle(asked)
        except Unreadable as unreadable:
            await transport.bury(received, unreadable)
            continue
        reply_to = asked.get_extension("replyto")
        if answer is not None and reply_to:
            await transport.send(reply_to, answer)
        await transport.done(received)
