"""One message that kills whatever handles it: real coordinator processes die of it, and everybody else's saga ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from tests.contract.broker import GUARD_S, receive
from tests.support.poison_child import POISON, Errand
from tests.support.rabbitmq import Rabbit, worker
from tests.support.rig import Shop

from amends.brokers import Broker, DeadLetter, Outgoing, connect_broker
from amends.contracts import JSON, Kind
from amends.contracts.payloads import Start
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.store import SagaQuery, SagaStore
from amends.coordinator.stores import connect_store
from amends.coordinator.wire import word

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests" / "support" / "poison_child.py"
GOOD = 50
MOST_DEATHS = 8
"""The first delivery is not counted, and five are; what dies on its way into the store is counted by the broker."""


def start(name: str, saga: Errand) -> Outgoing:
    data = JSON.encode(Start("errand", msgspec.Raw(JSON.encode(saga))))
    return word(name, Kind.START, Start.__tag__, data, f"start-{name}", datetime.now(UTC), source="/test")


@asynccontextmanager
async def coordinator(broker: str, store: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), broker, store, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_done(store: SagaStore, broker: Broker) -> Sequence[DeadLetter]:
    """Look again and again; cancelled when the coordinator dies."""
    while True:
        letters = await broker.dead_letters()
        if letters and await store.count(SagaQuery(phase=Phase.COMPLETED)) == GOOD:
            return letters
        await asyncio.sleep(0.05)


async def outlive_the_poison(broker_url: str, store_url: str) -> None:
    broker, store = await connect_broker(broker_url), await connect_store(store_url)
    errands = [(f"good-{number}", "mug") for number in range(GOOD)]
    errands.insert(GOOD // 2, ("bad", POISON))
    await broker.publish([start(name, Errand(sku=sku)) for name, sku in errands])
    shop, commands = Shop(), await broker.consume_service("shop")
    deaths = 0
    letters: Sequence[DeadLetter] = ()
    answered = False
    while not letters:
        assert deaths <= MOST_DEATHS
        async with coordinator(broker_url, store_url) as process, asyncio.timeout(2 * GUARD_S):
            if not answered:
                # all replies at once: whoever takes the killer has the others in hand
                await shop.work(broker, commands, await receive(commands, GOOD + 1))
                answered = True
            ended, done = asyncio.create_task(process.wait()), asyncio.create_task(until_done(store, broker))
            await asyncio.wait({ended, done}, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                letters = done.result()
            else:
                done.cancel()
                await asyncio.wait({done})
                deaths += 1
            ended.cancel()
    (letter,) = letters
    assert letter.envelope is not None
    assert (letter.envelope.subject, letter.reason) == ("bad", "delivery-limit")
    assert letter.detail == "its handling was begun 5 times, and each time the process died"
    assert deaths >= 5
    await store.close()
    await broker.close()


@pytest.mark.slow
async def test_a_message_that_kills_its_coordinator_takes_nobody_along_on_rabbitmq(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    rabbit = Rabbit(rabbitmq_url, f"poison-{worker()}")
    await rabbit.empty(services=["shop"])
    await outlive_the_poison(f"{rabbit.url}?namespace={rabbit.namespace}", f"sqlite:{tmp_path / 'amends.db'}")


@pytest.mark.slow
async def test_a_message_that_kills_its_coordinator_takes_nobody_along_on_one_file(tmp_path: Path) -> None:
    await outlive_the_poison(f"embedded:{tmp_path / 'amends.db'}", f"sqlite:{tmp_path / 'amends.db'}")
