"""The Redis inbox keeps the contract of its port on a real server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from zlib import crc32

import pytest
from redis.asyncio import Redis
from tests.contract.inbox import (
    COMMAND,
    DONE,
    IN_DOUBT,
    KEY,
    LEASE_S,
    SharedInboxContract,
    begin,
    finish,
    settle,
)
from tests.support.redis_servers import RedisCluster, running_cluster
from tests.support.servers import PrivateRedis, ServiceMissing
from tests.support.timeline import Timeline

from amends.contracts import ReplyOutcome
from amends.contracts.names import SLOTS
from amends.participants import Inbox, connect_inbox
from amends.participants.redis_inbox import RedisInbox
from amends.participants.rows import Claimed, Fenced


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


# what is believed without asking

NEIGHBOUR = next(
    key
    for number in count()
    if crc32((key := f"neighbour-{number}~i1/reserve#0").encode()) % SLOTS == crc32(KEY.encode()) % SLOTS
)
"""An effect in the same slot."""


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[tuple[RedisInbox, RedisInbox, Timeline]]:
    """Two inboxes on the same rows, of which the first knows that the slot of `KEY` has no low-water mark."""
    time = Timeline()
    url = f"{redis_url}?namespace=inbox-{os.urandom(6).hex()}"
    one, other = await RedisInbox.open(url, clock=time), await RedisInbox.open(url, clock=time)
    await one.begin([settle(NEIGHBOUR)])
    yield one, other, time
    await one.close()
    await other.close()


async def evals(watcher: Redis, asked: Awaitable[object]) -> int:
    """How many scripts something runs, as the server counts them."""
    before = await watcher.info("commandstats")
    await asked
    after = await watcher.info("commandstats")
    return int(after["cmdstat_evalsha"]["calls"] - before.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_claim_and_outcome_of_a_new_command_take_one_script_each(
    private_redis: Callable[..., PrivateRedis],
) -> None:
    server = private_redis()
    inbox = await RedisInbox.open(server.url)
    async with Redis.from_url(server.url) as watcher:
        # the first of a slot has to ask for its low-water mark
        assert await evals(watcher, inbox.begin([begin(NEIGHBOUR)])) >= 2
        assert await evals(watcher, inbox.begin([begin()])) == 1
        assert await evals(watcher, inbox.finish([finish(1, ReplyOutcome.DONE)])) == 1
    await inbox.close()


async def test_claim_that_another_process_took_over_is_not_believed_to_be_ours(
    two: tuple[RedisInbox, RedisInbox, Timeline],
) -> None:
    one, other, time = two
    assert await one.begin([begin()]) == [Claimed(1, COMMAND)]
    time.advance(LEASE_S + 1)
    assert await other.begin([begin()]) == [Claimed(2, COMMAND)]
    assert await one.finish([finish(1, ReplyOutcome.DONE)]) == [Fenced()]
    assert await other.finish([finish(2, ReplyOutcome.DONE)]) == [DONE]


async def test_command_that_another_process_has_done_is_not_believed_to_be_new(
    two: tuple[RedisInbox, RedisInbox, Timeline],
) -> None:
    one, other, _ = two
    await other.begin([begin()])
    await other.finish([finish(1, ReplyOutcome.DONE)])
    assert await one.begin([begin()]) == [DONE]


async def test_command_past_its_time_that_was_done_elsewhere_gets_its_reply_all_the_same(
    two: tuple[RedisInbox, RedisInbox, Timeline],
) -> None:
    one, other, time = two
    await other.begin([begin()])
    await other.finish([finish(1, ReplyOutcome.DONE)])
    too_late = time.now()
    time.advance(1)
    assert await one.begin([begin(start_before=too_late)]) == [DONE]


async def test_low_water_mark_that_another_process_raised_is_minded(
    two: tuple[RedisInbox, RedisInbox, Timeline],
) -> None:
    one, other, time = two
    issued = time.now()
    assert await one.begin([begin(issued_at=issued)]) == [Claimed(1, COMMAND)]
    await one.finish([finish(1, ReplyOutcome.DONE)])
    time.advance(1000)
    assert await other.purge(time.now()) == 2
    assert await one.begin([begin(issued_at=issued)]) == [IN_DOUBT]
