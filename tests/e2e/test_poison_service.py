"""One command that kills the service that handles it: real processes die of it, and everybody else's saga ends well."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.contract.broker import GUARD_S
from tests.support.poison_service_child import POISON
from tests.support.rabbitmq import Rabbit, worker
from tests.support.rig import Release, Reserve
from tests.support.waiting import assert_eventually

from amends.brokers import connect_broker
from amends.coordinator import Coordinator, Saga, SagaClient, step
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.store import SagaQuery, SagaStore
from amends.coordinator.stores import connect_store

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests" / "support" / "poison_service_child.py"
GOOD = 50
MOST_DEATHS = 8
"""The first delivery is not counted, and five are; a message of a pack comes once more, when that is split."""


class Errand(Saga):
    sku: str

    @step
    def reserve(self) -> Reserve:
        return Reserve(sku=self.sku)

    @reserve.compensation
    def release(self) -> Release:
        return Release()


async def ended(store: SagaStore) -> bool:
    counts = [await store.count(SagaQuery(phase=phase)) for phase in (Phase.COMPLETED, Phase.COMPENSATED)]
    return sum(counts) == GOOD + 1


async def until_ended(store: SagaStore) -> None:
    await assert_eventually(lambda: ended(store), 2 * GUARD_S)


async def lives(store: SagaStore, broker_url: str, inbox_url: str) -> bool:
    """Run a service until all sagas have ended; whether it has lived that long."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), broker_url, inbox_url, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    died, done = asyncio.create_task(process.wait()), asyncio.create_task(until_ended(store))
    try:
        await asyncio.wait({died, done}, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            done.result()
        return done.done()
    finally:
        done.cancel()
        await asyncio.wait({done})
        if process.returncode is None:
            process.kill()
        await died


async def outlive_the_poison(broker_url: str, store_url: str, inbox_url: str) -> None:
    broker, store = await connect_broker(broker_url), await connect_store(store_url)
    errands = [(f"good-{number}", "mug") for number in range(GOOD)]
    errands.insert(GOOD // 2, ("bad", POISON))
    deaths = 0
    async with (
        Coordinator([Errand], broker=broker, store=store).running(),
        SagaClient(broker=broker, store=store) as sagas,
    ):
        # all commands are there at once: whoever takes the killer has the others in hand
        await asyncio.gather(*(sagas.start(Errand(sku=sku), id=name) for name, sku in errands))
        while not await lives(store, broker_url, inbox_url):
            deaths += 1
            assert deaths <= MOST_DEATHS
    bad = (await store.load(["bad"]))[0].snapshot
    assert bad is not None
    assert bad.phase is Phase.COMPENSATED
    assert await store.count(SagaQuery(phase=Phase.COMPLETED)) == GOOD
    told = [entry.detail for record in await store.journal("bad") for entry in record.entries]
    detail = "its handler was begun 5 times, and each time the process died"
    assert any(detail in line and "the last" in line for line in told), told
    (letter,) = await broker.dead_letters()
    assert letter.envelope is not None
    assert (letter.envelope.subject, letter.reason, letter.detail) == ("bad", "delivery-limit", detail)
    assert deaths >= 5
    await store.close()
    await broker.close()


@pytest.mark.slow
async def test_a_command_that_kills_its_service_takes_nobody_along_on_rabbitmq_with_redis(
    rabbitmq_url: str, redis_url: str, tmp_path: Path
) -> None:
    rabbit = Rabbit(rabbitmq_url, f"poison-service-{worker()}")
    await rabbit.empty(services=["shop"])
    await outlive_the_poison(
        f"{rabbit.url}?namespace={rabbit.namespace}",
        f"sqlite:{tmp_path / 'amends.db'}",
        f"{redis_url}?namespace=poison-{os.urandom(6).hex()}",
    )


@pytest.mark.slow
async def test_a_command_that_kills_its_service_takes_nobody_along_on_one_file(tmp_path: Path) -> None:
    file = tmp_path / "amends.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE reserved (saga, sku)")
    await outlive_the_poison(f"embedded:{file}", f"sqlite:{file}", f"sqlite:{file}")
    with closing(sqlite3.connect(file)) as connection:
        reserved = [saga for (saga,) in connection.execute("SELECT saga FROM reserved")]
    assert sorted(reserved) == sorted(f"good-{number}" for number in range(GOOD))
