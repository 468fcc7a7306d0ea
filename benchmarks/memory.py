"""`python -m benchmarks.memory [--sagas N…] [--json]`: what one saga takes in Redis, and in a coordinator.

A *parked* order has reserved its stock and waits for the charge, with its timer set and its messages sent. An *ended*
one is completed, or was undone (every tenth), and waits for the end of its retention; its journal is kept. Redis is
started for this alone, without append-only file. Its figure is `used_memory` per saga, with all indexes, beyond that
of an empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table
from tests.support.servers import PrivateRedis, ServiceMissing

from amends.coordinator.actors import Actors
from amends.coordinator.core import Transition, encode_state, start, transition
from amends.coordinator.core.inputs import Answered
from amends.coordinator.core.snapshot import decode_snapshot, encode_snapshot
from amends.coordinator.ids import Ids
from amends.coordinator.store import Commit, LedgerEntry, OutboxKey, Predecessor
from amends.coordinator.stores.redis import RedisStore
from amends.coordinator.wire import outgoing
from benchmarks.order import order
from benchmarks.script import DEFINITION, NOW, POLICY, answers

_AT_ONCE: Final = 500
_PARKED_AFTER: Final = 2
"""Commits: the start, and the reply of the first step."""
_AIM: Final = 1500


class Taken(Struct, frozen=True, kw_only=True):
    """Bytes per saga, and in Redis where they are."""

    bytes: float
    where: dict[str, float] = {}


def life(number: int, ids: Ids, commits: int | None = None) -> Iterator[Commit]:
    """The commits of one order, as a coordinator makes them: the first few, or all."""
    saga_id, before = f"order-{number:06d}", None
    step = start(DEFINITION, saga_id, encode_state(order(number)), NOW, ids.next(), POLICY, cause=f"start-{number}")
    said = iter(answers(fails=number % 10 == 9))
    made = 0
    while True:
        commit = _commit(step, before)
        yield commit
        made += 1
        answer = next(said, None)
        if answer is None or made == commits:
            return
        run, outcome, data = answer
        before = commit.snapshot
        heard = Answered(
            message_id=ids.next(), run=run, incarnation=before.incarnation, outcome=outcome, recording=data, attempt=1
        )
        step = transition(DEFINITION, before, heard, NOW, ids.next(), POLICY)


def _commit(step: Transition, before: Any) -> Commit:
    snapshot, record = step.snapshot, step.record
    assert snapshot is not None
    assert record is not None
    return Commit(
        snapshot=snapshot,
        predecessor=None if before is None else Predecessor(before.incarnation, before.version, before.commit_id),
        record=record,
        outbox=outgoing(snapshot, step.effects, record.commit_id),
        input_hash="" if before is not None else "0" * 32,
    )


async def in_redis(url: str, sagas: int, commits: int | None) -> Taken:
    """Store so many sagas in an empty Redis, and clear what they sent."""
    client = Redis.from_url(url)
    store = await RedisStore.open(f"{url}?namespace=amends")
    before = (await client.info("memory"))["used_memory"]
    ids = Ids()
    for first in range(0, sagas, _AT_ONCE):
        lives = [list(life(number, ids, commits)) for number in range(first, min(first + _AT_ONCE, sagas))]
        for place in range(max(map(len, lives))):
            batch = [one[place] for one in lives if len(one) > place]
            await store.commit(batch)
            sent = [commit.snapshot for commit in batch if commit.outbox]
            await store.commit((), [OutboxKey(one.id, one.incarnation, one.version) for one in sent])
    after = (await client.info("memory"))["used_memory"]
    where = await _where(client, sagas)
    await store.close()
    await client.aclose()
    return Taken(bytes=(after - before) / sagas, where=where)


async def _where(client: Redis, sagas: int) -> dict[str, float]:
    """Bytes per saga in each kind of key, as Redis reckons them; they leave out its own table of keys in part."""
    taken: Counter[str] = Counter()
    keys = [key async for key in client.scan_iter(count=10_000)]
    for first in range(0, len(keys), 1000):
        pipeline = client.pipeline(transaction=False)
        part = keys[first : first + 1000]
        for key in part:
            pipeline.memory_usage(key, samples=0)
        for key, size in zip(part, await pipeline.execute(), strict=True):
            name = key.decode().partition("}:")[2]
            taken["saga" if name.startswith("saga:") else name] += size
    return {name: size / sagas for name, size in taken.most_common()}


def in_coordinator(sagas: int, *, loaded: bool) -> Taken:
    """Sagas that a coordinator keeps in memory between two messages: as it made them, or as loaded from a store."""
    ids = Ids()
    actors = Actors(sagas)
    gc.collect()
    tracemalloc.start()
    for number in range(sagas):
        *_, last = life(number, ids, _PARKED_AFTER)
        snapshot = decode_snapshot(encode_snapshot(last.snapshot)) if loaded else last.snapshot
        actors.get(snapshot.id).hydrate(snapshot, LedgerEntry(snapshot.incarnation, "0" * 32, snapshot.started_at))
        del last, snapshot
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Taken(bytes=taken / sagas)


def measure(counts: Sequence[int]) -> dict[str, Taken]:
    """Everything, by name. What needs Redis is left out where there is none."""
    found = {}
    try:
        for sagas in counts:
            for name, commits in (("parked", _PARKED_AFTER), ("ended", None)):
                with PrivateRedis() as server:
                    found[f"in Redis, {name}, of {sagas:,}"] = asyncio.run(in_redis(server.url, sagas, commits))
    except ServiceMissing as error:
        print(f"not measured in Redis: {error}", file=sys.stderr)
    for name, loaded in (("as it was made", False), ("as it was loaded", True)):
        found[f"in a coordinator, hot, {name}"] = in_coordinator(min(*counts, 10_000), loaded=loaded)
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="What one saga takes.")
    parser.add_argument("--sagas", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    found = measure(asked.sagas)
    if asked.json:
        print(msgspec.json.encode(found).decode())
    else:
        _show(found)
    return 0


def _show(found: dict[str, Taken]) -> None:
    table = Table("", "bytes each", f"of {_AIM:,}", "where")
    for name, taken in found.items():
        where = ", ".join(f"{part} {size:,.0f}" for part, size in taken.where.items() if size >= 0.5)
        table.add_row(name, f"{taken.bytes:,.0f}", f"{taken.bytes / _AIM:.2f}", where)
    Console(width=130).print(table)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(main(sys.argv[1:]))
