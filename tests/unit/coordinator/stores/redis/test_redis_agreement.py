"""The memory store and the Redis store answer the same to whatever is done to them."""

from __future__ import annotations

import os
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule, run_state_machine_as_test
from tests.unit.coordinator.stores.test_agreement import Stores

from amends.coordinator.core.snapshot import Snapshot
from amends.coordinator.store import Commit
from amends.coordinator.stores.redis import RedisStore


class RedisStores(Stores):
    """Drives a memory store and a Redis store. No two things happen at the same moment: Redis orders those by name."""

    url: str

    async def _open(self) -> Any:
        if not hasattr(self, "namespace"):
            self.namespace = f"agreement-{os.urandom(6).hex()}"
        return await RedisStore.open(f"{self.url}?namespace={self.namespace}", self.clock)

    def committed(self, one: Commit, *cleared: Snapshot) -> Commit:
        super().committed(one, *cleared)
        self.clock.advance(0.000001)
        return one

    @rule(some=st.lists(Stores.commits, max_size=5), cleared=st.lists(Stores.commits, max_size=3))
    def repeat(self, some: list[Commit], cleared: list[Commit]) -> None:
        for one in some:
            self.committed(one, *(other.snapshot for other in cleared))


@pytest.mark.slow
def test_memory_and_redis_agree(redis_url: str) -> None:
    machine = type("OnThisServer", (RedisStores,), {"url": redis_url})
    run_state_machine_as_test(  # type: ignore[no-untyped-call, unused-ignore]
        machine,
        settings=settings(
            max_examples=int(os.environ.get("AMENDS_TEST_EXAMPLES", "15")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
