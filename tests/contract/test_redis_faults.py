"""What happens to the Redis store and inbox when Redis is killed, paused, full, forbidden, failed over or not there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from redis import Redis
from structlog.testing import capture_logs
from tests.contract.inbox import CLOSED, KEY, begin, finish, settle
from tests.contract.store import ALL, COMMITTED, CONFLICT, results
from tests.support.redis_servers import LossyProxy, PrivateSentinel, ask, running_cluster, until
from tests.support.redis_writer import Writer
from tests.support.sagas import T0, commit, following, message, outbox_key, snapshot
from tests.support.servers import PrivateRedis, free_port
from tests.support.timeline import Timeline

from amends.brokers.redis_link import RedisUnavailable
from amends.contracts import ReplyOutcome, UsageError
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.store import Commit, CommitResult, SagaQuery, SagaStore, StoreUnavailable
from amends.coordinator.stores.redis import RedisStore
from amends.participants.redis_inbox import RedisInbox
from amends.participants.rows import Answered, Busy, Claimed, Kept, Release

Make = Callable[..., PrivateRedis]
Open = Callable[[str], Awaitable[RedisStore]]


@pytest.fixture
async def open() -> AsyncIterator[Open]:
    stores: list[RedisStore] = []

    async def opened(url: str) -> RedisStore:
        stores.append(await RedisStore.open(url))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


async def check_whole(store: SagaStore, reported: dict[str, int]) -> None:
    """Each saga is there as a whole, with what it has to send, and no older than was reported."""
    lines = {line.id: line for line in await store.find(SagaQuery(limit=1_000_000))}
    entries = await store.overdue_outbox(ALL, -1.0, 1_000_000, 60.0)
    outbox = {entry.key.saga_id: entry.key.version for entry in entries}
    missing = {id: version for id, version in reported.items() if id not in lines or lines[id].version < version}
    assert missing == {}
    if reported:  # else what was cleared may be known, and the commit that came behind it lost
        assert outbox == {id: line.version for id, line in lines.items()}
    assert await store.count(SagaQuery()) == len(lines)
    for line in lines.values():
        (stored,) = await store.load([line.id])
        assert stored.snapshot is not None
        assert (stored.snapshot.version, stored.snapshot.phase) == (line.version, line.phase)
        records = await store.journal(line.id)
        assert [record.version for record in records] == list(range(1, line.version + 1))
        assert records[-1].commit_id == stored.snapshot.commit_id


# crashes


@pytest.mark.slow
@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_every_reported_commit_survives_kill_9_and_every_commit_is_whole(
    private_redis: Make, open: Open, fsync: str
) -> None:
    server = private_redis({"appendonly": "yes", "appendfsync": fsync})
    store = await open(server.url)
    writers = [Writer(store, f"w{n}") for n in range(3)]
    running = [asyncio.ensure_future(writer.run()) for writer in writers]
    for _ in range(4):
        await asyncio.gather(*(writer.reports(60) for writer in writers))
        server.kill()
        await asyncio.to_thread(server.start)
    await asyncio.gather(*(writer.reports(20) for writer in writers))
    for writer in writers:
        writer.stopping = True
    await asyncio.gather(*running)
    assert all(writer.failures for writer in writers)
    if fsync == "always":
        assert not any(writer.conflicts for writer in writers)
        await check_whole(store, {id: version for writer in writers for id, version in writer.reported.items()})
    else:
        # what Redis had not handed to the system yet may be lost, as its documentation says; nothing may be half there
        await check_whole(store, {})


@pytest.mark.slow
async def test_claims_and_results_of_the_inbox_survive_kill_9(private_redis: Make) -> None:
    server = private_redis({"appendonly": "yes", "appendfsync": "always"})
    inbox = await RedisInbox.open(server.url)
    (claimed,) = await inbox.begin([begin()])
    assert isinstance(claimed, Claimed)
    await inbox.begin([begin("other")])
    server.kill()
    with pytest.raises(RedisUnavailable, match="cannot be reached"):
        await inbox.finish([finish(claimed.fence, ReplyOutcome.DONE)])
    server.start()
    (done,) = await inbox.finish([finish(claimed.fence, ReplyOutcome.DONE)])
    assert isinstance(done, Answered)
    assert list(await inbox.begin([begin()])) == [done]
    assert isinstance((await inbox.begin([begin("other")]))[0], Busy)
    await inbox.close()


@pytest.mark.slow
async def test_a_server_that_does_not_answer_makes_the_store_unavailable_and_what_it_got_counts(
    private_redis: Make, open: Open
) -> None:
    server = private_redis()
    store = await open(f"{server.url}?socket_timeout=0.3")
    start = commit(snapshot())
    server.pause()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.commit([start])
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.ping()
    server.resume()
    await store.ping()
    assert await results(store, start) == [COMMITTED]
    assert len(await store.journal(start.snapshot.id)) == 1


# memory


@pytest.mark.slow
async def test_a_full_redis_refuses_whole_commits_says_so_and_goes_on_when_there_is_room(
    private_redis: Make, open: Open
) -> None:
    server = private_redis({"maxmemory": "6mb", "maxmemory-policy": "noeviction"})
    store = await open(server.url)
    stored = []
    problem = ""
    while not problem:
        one = snapshot(f"s{len(stored)}", phase=Phase.COMPLETED, state=os.urandom(5_000))
        try:
            assert await results(store, commit(one, outbox=(message(saga_id=one.id),))) == [COMMITTED]
            stored.append(one)
        except StoreUnavailable as error:
            problem = str(error)
    assert "is full: its memory has reached maxmemory" in problem
    assert len(stored) > 10
    with pytest.raises(StoreUnavailable, match="is full"):
        await store.ping()
    last = stored[-1]
    more = commit(following(last, state=os.urandom(5_000)), last, outbox=(message(),))
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="is full"):
            await store.commit([more, commit(snapshot("new"))])
    assert (await store.load([last.id, "new"]))[0].snapshot == last
    await check_whole_count(store, len(stored))
    # making room needs none
    assert await store.purge(T0.replace(year=2030), limit=len(stored) // 2) == len(stored) // 2
    await store.commit([], [outbox_key(one) for one in stored])
    await store.ping()
    assert await results(store, more, commit(snapshot("new"))) == [COMMITTED, COMMITTED]
    ask(server, "CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="is full"):
        await store.ping()
    ask(server, "CONFIG", "SET", "maxmemory", "100mb")
    await store.ping()


async def check_whole_count(store: SagaStore, expected: int) -> None:
    assert await store.count(SagaQuery()) == expected
    assert len(await store.find(SagaQuery(limit=10_000))) == expected


# who may


async def test_a_server_that_is_not_there_is_named_without_secrets() -> None:
    url = f"redis://ada:secret@127.0.0.1:{free_port()}/0"
    with pytest.raises(
        StoreUnavailable, match=r"Redis at 127\.0\.0\.1:\d+ cannot be reached.*goes on by itself"
    ) as caught:
        await RedisStore.open(url)
    with pytest.raises(RedisUnavailable, match="cannot be reached"):
        await RedisInbox.open(url)
    assert "secret" not in str(caught.value)


async def test_a_wrong_password_or_none_is_told_as_that(private_redis: Make) -> None:
    server = private_redis({"requirepass": "right"})
    with pytest.raises(StoreUnavailable, match="wants a password"):
        await RedisStore.open(server.url)
    with pytest.raises(StoreUnavailable, match="refuses this user or password") as caught:
        await RedisStore.open(f"redis://:wrong@127.0.0.1:{server.port}/0")
    assert "wrong" not in str(caught.value)
    store = await RedisStore.open(f"redis://:right@127.0.0.1:{server.port}/0")
    await store.ping()
    await store.close()


async def test_a_password_that_is_wanted_all_of_a_sudden_is_told_as_that_and_work_goes_on_without_it(
    private_redis: Make, open: Open
) -> None:
    server = private_redis()
    store = await open(server.url)
    ask(server, "CONFIG", "SET", "requirepass", "new")
    with Redis(port=server.port, password="new") as raw:
        raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for long in (store.ping, lambda: store.overdue_outbox(ALL, 1.0, 10, 1.0)):
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="wants a password"):
                    await long()
        raw.config_set("requirepass", "")

    async def pinged() -> bool:
        with suppress(StoreUnavailable):
            await store.ping()
            return True
        return False

    while not await pinged():
        pass


async def test_a_user_who_may_not_write_is_told_what_is_missing(private_redis: Make, open: Open) -> None:
    server = private_redis()
    ask(server, "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection", "+info", "+script", "+time")
    store = await open(f"redis://reader:pw@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnavailable, match="does not let this user"):
        await store.ping()
    with pytest.raises(StoreUnavailable, match="does not let this user"):
        await store.commit([commit(snapshot())])


async def test_a_replica_refuses_to_be_written_and_says_what_it_is(private_redis: Make, open: Open) -> None:
    primary = private_redis()
    replica = private_redis({"replicaof": f"127.0.0.1 {primary.port}"})
    store = await open(replica.url)
    with pytest.raises(StoreUnavailable, match="read-only replica"):
        await store.ping()
    with pytest.raises(StoreUnavailable, match="read-only replica"):
        await store.commit([commit(snapshot())])


async def test_part_of_a_cluster_cannot_be_used_as_if_it_were_alone() -> None:
    with running_cluster() as cluster, pytest.raises(UsageError, match=r"part of a cluster.*redis\+cluster://"):
        await RedisStore.open(cluster.servers[0].url)


# settings


@pytest.mark.parametrize(
    ("config", "warnings"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, []),
        ({"appendonly": "yes", "appendfsync": "everysec"}, []),
        ({"appendonly": "yes", "appendfsync": "no"}, ["appendfsync"]),
        ({"appendonly": "no"}, ["appendonly yes"]),
        ({"appendonly": "yes", "maxmemory-policy": "allkeys-lru"}, ["maxmemory-policy noeviction"]),
        ({"appendonly": "no", "maxmemory-policy": "volatile-ttl"}, ["maxmemory-policy noeviction", "appendonly yes"]),
    ],
)
async def test_settings_that_lose_sagas_are_warned_of_with_what_to_set(
    private_redis: Make, config: dict[str, str], warnings: list[str]
) -> None:
    server = private_redis(config)
    with capture_logs() as logs:
        await (await RedisStore.open(server.url)).close()
    told = [entry["remedy"] for entry in logs if entry["log_level"] == "warning"]
    assert len(told) == len(warnings)
    assert all(word in remedy for word, remedy in zip(warnings, told, strict=True))


# replicas


AOF = {"appendonly": "yes", "appendfsync": "always"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "waits"), [("redis", "wait"), ("valkey", "waitaof")])
async def test_replicated_durability_waits_for_the_disks_where_the_server_can(
    private_redis: Make, open: Open, kind: str, waits: str
) -> None:
    primary, replica = replicated(private_redis, AOF, AOF, kind)
    if ask(primary, "COMMAND", "INFO", "waitaof")[0]:
        waits = "waitaof"  # Redis 7.2 or later
    store = await open(f"{primary.url}?durability=replicated&replicas=1&wait=4")
    hasty = await open(f"{primary.url}?durability=replicated&replicas=1&wait=0.2")
    first = snapshot()
    assert await surely(store, commit(first)) == [COMMITTED]
    assert f"cmdstat_{waits}:" in ask(primary, "INFO", "commandstats")
    replica.pause()
    second = commit(following(first), first)
    with pytest.raises(StoreUnavailable, match=r"only 0 of 1 replicas have confirmed a write .*within 0\.2 s"):
        await hasty.commit([second])
    replica.resume()
    assert await surely(store, second) == [COMMITTED]
    primary.kill()
    # what was reported is on the replica's disk too
    replica.kill()
    replica.start()
    ask(replica, "REPLICAOF", "NO", "ONE")
    survivor = await open(replica.url)
    assert [stored.snapshot for stored in await survivor.load([first.id])] == [second.snapshot]


@pytest.mark.slow
async def test_nothing_is_answered_from_a_row_of_an_inbox_that_no_replica_has(private_redis: Make) -> None:
    primary, replica = replicated(private_redis, {}, {}, "redis")
    inbox = await RedisInbox.open(f"{primary.url}?durability=replicated&replicas=1&wait=0.2")
    while True:
        with suppress(RedisUnavailable):  # until the replica follows
            assert await inbox.begin([settle("warm")]) == [CLOSED]
            break
    replica.pause()
    for _ in range(2):
        with pytest.raises(RedisUnavailable, match="only 0 of 1 replicas"):
            await inbox.begin([settle("order-1~i/a#0")])
    replica.resume()
    await inbox.close()


@pytest.mark.slow
async def test_a_replica_that_keeps_nothing_on_disk_does_not_count_where_disks_are_waited_for(
    private_redis: Make, open: Open
) -> None:
    primary, _ = replicated(private_redis, AOF, {}, "valkey")
    store = await open(f"{primary.url}?durability=replicated&replicas=1&wait=0.2")
    with pytest.raises(
        StoreUnavailable, match=r"only 0 of 1 replicas have confirmed a write on their disks.*appendonly"
    ):
        await store.commit([commit(snapshot())])


@pytest.mark.slow
async def test_a_primary_that_does_not_get_its_file_to_the_disk_is_told_as_that(
    private_redis: Make, open: Open
) -> None:
    primary, _ = replicated(private_redis, {"appendonly": "yes", "appendfsync": "no"}, AOF, "valkey")
    store = await open(f"{primary.url}?durability=replicated&replicas=1&wait=0.2")
    with pytest.raises(
        StoreUnavailable, match=r"not put a write on its own disk within 0\.2 s\. Set appendfsync always"
    ):
        await store.commit([commit(snapshot())])


@pytest.mark.slow
async def test_with_replicated_durability_a_commit_that_too_few_replicas_confirmed_is_not_reported(
    private_redis: Make, open: Open
) -> None:
    primary, replica = replicated(private_redis)
    patient = await open(f"{primary.url}?durability=replicated&replicas=1&wait=4")
    hasty = await open(f"{primary.url}?durability=replicated&replicas=1&wait=0.2")
    first = snapshot()
    assert await surely(patient, commit(first)) == [COMMITTED]
    replica.pause()
    second = commit(following(first), first)
    for _ in range(2):  # the second time it is there already, on the primary alone
        with pytest.raises(StoreUnavailable, match=r"only 0 of 1 replicas have confirmed a write within 0\.2 s"):
            await hasty.commit([second])
    with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
        await hasty.ping()
    replica.resume()
    assert await surely(patient, second) == [COMMITTED]
    assert len(await patient.journal(first.id)) == 2


def replicated(
    private_redis: Make,
    of_primary: dict[str, str] | None = None,
    of_replica: dict[str, str] | None = None,
    kind: str | None = None,
) -> tuple[PrivateRedis, PrivateRedis]:
    """A primary and a replica that is in step with it."""
    primary = private_redis({"repl-diskless-sync-delay": "0", **(of_primary or {})}, kind=kind)
    replica = private_redis({"replicaof": f"127.0.0.1 {primary.port}", **(of_replica or {})}, kind=kind)
    until(lambda: "state=online" in ask(primary, "INFO", "replication"))
    return primary, replica


async def surely(store: SagaStore, *commits: Commit) -> list[CommitResult]:
    """Commit as a coordinator does: when it is not known what became of them, again, under the same commit ids."""
    while True:
        try:
            return await results(store, *commits)
        except StoreUnavailable:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_sentinels_are_asked_for_the_primary_and_a_failover_is_followed(private_redis: Make, open: Open) -> None:
    primary, replica = replicated(private_redis)
    with PrivateSentinel(primary) as sentinel:
        until(lambda: len(ask(sentinel, "SENTINEL", "REPLICAS", "sagas")) == 1)
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/sagas"
        careful, plain = await open(f"{url}?durability=replicated&replicas=1&wait=4"), await open(url)
        first = snapshot()
        second = commit(following(first), first)
        assert await surely(careful, commit(first, outbox=(message(),))) == [COMMITTED]
        primary.kill()
        with pytest.raises(StoreUnavailable):
            await plain.commit([second])
        until(lambda: "role:master" in ask(replica, "INFO", "replication"))
        assert await surely(plain, second) == [COMMITTED]
        assert len(await plain.journal(first.id)) == 2
        assert await results(plain, commit(following(first), first)) == [CONFLICT]


async def test_unknown_services_of_sentinels_are_told(private_redis: Make) -> None:
    with PrivateSentinel(private_redis()) as sentinel, pytest.raises(StoreUnavailable, match="cannot be reached"):
        await RedisStore.open(f"redis+sentinel://127.0.0.1:{sentinel.port}/lost")


# the inbox


async def test_a_claim_whose_answer_was_lost_is_recognised_and_not_taken_for_anothers(private_redis: Make) -> None:
    server = private_redis()
    time = Timeline()
    async with LossyProxy(server.port) as proxy:
        inbox = await RedisInbox.open(f"redis://127.0.0.1:{proxy.port}/0", clock=time)
        await inbox.finish([finish(1, ReplyOutcome.DONE, "other")])
        await inbox.begin([begin("other")])
        proxy.answers_until_loss = 1  # the row was loaded; the answer to its change is lost
        assert isinstance((await inbox.begin([begin()]))[0], Claimed)
        proxy.answers_until_loss = 0  # the claim is remembered
        (done,) = await inbox.finish([finish(1, ReplyOutcome.DONE)])
        assert list(await inbox.begin([settle()])) == [done]
        await inbox.close()


async def test_of_many_who_ask_at_once_one_gets_the_claim(private_redis: Make) -> None:
    server = private_redis()
    time = Timeline()
    inboxes = [await RedisInbox.open(server.url, clock=time) for _ in range(5)]
    for n in range(20):
        asked = [[begin(f"{KEY}-{n}", owner=str(i)), settle(f"{KEY}-{n}-closed")] for i in range(5)]
        told = await asyncio.gather(*(inbox.begin(two) for inbox, two in zip(inboxes, asked, strict=True)))
        assert sorted(type(claim).__name__ for claim, _ in told) == ["Busy"] * 4 + ["Claimed"]
        assert {closed for _, closed in told} == {CLOSED}
    for inbox in inboxes:
        await inbox.close()


async def test_purging_while_effects_begin_never_makes_an_old_effect_new(private_redis: Make) -> None:
    server = private_redis()
    time = Timeline()
    one, other = await RedisInbox.open(server.url, clock=time), await RedisInbox.open(server.url, clock=time)
    issued = time.now()
    keys = [f"effect-{n}" for n in range(300)]
    await one.begin([settle(key, issued_at=issued) for key in keys])
    time.advance(100)
    asked = [other.begin([begin(key, issued_at=issued) for key in keys[n::10]]) for n in range(10)]
    purged, *told = await asyncio.gather(one.purge(time.now()), *asked)
    assert purged == 300
    assert {answer for answers in told for answer in answers} <= {CLOSED, Answered(ReplyOutcome.IN_DOUBT)}
    assert Kept() not in await other.finish([Release(effect_key=key, fence=0) for key in keys])
    await one.close()
    await other.close()


async def test_the_inbox_tells_of_a_full_redis(private_redis: Make) -> None:
    server = private_redis()
    inbox = await RedisInbox.open(server.url)
    ask(server, "CONFIG", "SET", "maxmemory", "1")
    for asked in (inbox.ping(), inbox.begin([begin()])):
        with pytest.raises(RedisUnavailable, match="is full"):
            await asked
    ask(server, "CONFIG", "SET", "maxmemory", "0")
    assert isinstance((await inbox.begin([begin()]))[0], Claimed)
    await inbox.close()
