"""The memory store keeps the contract of its port."""

from __future__ import annotations

import pytest
from tests.contract.handlings import forget_in_time
from tests.contract.store import SagaStoreContract
from tests.support.sagas import HandClock

from amends.coordinator.store import SagaStore
from amends.coordinator.stores import MemoryStore


class TestMemoryStore(SagaStoreContract):
    @pytest.fixture(autouse=True)
    def _new_data(self) -> None:
        self.clock = HandClock()
        self.only = MemoryStore(self.clock)

    async def open(self) -> SagaStore:
        return self.only

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_handlings_are_forgotten_after_a_while(self) -> None:
        await forget_in_time(self.only, self.clock)
