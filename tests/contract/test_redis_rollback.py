"""Sagas on a Redis that loses what it had reported: after a fail-over, and after an old backup was put back.

Coordinator, participants and client are the real ones; the participants count what they do in a ledger that loses
nothing, and their inboxes lose nothing either. Redis stands behind a proxy, so that another server can take its place.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

import pytest
from tests.support.proxy import Proxy
from tests.support.redis_servers import ask, until
from tests.support.servers import PrivateRedis

from amends.brokers import MemoryBroker
from amends.contracts import Command, Compensation, Reply, Signal
from amends.coordinator import Coordinator, Policy, Retry, Saga, SagaClient, WaitFor, step
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Snapshot
from amends.coordinator.outcome import UnknownSagaId
from amends.coordinator.stores.redis import RedisStore
from amends.participants import Context, MemoryInbox, Participant

Make = Callable[..., PrivateRedis]

POLICY: Final = Policy(
    resend=Retry(attempts=None, delay=0.3, max_delay=0.6),
    retry=Retry(attempts=5, delay=0.05),
    undo_retry=Retry(attempts=None, delay=0.05),
    command_ttl=timedelta(seconds=30),
)


class Booked(Reply):
    seat: int


class Book(Command[Booked], service="ledger"):
    trip: str


class Unbook(Compensation[Book]):
    pass


class Pay(Command[None], service="ledger"):
    trip: str


class Send(Command[None], service="ledger"):
    trip: str


class Go(Signal):
    pass


class Trip(Saga, version=1):
    """Book, wait for a word if asked to, pay, send."""

    trip: str
    waits: bool = True
    seat: int = 0

    @step
    def book(self) -> Book:
        return Book(trip=self.trip)

    @book.on_success
    def booked(self, reply: Booked) -> None:
        self.seat = reply.seat

    @book.compensation
    def unbook(self) -> Unbook:
        return Unbook()

    @step(timeout=timedelta(hours=1))
    def word(self) -> WaitFor[Go]:
        return WaitFor(Go)

    @word.when
    def is_to_wait(self) -> bool:
        return self.waits

    @step(pivot=True)
    def pay(self) -> Pay:
        return Pay(trip=self.trip)

    @step(retriable=True)
    def send(self) -> Send:
        return Send(trip=self.trip)


class Ledger:
    """What the participant did, by saga. Bookings stand still while `open` is not set."""

    def __init__(self) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        self.open = asyncio.Event()
        self.open.set()
        self.participant = Participant("ledger", concurrency=200)
        self.participant.action(self.book)
        self.participant.compensation(self.unbook)
        self.participant.action(self.pay)
        self.participant.action(self.send)

    async def book(self, command: Book, ctx: Context) -> Booked:
        self.done[command.trip, "book"] += 1
        await self.open.wait()
        return Booked(seat=7)

    async def unbook(self, undo: Unbook, ctx: Context[Book]) -> None:
        assert ctx.undoes is not None
        self.done[ctx.undoes.command.trip, "unbook"] += 1

    async def pay(self, command: Pay) -> None:
        self.done[command.trip, "pay"] += 1

    async def send(self, command: Send) -> None:
        self.done[command.trip, "send"] += 1

    def of(self, trip: str) -> dict[str, int]:
        return {what: times for (whose, what), times in self.done.items() if whose == trip}


class Office:
    """A coordinator, the participant and a client on one Redis, behind `front`."""

    def __init__(self, front: Proxy, medium: MemoryBroker, ledger: Ledger, client: SagaClient) -> None:
        self.front, self.medium, self.ledger, self.client = front, medium, ledger, client

    async def start(self, ids: Iterable[str], *, waits: bool = True) -> None:
        await asyncio.gather(*(self.client.start(Trip(trip=id, waits=waits), id=id) for id in ids))

    async def look(self, saga_id: str) -> Snapshot:
        while True:
            try:
                return await self.client.snapshot(saga_id)
            except UnknownSagaId:
                raise
            except Exception:  # the server is just being replaced
                await asyncio.sleep(0.05)

    async def all_are(self, ids: Iterable[str], holds: Callable[[Snapshot], bool]) -> None:
        for saga_id in ids:
            async with asyncio.timeout(60):
                while not holds(await self.look(saga_id)):
                    await asyncio.sleep(0.05)

    async def all_end(self, ids: Iterable[str], phase: str, **ledger: int) -> None:
        """Wait until all have ended so, and look whether the ledger balances."""
        ids = list(ids)
        await self.all_are(ids, lambda saga: saga.phase.ended)
        for saga_id in ids:
            assert (saga_id, (await self.look(saga_id)).phase.value) == (saga_id, phase)
            assert self.ledger.of(saga_id) == ledger, saga_id

    async def say_go(self, ids: Iterable[str]) -> None:
        await asyncio.gather(*(self.client.signal(id, Go()) for id in ids))

    async def told(self, saga_id: str) -> list[What]:
        return [entry.what for record in await self.client.journal(saga_id) for entry in record.entries]

    def move_to(self, server: PrivateRedis) -> None:
        """From now on this server has the address."""
        self.front.lead_to(server.port)


@asynccontextmanager
async def office(server: PrivateRedis) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        front = await stack.enter_async_context(Proxy(server.port))
        url = f"redis://127.0.0.1:{front.port}/0"
        medium, ledger = MemoryBroker(), Ledger()
        store, other = await RedisStore.open(url), await RedisStore.open(url)
        stack.push_async_callback(store.close)
        stack.push_async_callback(other.close)
        inbox = MemoryInbox()
        await stack.enter_async_context(ledger.participant.running(medium.join(), inbox=inbox, grace=1))
        await stack.enter_async_context(Coordinator([Trip], broker=medium.join(), store=store, policy=POLICY).running())
        client = await stack.enter_async_context(SagaClient(broker=medium.join(), store=other))
        yield Office(front, medium, ledger, client)


def offset(server: PrivateRedis) -> int:
    """How much of the stream of changes a server has."""
    told = dict(line.split(":", 1) for line in ask(server, "INFO", "replication").splitlines() if ":" in line)
    return int(told.get("slave_repl_offset", told["master_repl_offset"]))


def waits_for_word(saga: Snapshot) -> bool:
    return "word#0" in saga.runs


def many(name: str) -> list[str]:
    return [f"{name}-{n}" for n in range(5)]


async def live_on(at: Office) -> None:
    """What happens after the moment that will come back: all of it is going to be forgotten."""
    await at.say_go(many("ends"))
    await at.all_end(many("ends"), "completed", book=1, pay=1, send=1)
    await asyncio.gather(*(at.client.cancel(id, reason="no more") for id in many("undone")))
    await at.all_end(many("undone"), "compensated", book=1, unbook=1)
    at.ledger.open.clear()
    await at.start(many("lost"))
    async with asyncio.timeout(30):
        while sum(at.ledger.of(id).get("book", 0) for id in many("lost")) < 5:
            await asyncio.sleep(0.02)


async def come_out_right(at: Office) -> None:
    """After the store has forgotten it."""
    at.ledger.open.set()
    assert {(await at.look(id)).phase.value for name in ("ends", "undone", "waits") for id in many(name)} == {"running"}
    # paid in the lost commits: it must not be undone, whatever is said now
    cancelled, *ends = many("ends")
    await at.client.cancel(cancelled, reason="now")
    await at.all_are([cancelled], lambda saga: saga.committed)
    await at.say_go([*many("ends"), *many("undone"), *many("waits")])
    await at.all_end([cancelled, *ends], "completed", book=1, pay=1, send=1)
    await at.all_end(many("undone"), "compensated", book=1, unbook=1)
    await at.all_end(many("waits"), "completed", book=1, pay=1, send=1)
    for saga_id in many("undone"):
        assert [
            what for what in await at.told(saga_id) if what in (What.ROLLED_BACK, What.STEP_UNDONE, What.COMPENSATED)
        ] == [What.ROLLED_BACK, What.STEP_UNDONE, What.COMPENSATED]
    async with asyncio.timeout(30):
        while len(letters := await at.medium.dead_letters()) < 5:
            await asyncio.sleep(0.05)
    assert sorted(letter.detail.partition("~")[0] for letter in letters) == many("lost")
    assert {letter.reason for letter in letters} == {"orphan"}


@pytest.mark.slow
async def test_sagas_end_legally_after_a_fail_over_to_a_replica_that_had_lost_commits(private_redis: Make) -> None:
    primary = private_redis({"repl-diskless-sync-delay": "0"})
    async with Proxy(primary.port) as cable, office(primary) as at:
        replica = private_redis({"replicaof": f"127.0.0.1 {cable.port}"})
        await asyncio.to_thread(until, lambda: "state=online" in ask(primary, "INFO", "replication"))
        await at.start([*many("ends"), *many("undone"), *many("waits")])
        await at.all_are([*many("ends"), *many("undone"), *many("waits")], waits_for_word)
        await asyncio.to_thread(until, lambda: offset(replica) >= offset(primary))
        cable.hold()
        await live_on(at)
        await asyncio.to_thread(ask, replica, "REPLICAOF", "NO", "ONE")
        primary.kill()
        at.move_to(replica)
        await come_out_right(at)


@pytest.mark.slow
async def test_sagas_end_legally_after_an_old_backup_was_put_back(private_redis: Make) -> None:
    server = private_redis({"dbfilename": "dump.rdb"})
    async with office(server) as at:
        await at.start([*many("ends"), *many("undone"), *many("waits")])
        await at.all_are([*many("ends"), *many("undone"), *many("waits")], waits_for_word)
        ask(server, "SAVE")
        backup = shutil.copy(server.folder / "dump.rdb", server.folder / "backup.rdb")
        await live_on(at)
        server.kill()
        shutil.copy(backup, server.folder / "dump.rdb")
        await asyncio.to_thread(server.start)
        at.front.cut()
        await come_out_right(at)


@pytest.mark.slow
async def test_a_restart_of_a_redis_that_loses_nothing_undoes_nothing(private_redis: Make) -> None:
    server = private_redis({"appendonly": "yes", "appendfsync": "always"})
    async with office(server) as at:
        await at.start(many("waits"))
        await at.all_are(many("waits"), waits_for_word)
        at.ledger.open.clear()
        await at.start(many("busy"), waits=False)
        server.kill()
        await asyncio.to_thread(server.start)
        at.ledger.open.set()
        await at.start(many("late"), waits=False)
        await at.say_go(many("waits"))
        await at.all_end([*many("waits"), *many("busy"), *many("late")], "completed", book=1, pay=1, send=1)
        assert await at.medium.dead_letters() == []
        for saga_id in many("waits"):
            told = await at.told(saga_id)
            issued = [number for number, what in enumerate(told) if what is What.STEP_ISSUED]
            assert issued[0] < told.index(What.ROLLED_BACK) < told.index(What.RECONCILED) < issued[1]


# how Redis shows it


async def epoch_of(url: str) -> str:
    store = await RedisStore.open(url)
    try:
        return (await store.load(["nobody"]))[0].epoch
    finally:
        await store.close()


@pytest.mark.slow
async def test_the_epoch_changes_with_a_restart_and_with_a_promotion_and_is_that_of_the_replica_before(
    private_redis: Make,
) -> None:
    primary = private_redis({"repl-diskless-sync-delay": "0", "appendonly": "yes", "appendfsync": "always"})
    first = await epoch_of(primary.url)
    assert first == await epoch_of(primary.url) != ""
    primary.kill()
    primary.start()
    replica = private_redis({"replicaof": f"127.0.0.1 {primary.port}"})
    until(lambda: "state=online" in ask(primary, "INFO", "replication"))
    second = await epoch_of(primary.url)
    assert await epoch_of(replica.url) == second
    ask(replica, "REPLICAOF", "NO", "ONE")
    assert len({first, second, await epoch_of(replica.url)}) == 3


async def test_a_user_who_may_not_ask_for_it_has_no_epoch_and_works_all_the_same(private_redis: Make) -> None:
    server = private_redis()
    ask(server, "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-info")
    assert await epoch_of(f"redis://app:pw@127.0.0.1:{server.port}/0") == ""
