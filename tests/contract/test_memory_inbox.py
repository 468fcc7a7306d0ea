"""The memory inbox keeps the contract of its port."""

from __future__ import annotations

import pytest
from tests.contract.inbox import InboxContract
from tests.support.timeline import Timeline

from amends.participants import Inbox, MemoryInbox, TransactionalInbox


class TestMemoryInbox(InboxContract):
    @pytest.fixture(autouse=True)
    def _new_rows(self) -> None:
        self.time = Timeline()

    async def open(self) -> Inbox:
        return MemoryInbox(self.time)


def test_memory_inbox_is_private_and_has_no_transactions() -> None:
    assert not MemoryInbox().shared
    assert not isinstance(MemoryInbox(), TransactionalInbox)
