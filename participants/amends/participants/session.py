"""The database as a transactional handler sees it: the inbox's own transaction, which it cannot end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from amends.contracts import UsageError

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

_ENDS_TRANSACTION = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK"})


class Session:
    """A connection to the inbox's SQLite file, for the time of one handler.

    What is written here is committed together with the inbox's row, or not at all. Statements that would begin or end a
    transaction are refused with `UsageError`; savepoints are allowed. `connection` is the `sqlite3.Connection` itself,
    for libraries that want one: they must not commit.
    """

    __slots__ = ("connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Run one statement; iterate the cursor for its rows."""
        return self.connection.execute(_checked(sql), parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> sqlite3.Cursor:
        """Run one statement for each of many parameters."""
        return self.connection.executemany(_checked(sql), parameters)


def _checked(sql: str) -> str:
    words = sql.split(None, 2)
    if words and words[0].rstrip(";").upper() in _ENDS_TRANSACTION and (len(words) < 2 or words[1].upper() != "TO"):
        raise UsageError(
            f"{words[0].upper()} in a transactional handler: the inbox ends the transaction. "
            "Leave it out; raise to roll back what the handler wrote"
        )
    return sql
