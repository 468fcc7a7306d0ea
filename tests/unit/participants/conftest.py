"""Both ways to take part: a plain handler with a claim, and a transactional one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from tests.support.desk import SERVICE, Desk
from tests.support.timeline import Timeline

from amends.participants import Inbox, MemoryInbox, Participant, SqliteInbox

OpenDesk: TypeAlias = Callable[..., Any]


@pytest.fixture
def time() -> Timeline:
    return Timeline()


@pytest.fixture
def inventory() -> Participant:
    return Participant(SERVICE)


@pytest.fixture
async def open_desk(time: Timeline, tmp_path: Path) -> AsyncIterator[OpenDesk]:
    """`await open_desk(participant)`; with `file=True` its inbox is a SQLite file, the same for all desks of a test."""
    opened: list[Desk] = []

    async def open(participant: Participant, *, file: bool = False, inbox: Inbox | None = None, **options: Any) -> Desk:
        if inbox is None:
            inbox = SqliteInbox.open(tmp_path / "inventory.db", clock=time) if file else MemoryInbox(time)
        desk = Desk(participant, inbox, time, **options)
        opened.append(desk)
        return await desk.open()

    yield open
    for desk in opened:
        await desk.close()
