"""The embedded default: coordinator, participant, broker, store and inbox on one SQLite file."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from amends.brokers import Broker, connect_broker
from amends.coordinator import Coordinator, SagaClient
from amends.coordinator.store import SagaStore
from amends.coordinator.stores import connect_store
from amends.participants import Participant
from benchmarks.load import saturate, trickle
from benchmarks.measures import Measure, Stopwatch, bytes_of, latency
from benchmarks.order import PlaceOrder, shop_in_transactions

_WARM_UP = 256


async def one_process(file: Path, sagas: int, shop: Participant) -> Measure:
    """Everything in this process, under as much load as it takes."""
    async with _coordinator(file) as (broker, store), shop.running(broker):
        await saturate(broker, store, _WARM_UP)
        before = bytes_of(file)
        with Stopwatch() as watch:
            await saturate(broker, store, sagas)
        return watch.measure(sagas, bytes=bytes_of(file) - before)


async def two_processes(file: Path, sagas: int) -> Measure:
    """The participant in a process of its own."""
    async with _coordinator(file) as (broker, store), _other_side(file) as ask:
        await saturate(broker, store, _WARM_UP)
        before, spent = bytes_of(file), await ask()
        with Stopwatch() as watch:
            await saturate(broker, store, sagas)
        return watch.measure(sagas, bytes=bytes_of(file) - before, cpu_elsewhere_s=await ask() - spent)


async def low_load(file: Path, sagas: int, per_second: float) -> Measure:
    """A client that starts a saga now and then, and waits for its end; everything in this process."""
    async with (
        _coordinator(file) as (broker, store),
        shop_in_transactions().running(broker),
        SagaClient(broker=broker, store=store) as client,
    ):
        await trickle(client, 5, per_second)
        return latency(await trickle(client, sagas, per_second))


@asynccontextmanager
async def _coordinator(file: Path) -> AsyncIterator[tuple[Broker, SagaStore]]:
    """A coordinator at work on a file, and what it stands on."""
    broker, store = await connect_broker(f"embedded:{file}"), await connect_store(f"sqlite:{file}")
    try:
        async with Coordinator([PlaceOrder], broker=broker, store=store).running():
            yield broker, store
    finally:
        await store.close()
        await broker.close()


# the other process


@asynccontextmanager
async def _other_side(file: Path) -> AsyncIterator[_Ask]:
    """A process with the participant; gives what asks it for the processor seconds it has spent."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.other_side", str(file), stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ask = _Ask(process.stdin, process.stdout)
    try:
        await ask()
        yield ask
    finally:
        process.stdin.close()
        await process.wait()


class _Ask:
    def __init__(self, questions: asyncio.StreamWriter, answers: asyncio.StreamReader) -> None:
        self._questions, self._answers = questions, answers

    async def __call__(self) -> float:
        self._questions.write(b"\n")
        return float(await self._answers.readline())
