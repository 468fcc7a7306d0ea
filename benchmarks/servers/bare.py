"""The ceiling: hand-written loops that send amends' messages and make its writes, and decide nothing.

They know beforehand what every order will say and write, from a recording of amends itself. They use the same client
libraries, as many processes, batches and queues; they do not encode, decode, check, look anything up or keep anything.
What they write is in the keys that amends uses, by its scripts.

`python -m benchmarks.servers.bare coordinator|participant|load WAY RECORDING BROKER REDIS`
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias

from amends.coordinator.cli.runner import run
from amends.coordinator.stores import connect_store
from benchmarks.load import drive, evenly
from benchmarks.measures import Measure, Stopwatch, latency
from benchmarks.servers.bare_kafka import KafkaPost
from benchmarks.servers.bare_rabbitmq import RabbitPost
from benchmarks.servers.bare_redis import Rows
from benchmarks.servers.letters import CLIENT, SERVICE, SHARDS, Letter, Post, Sendings
from benchmarks.servers.parts import LOOK_S, quiet, serve
from benchmarks.servers.recording import Recording

_UNDER_WAY: Final = 4
"""How many batches may be on their way to the broker while the next is written."""

Open: TypeAlias = Callable[[str, Recording, frozenset[str]], Coroutine[Any, Any, Post]]

WAYS: Final[dict[str, Open]] = {
    "rabbitmq-plain": RabbitPost.plain,
    "rabbitmq-batched": RabbitPost.batched,
    "rabbitmq-packed": RabbitPost.packed,
    "kafka": KafkaPost.single,
    "kafka-packed": KafkaPost.packed,
}
"""How messages can be sent."""


async def coordinator(post: Post, rows: Rows, recording: Recording) -> None:
    """Store what has arrived, send the next commands, acknowledge, clear the outbox with the next batch."""
    sent: list[Letter] = []

    async def work(letters: Sequence[Letter]) -> Sendings:
        clearing = sent.copy()
        sent.clear()
        await rows.write(("clears", clearing), ("commits", letters))
        going = [letter for letter in letters if letter.place < len(recording.of(letter.number).commands)]
        ended = [letter for letter in letters if letter.place == len(recording.of(letter.number).commands)]
        return [(SERVICE, letter) for letter in going] + [(CLIENT, letter) for letter in ended if letter.watched]

    def done(sendings: Sendings) -> None:
        sent.extend(letter for box, letter in sendings if box == SERVICE)

    await _loop(post, work, done)


async def participant(post: Post, rows: Rows, recording: Recording) -> None:
    """Claim each action, note its outcome, answer, acknowledge."""

    async def work(letters: Sequence[Letter]) -> Sendings:
        await rows.write(("claims", letters))
        await rows.write(("outcomes", letters))
        return [(SHARDS, letter._replace(place=letter.place + 1)) for letter in letters]

    await _loop(post, work, lambda sendings: None)


async def _loop(
    post: Post, work: Callable[[Sequence[Letter]], Coroutine[Any, Any, Sendings]], done: Callable[[Sendings], None]
) -> None:
    under_way: set[asyncio.Task[None]] = set()
    last: asyncio.Task[None] | None = None

    async def finish(sendings: Sendings, token: Any, before: asyncio.Task[None] | None) -> None:
        if sendings:
            await post.publish(sendings)
        if before is not None:
            await before
        await post.ack(token)
        done(sendings)

    try:
        while True:
            letters, token = await post.receive()
            sendings = await work(letters)
            while len(under_way) >= _UNDER_WAY:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            last = asyncio.create_task(finish(sendings, token, last))
            under_way.add(last)
            last.add_done_callback(under_way.discard)
    finally:
        if last is not None:
            await asyncio.wait({last})


class _Starts:
    """Starts orders, and hears of the end of those that are watched."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._numbers = count()
        self._ends: dict[int, asyncio.Future[None]] = {}

    async def start(self, sagas: int) -> None:
        await self._post.publish([(SHARDS, Letter(next(self._numbers), 0, False)) for _ in range(sagas)])

    async def one(self) -> float:
        begun = time.perf_counter()
        number = next(self._numbers)
        end = self._ends[number] = asyncio.get_running_loop().create_future()
        await self._post.publish([(SHARDS, Letter(number, 0, True))])
        await end
        return time.perf_counter() - begun

    async def listen(self) -> None:
        while True:
            letters, token = await self._post.receive()
            for letter in letters:
                self._ends.pop(letter.number).set_result(None)
            await self._post.ack(token)


async def load(post: Post, redis: str) -> None:
    """Answers like the load of amends."""
    store = await connect_store(redis)
    starts = _Starts(post)

    async def answer(what: str, sagas: int, per_second: float = 0.0) -> Measure:
        if what == "trickle":
            return latency(await evenly(starts.one, sagas, per_second))
        with Stopwatch() as watch:
            await drive(starts.start, store, sagas, LOOK_S)
        return watch.measure(sagas)

    try:
        async with _in_background(starts.listen()):
            await serve(answer)
    finally:
        await store.close()


@asynccontextmanager
async def _in_background(job: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """A job that runs until the block is left; when it fails before, this process ends with it."""
    main = asyncio.current_task()
    assert main is not None
    task = asyncio.create_task(job)
    task.add_done_callback(lambda ended: None if ended.cancelled() else main.cancel())
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def main(role: str, way: str, file: str, broker: str, redis: str) -> None:
    recording = Recording.load(Path(file))
    boxes = {"coordinator": SHARDS, "participant": SERVICE, "load": CLIENT}
    post = await WAYS[way](broker, recording, frozenset({boxes[role]}))
    try:
        if role == "load":
            await load(post, redis)
            return
        rows = await Rows.open(redis, recording)
        part = coordinator if role == "coordinator" else participant
        async with _in_background(part(post, rows, recording)):
            await serve()
        await rows.close()
    finally:
        await post.close()


if __name__ == "__main__":
    quiet()
    run(main(*sys.argv[1:]))
