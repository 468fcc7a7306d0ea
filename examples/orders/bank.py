"""A bank: the world outside, with a database that nobody else can join in a transaction.

Like the ones we know, it takes an idempotency key with every call, and does nothing twice for one key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .home import transaction


class Declined(Exception):
    """The account cannot pay."""


class Bank:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open_accounts(self, balances: Mapping[str, int]) -> None:
        """Open accounts with so many cents. Those that exist stay as they are."""
        with transaction(self._path) as connection:
            for table in TABLES:
                connection.execute(table)
            connection.executemany("INSERT OR IGNORE INTO accounts VALUES (?1, ?2, ?2)", balances.items())

    def charge(self, key: str, account: str, amount: int, order_id: str) -> None:
        """Take cents from an account. Raises `Declined` when there are too few, or the charge was reversed before."""
        with transaction(self._path) as connection:
            known = connection.execute("SELECT amount FROM entries WHERE key = ?", (key,)).fetchone()
            if known == (-amount,):
                return
            found = connection.execute("SELECT balance FROM accounts WHERE account = ?", (account,)).fetchone()
            if known or not found or found[0] < amount:
                raise Declined("the charge was reversed" if known else "insufficient funds")
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (key, order_id, account, -amount))
            connection.execute("UPDATE accounts SET balance = balance - ? WHERE account = ?", (amount, account))

    def reverse(self, key: str, charge_key: str, order_id: str) -> None:
        """Give back what was taken under `charge_key`. If that has not come yet, it will not be let in any more."""
        with transaction(self._path) as connection:
            if connection.execute("SELECT 1 FROM entries WHERE key = ?", (key,)).fetchone():
                return
            charged = connection.execute(
                "SELECT account, amount FROM entries WHERE key = ? AND amount < 0", (charge_key,)
            ).fetchone()
            if charged is None:
                connection.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, '', 0)", (charge_key, order_id))
                return
            account, amount = charged
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (key, order_id, account, -amount))
            connection.execute("UPDATE accounts SET balance = balance - ? WHERE account = ?", (amount, account))


TABLES = (
    """CREATE TABLE IF NOT EXISTS accounts
       (account TEXT PRIMARY KEY, opening INTEGER NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0))""",
    "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, order_id TEXT, account TEXT, amount INTEGER)",
)
