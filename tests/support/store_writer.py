"""A process that commits to a SQLite store until it is killed, and tells what was reported as committed.

`store_writer.py PATH PREFIX` prints a line `id version` after each commit that the store has confirmed.
"""

from __future__ import annotations

import asyncio
import os
import sys

from tests.support.sagas import commit, following, message, outbox_key, snapshot

from amends.coordinator.core.snapshot import Phase, Snapshot
from amends.coordinator.store import Commit, CommitResult, OutboxKey
from amends.coordinator.stores import SqliteStore

SAGAS, VERSIONS = 7, 5


async def write(store: SqliteStore, prefix: str) -> None:
    """Take batch after batch of sagas through their versions; each commit clears what its predecessor sent."""
    batch = 0
    while True:
        now: list[Snapshot] = [snapshot(f"{prefix}-{batch}-{n}") for n in range(SAGAS)]
        await tell(store, [commit(s, outbox=(message(saga_id=s.id, size=300),)) for s in now], [])
        for version in range(2, VERSIONS + 1):
            phase = Phase.COMPLETED if version == VERSIONS else Phase.RUNNING
            then = [following(s, phase=phase, state=os.urandom(400)) for s in now]
            commits = [
                commit(after, before, outbox=(message(saga_id=after.id, size=300),))
                for after, before in zip(then, now, strict=True)
            ]
            await tell(store, commits, [outbox_key(s) for s in now])
            now = then
        batch += 1


async def tell(store: SqliteStore, commits: list[Commit], cleared: list[OutboxKey]) -> None:
    for one, result in zip(commits, await store.commit(commits, cleared), strict=True):
        assert result is CommitResult.COMMITTED
        os.write(1, f"{one.snapshot.id} {one.snapshot.version}\n".encode())


async def main(path: str, prefix: str) -> None:
    store = SqliteStore.open(path)
    await asyncio.gather(*(write(store, f"{prefix}-{n}") for n in range(4)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
