"""Where the example keeps its files: all in one folder, `ORDERS_HOME`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

VARIABLE = "ORDERS_HOME"
BROKER = "ORDERS_BROKER"
STORE = "ORDERS_STORE"

WAREHOUSE = "warehouse.db"
BANK = "bank.db"
CARRIERS = "carriers.db"
MESSAGES = "amends.db"
"""The embedded broker and store: what is on its way, and where each saga stands."""


def home() -> Path:
    return Path(os.environ.get(VARIABLE, ".amends/orders"))


@contextmanager
def surroundings(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while; those that are "" stay as they are."""
    given = {name: value for name, value in variables.items() if value}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on a SQLite file: all of it happens, or nothing."""
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def broker_url(home: Path) -> str:
    """The broker that all processes share: the one in `ORDERS_BROKER`, or a file."""
    return os.environ.get(BROKER) or f"embedded://{(home / MESSAGES).resolve()}"


def store_url(home: Path) -> str:
    """The store of the sagas: the one in `ORDERS_STORE`, or the same file."""
    return os.environ.get(STORE) or f"sqlite://{(home / MESSAGES).resolve()}"


def inbox_url(home: Path) -> str:
    """The inbox of the inventory service: its own database."""
    return f"sqlite://{(home / WAREHOUSE).resolve()}"


def plain_inbox_url(home: Path, service: str) -> str | None:
    """The inbox of a service that names none itself, for all its processes to share.

    With the embedded broker it is in that one's file, which is None here; else in Redis if the sagas are; else in a
    file of the service.
    """
    if service not in ("payments", "shipping") or not os.environ.get(BROKER):
        return None
    store = store_url(home)
    return store if store.startswith("redis") else f"sqlite://{(home / f'{service}-inbox.db').resolve()}"
