"""The Redis store keeps the contract of its port on a real server, alone and in a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from tests.contract.store import ALL, COMMITTED, CONFLICT, EVENT, SagaStoreContract, current, results
from tests.support.redis_servers import LossyProxy, RedisCluster, ask, running_cluster
from tests.support.sagas import T0, HandClock, commit, following, message, outbox_key, snapshot
from tests.support.servers import PrivateRedis, ServiceMissing

from amends.brokers import ShardMap
from amends.contracts import InternalError, slot_of
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.store import (
    Commit,
    CommitResult,
    Interest,
    Parked,
    SagaQuery,
    SagaStore,
    StoreCorrupt,
    StoreUnavailable,
)
from amends.coordinator.stores.redis import RedisStore

DAY = timedelta(days=1)


def fresh(url: str) -> str:
    """The URL with a namespace of its own."""
    return f"{url}?namespace=test-{os.urandom(6).hex()}"


class TestRedisStore(SagaStoreContract):
    @pytest.fixture(autouse=True)
    def _new_data(self, redis_url: str) -> None:
        self.clock = HandClock()
        self.url = fresh(redis_url)

    async def open(self) -> SagaStore:
        return await RedisStore.open(self.url, self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    try:
        with running_cluster() as running:
            yield running
    except ServiceMissing as error:
        pytest.skip(f"NOT TESTED on a real cluster: {error}")


@pytest.mark.slow
class TestRedisStoreInACluster(SagaStoreContract):
    """Each script that touched keys of two hash tags would be refused here."""

    @pytest.fixture(autouse=True)
    def _new_data(self, cluster: RedisCluster) -> None:
        self.clock = HandClock()
        self.url = fresh(cluster.url)

    async def open(self) -> SagaStore:
        return await RedisStore.open(self.url, self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


async def surely(store: SagaStore, *commits: Commit) -> list[CommitResult]:
    """Commit as a coordinator does: when it is not known what became of them, again, under the same commit ids."""
    while True:
        try:
            return await results(store, *commits)
        except StoreUnavailable:
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_commits_wait_while_their_slot_of_the_cluster_moves_and_then_find_it(cluster: RedisCluster) -> None:
    url = fresh(cluster.url)
    store = await RedisStore.open(url)
    first = snapshot()
    assert await results(store, commit(first, outbox=(message(),))) == [COMMITTED]
    newcomer = next(id for n in count() if slot_of(id := f"new-{n}") == slot_of(first.id))
    slot = key_slot(f"{url.partition('=')[2]}:{{s{slot_of(first.id):04}}}:".encode())
    giver = cluster.owner(slot)
    taker = next(server for server in cluster.servers if server is not giver)
    ask(taker, "CLUSTER", "SETSLOT", slot, "IMPORTING", giver.id)
    ask(giver, "CLUSTER", "SETSLOT", slot, "MIGRATING", taker.id)
    second = following(first)
    with pytest.raises(StoreUnavailable, match="is moving its data around"):
        await store.commit([commit(second, first)])
    waiting = [surely(store, commit(second, first)), surely(store, commit(snapshot(newcomer)))]
    both = asyncio.gather(*waiting)
    for key in ask(giver, "CLUSTER", "GETKEYSINSLOT", slot, 1000):
        ask(giver, "MIGRATE", "127.0.0.1", taker.port, key, 0, 5000)
        await asyncio.sleep(0)
    # a saga's own key is now there by ASK, and what it shares with others is there in part
    assert await current(store) == first
    for server in (taker, giver):
        ask(server, "CLUSTER", "SETSLOT", slot, "NODE", taker.id)
    assert await both == [[COMMITTED], [COMMITTED]]
    assert len(await store.journal(first.id)) == 2
    assert await store.count(SagaQuery()) == 2
    assert await results(store, commit(second, first)) == [COMMITTED]
    assert len(await store.journal(first.id)) == 2
    await store.close()
    refusals = "".join(ask(server, "INFO", "errorstats") for server in cluster.servers)
    for refusal in ("MOVED", "ASK", "TRYAGAIN", "NOSCRIPT"):
        assert f"errorstat_{refusal}:" in refusals, "nothing was tried again"


@pytest.fixture
def url(redis_url: str) -> str:
    return fresh(redis_url)


@pytest.fixture
async def store(url: str) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(url)
    yield store
    await store.close()


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    """Somebody else's connection."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


def key_of(url: str, saga_id: str, name: str) -> str:
    return f"{url.partition('=')[2]}:{{s{slot_of(saga_id):04}}}:{name}"


# the server's time


async def test_timers_and_leases_follow_the_servers_clock(store: RedisStore) -> None:
    now = await store.now()
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
    soon = now + timedelta(milliseconds=50)
    await store.commit([commit(snapshot("soon", wake_at=soon)), commit(snapshot("later", wake_at=now + DAY))])
    assert await store.next_due(ALL) == soon
    while not (due := await store.due(ALL, 10, 60.0)):
        assert await store.now() < soon + timedelta(seconds=30)
    assert [(saga.saga_id, saga.wake_at) for saga in due] == [("soon", soon)]
    assert await store.now() >= soon
    assert list(await store.due(ALL, 10, 60.0)) == []
    lease_ends = await store.next_due(ALL)
    assert lease_ends is not None
    assert timedelta(seconds=50) < lease_ends - await store.now() <= timedelta(seconds=60)


async def test_a_lease_of_no_length_has_run_out_at_once(store: RedisStore) -> None:
    await store.commit([commit(snapshot(wake_at=await store.now() - DAY), outbox=(message(),))])
    for _ in range(3):
        assert len(await store.due(ALL, 10, 0.0)) == 1
        assert len(await store.overdue_outbox(ALL, -1.0, 10, 0.0)) == 1


async def test_store_time_is_never_behind_the_server(store: RedisStore, raw: Redis) -> None:
    before = await store.now()
    for _ in range(200):
        seconds, micros = await raw.time()
        said = await store.now()
        assert said >= before
        assert said >= datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)
        before = said


# scripts


async def test_scripts_that_the_server_forgot_are_given_to_it_again(store: RedisStore, raw: Redis) -> None:
    first = snapshot()
    await store.commit([commit(first, outbox=(message(),))])
    for n in range(3):
        await raw.script_flush()
        second = following(first)
        assert await results(store, commit(second, first), commit(snapshot(f"other-{n}"))) == [COMMITTED, COMMITTED]
        first = second
    assert [record.version for record in await store.journal(first.id)] == [1, 2, 3, 4]


async def test_nothing_is_found_by_scanning_keys(private_redis: Callable[..., PrivateRedis]) -> None:
    server = private_redis()
    store = await RedisStore.open(server.url)
    done = [snapshot(f"s{n}", phase=Phase.COMPLETED, keys={"order": str(n)}) for n in range(50)]
    await store.commit([commit(one) for one in done])
    for query in (
        SagaQuery(),
        SagaQuery(saga="place-order", stuck=False),
        SagaQuery(id_prefix="s1"),
        SagaQuery(started_after=T0 - DAY, started_before=T0 + DAY),
        SagaQuery(key=("order", "7")),
        SagaQuery(key=("order", "7"), phase=Phase.COMPLETED),
    ):
        assert await store.find(query)
        assert await store.count(query)
    assert await store.purge(T0 + DAY) == 50
    assert await store.purge_ledger(T0 + DAY) == 50
    used = ask(server, "INFO", "commandstats")
    assert "cmdstat_zrangebylex" in used
    assert "cmdstat_keys" not in used
    assert "scan:" not in used
    await store.close()


async def test_a_lookup_by_business_key_reads_its_matches_and_no_other_saga(
    private_redis: Callable[..., PrivateRedis],
) -> None:
    server = private_redis()
    store = await RedisStore.open(server.url)
    for n in range(0, 2000, 500):
        many = [snapshot(f"s{m}", keys={"order": str(m), "customer": str(m % 400)}) for m in range(n, n + 500)]
        await store.commit([commit(one) for one in many])
    for query, matches in (
        (SagaQuery(key=("order", "1234")), 1),
        (SagaQuery(key=("customer", "12")), 5),
        (SagaQuery(key=("customer", "12"), phase=Phase.RUNNING, id_prefix="s"), 5),
        (SagaQuery(key=("customer", "400")), 0),
    ):
        ask(server, "CONFIG", "RESETSTAT")
        assert len(await store.find(query)) == matches
        read = {line.partition(":")[0]: line for line in ask(server, "INFO", "commandstats").splitlines()}
        sagas = read.get("cmdstat_lrange", "calls=0,")
        assert f"calls={matches}," in sagas
    await store.close()


async def test_nothing_is_left_of_sagas_that_were_purged_and_forgotten(
    private_redis: Callable[..., PrivateRedis],
) -> None:
    server = private_redis()
    store = await RedisStore.open(server.url)
    for n in range(20):
        first = snapshot(f"s{n}", wake_at=T0, keys={"order": str(n)})
        last = following(first, phase=Phase.COMPLETED, keys={"order": str(n), "parcel": "7"})
        await store.commit([commit(first, outbox=(message(),), interests=(Interest(EVENT, (("x", b"1"),)),))])
        await store.due(ALL, 10, 60.0)
        await store.commit([commit(last, first)], [outbox_key(first)])
    await store.purge(T0 + DAY)
    await store.purge_ledger(T0 + DAY)
    left = [key for key in ask(server, "KEYS", "*") if not key.endswith((":beat", ":names"))]
    assert left == []
    await store.close()


# interests, whose index is elsewhere


async def lossy(url: str, stack: AsyncExitStack) -> tuple[RedisStore, LossyProxy]:
    """A store whose answers may get lost."""
    parts = urlsplit(url)
    proxy = await stack.enter_async_context(LossyProxy(parts.port or 6379))
    store = await RedisStore.open(parts._replace(netloc=f"127.0.0.1:{proxy.port}").geturl())
    stack.push_async_callback(store.close)
    return store, proxy


async def test_an_index_entry_whose_commit_was_not_made_is_not_believed(store: RedisStore, url: str) -> None:
    first = snapshot()
    await store.commit([commit(first)])
    async with AsyncExitStack() as stack:
        other, proxy = await lossy(url, stack)
        proxy.answers_until_loss = 0  # the entry is written; the commit is not even sent
        lost = commit(following(first), first, interests=(Interest(EVENT),))
        with pytest.raises(StoreUnavailable):
            await other.commit([lost])
        assert await current(store) == first
        assert list(await store.waiting(EVENT, {})) == []
        assert await results(other, lost) == [COMMITTED]
        assert list(await store.waiting(EVENT, {})) == [first.id]


async def test_interests_of_a_commit_whose_answer_was_lost_hold_although_it_was_overtaken(
    store: RedisStore, url: str
) -> None:
    first = snapshot()
    second = following(first)
    await store.commit([commit(first)])
    async with AsyncExitStack() as stack:
        other, proxy = await lossy(url, stack)
        proxy.answers_until_loss = 1
        lost = commit(second, first, interests=(Interest(EVENT),))
        with pytest.raises(StoreUnavailable):
            await other.commit([lost])
        assert await results(store, commit(following(second), second, interests=None)) == [COMMITTED]
        assert await results(other, lost) == [CONFLICT]
        assert list(await store.waiting(EVENT, {})) == [first.id]


async def test_interests_that_do_not_change_are_not_written_again(store: RedisStore, raw: Redis, url: str) -> None:
    wanted = (Interest(EVENT, (("order_id", b"1"),)), Interest(EVENT))
    now = snapshot()
    await store.commit([commit(now, interests=wanted)])
    element = await raw.lindex(key_of(url, now.id, "saga:order-1"), 2)
    for interests in (wanted, None, wanted):
        then = following(now)
        await store.commit([commit(then, now, interests=interests)])
        now = then
        assert await raw.lindex(key_of(url, now.id, "saga:order-1"), 2) == element
    # another store does not know what was written, and writes it again under its own name
    other = await RedisStore.open(url)
    await other.commit([commit(following(now), now, interests=wanted)])
    assert await raw.lindex(key_of(url, now.id, "saga:order-1"), 2) != element
    assert list(await store.waiting(EVENT, {"order_id": b"1"})) == [now.id]
    await other.close()


# answers that get lost


async def test_a_commit_whose_answer_was_lost_is_recognised_when_it_is_repeated(store: RedisStore, url: str) -> None:
    async with AsyncExitStack() as stack:
        other, proxy = await lossy(url, stack)
        starts = [commit(snapshot(f"s{n}"), outbox=(message(),)) for n in range(5)]
        proxy.answers_until_loss = 0
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await other.commit(starts)
        assert await store.count(SagaQuery()) == 5
        assert await results(other, *starts) == [COMMITTED] * 5
        assert [len(await store.journal(f"s{n}")) for n in range(5)] == [1] * 5
        assert len(await store.overdue_outbox(ALL, -1, 100, 60.0)) == 5


async def test_a_commit_that_was_cancelled_is_made_all_the_same(store: RedisStore) -> None:
    first = snapshot()
    task = asyncio.ensure_future(store.commit([commit(first)]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await surely(store, commit(first)) == [COMMITTED]
    assert len(await store.journal(first.id)) == 1


# damage


@pytest.mark.parametrize("element", [b"\xc1", b"", b"one\ntwo", b"i\n1\nc\n00\n\n1\n5\n\nno snapshot"])
async def test_a_saga_that_cannot_be_read_is_reported_with_its_key(
    store: RedisStore, url: str, raw: Redis, element: bytes
) -> None:
    await store.commit([commit(snapshot("good")), commit(snapshot("broken"))])
    key = key_of(url, "broken", "saga:broken")
    await raw.lset(key, 0 if element else 1, element)
    with pytest.raises(StoreCorrupt, match=r"saga:broken: the saga 'broken'.*backup") as caught:
        await store.load(["good", "broken"])
    assert key in str(caught.value)
    assert (await current(store, "good")) is not None


async def test_journal_outbox_parked_messages_and_map_that_cannot_be_read_are_reported(
    store: RedisStore, url: str, raw: Redis
) -> None:
    namespace = url.partition("=")[2]
    broken = snapshot("broken")
    await store.commit([commit(broken, outbox=(message(),))])
    await store.park([Parked("place-order", 1, message("letter"))])
    await raw.lset(key_of(url, "broken", "saga:broken"), 3, b"\xc1")
    await raw.hset(key_of(url, "broken", "outbox"), f"broken\n{broken.incarnation}\n1", b"\xc1")
    await raw.hset(f"{namespace}:{{p:place-order}}:messages", "letter", b"1:1:letter\n\xc1")
    await raw.set(f"{namespace}:{{map}}:shards", b"{")
    with pytest.raises(StoreCorrupt, match=r"the journal of saga 'broken'"):
        await store.journal("broken")
    with pytest.raises(StoreCorrupt, match=r"outbox: a message of saga 'broken'"):
        await store.overdue_outbox(ALL, -1, 10, 60)
    with pytest.raises(StoreCorrupt, match=r"the message 'letter' to a saga 'place-order'"):
        await store.unpark("place-order", 1, 10)
    with pytest.raises(StoreCorrupt, match=r"the shard map"):
        await store.adopt(ShardMap())


async def test_a_key_of_somebody_else_is_not_taken_for_a_saga(store: RedisStore, url: str, raw: Redis) -> None:
    await raw.set(key_of(url, "taken", "saga:taken"), "theirs")
    with pytest.raises(InternalError, match="WRONGTYPE"):
        await store.commit([commit(snapshot("taken"))])
    assert await store.count(SagaQuery()) == 0
