"""Commits to a Redis store until it is told to stop, through restarts of the server, and keeps what was reported."""

from __future__ import annotations

import asyncio
import os

from tests.support.sagas import commit, following, message, outbox_key, snapshot

from amends.coordinator.core.snapshot import Phase, Snapshot
from amends.coordinator.store import Commit, CommitResult, OutboxKey, SagaStore, StoreUnavailable

SAGAS, VERSIONS = 5, 4


class Writer:
    """Takes batch after batch of sagas through their versions; each commit clears what its predecessor sent.

    `reported` are the versions that the store has confirmed, `failures` how often it was away.
    """

    def __init__(self, store: SagaStore, name: str) -> None:
        self._store, self._name = store, name
        self.reported: dict[str, int] = {}
        self.failures = 0
        self.conflicts = 0
        self.stopping = False

    async def run(self) -> None:
        batch = 0
        while not self.stopping:
            now: list[Snapshot] = [snapshot(f"{self._name}-{batch}-{n}") for n in range(SAGAS)]
            await self._surely([commit(s, outbox=(message(saga_id=s.id, size=300),)) for s in now], [])
            for version in range(2, VERSIONS + 1):
                phase = Phase.COMPLETED if version == VERSIONS else Phase.RUNNING
                then = [following(s, phase=phase, state=os.urandom(200)) for s in now]
                commits = [
                    commit(after, before, outbox=(message(saga_id=after.id, size=300),))
                    for after, before in zip(then, now, strict=True)
                ]
                await self._surely(commits, [outbox_key(s) for s in now])
                now = then
            batch += 1

    async def _surely(self, commits: list[Commit], cleared: list[OutboxKey]) -> None:
        while True:
            try:
                results = await self._store.commit(commits, cleared)
                break
            except StoreUnavailable:
                self.failures += 1
                await asyncio.sleep(0.01)
        for one, result in zip(commits, results, strict=True):
            if result is CommitResult.COMMITTED:
                self.reported[one.snapshot.id] = one.snapshot.version
            else:
                self.conflicts += 1

    async def reports(self, more: int) -> None:
        """Wait until that many more commits were reported."""
        goal = sum(self.reported.values()) + more
        while sum(self.reported.values()) < goal:
            await asyncio.sleep(0.001)
