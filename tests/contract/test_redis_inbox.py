"""The Redis inbox keeps the contract of its port on a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.contract.inbox import SharedInboxContract
from tests.support.redis_servers import RedisCluster, running_cluster
from tests.support.servers import ServiceMissing
from tests.support.timeline import Timeline

from amends.participants import Inbox, connect_inbox
from amends.participants.redis_inbox import RedisInbox


class TestRedisInbox(SharedInboxContract):
    @pytest.fixture(autouse=True)
    def _new_rows(self, redis_url: str) -> None:
        self.time = Timeline()
        self.url = f"{redis_url}?namespace=inbox-{os.urandom(6).hex()}"

    async def open(self) -> Inbox:
        return await RedisInbox.open(self.url, clock=self.time)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    try:
        with running_cluster() as running:
            yield running
    except ServiceMissing as error:
        pytest.skip(f"NOT TESTED on a real cluster: {error}")


@pytest.mark.slow
class TestRedisInboxInACluster(SharedInboxContract):
    @pytest.fixture(autouse=True)
    def _new_rows(self, cluster: RedisCluster) -> None:
        self.time = Timeline()
        self.url = f"{cluster.url}?namespace=inbox-{os.urandom(6).hex()}"

    async def open(self) -> Inbox:
        return await RedisInbox.open(self.url, clock=self.time)


async def test_a_redis_url_opens_a_redis_inbox(redis_url: str) -> None:
    inbox = await connect_inbox(f"{redis_url}?namespace=inbox-{os.urandom(6).hex()}")
    assert isinstance(inbox, RedisInbox)
    await inbox.ping()
    await inbox.close()
    await inbox.close()
