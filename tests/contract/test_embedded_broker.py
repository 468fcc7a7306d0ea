"""The embedded broker passes the suite of the port: as one member of its file, as several, and without sockets."""

import sqlite3
from pathlib import Path

import pytest
from tests.contract.broker import DurableBrokerContract

from amends.brokers import Broker, EmbeddedBroker


class EmbeddedContract(DurableBrokerContract):
    path: Path

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "amends.db"

    async def inject(self, service: str, body: bytes) -> None:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute(
            "INSERT INTO broker_messages (queue, body, owner, deliveries) VALUES (?,?,NULL,0)",
            (f"service:{service}", body),
        )
        connection.close()


class TestBrokersOfOneMember(EmbeddedContract):
    """All brokers of one event loop with the same options share a member."""

    async def open(self) -> Broker:
        return await EmbeddedBroker.open(self.path, delivery_limit=self.delivery_limit)


class TestMembers(EmbeddedContract):
    """Each broker is a member of its own, as those of different processes are."""

    async def open(self) -> Broker:
        lease_s = 30.0 + len(self._opened)
        return await EmbeddedBroker.open(self.path, delivery_limit=self.delivery_limit, lease_s=lease_s)


class TestPollingMembers(EmbeddedContract):
    async def open(self) -> Broker:
        lease_s = 30.0 + len(self._opened)
        return await EmbeddedBroker.open(self.path, delivery_limit=self.delivery_limit, lease_s=lease_s, polling=True)
