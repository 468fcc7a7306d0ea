"""A service process for `test_killed_process.py`: it begins one action, says so, and never ends it.

Arguments: the file of the inbox, `action` or `undo` (the action is then done, and its undo hangs).
"""

from __future__ import annotations

import asyncio
import sys

from tests.support.desk import SERVICE, Desk, Release, Reserve, Reserved
from tests.support.timeline import Timeline

from amends.contracts import SystemClock
from amends.participants import Participant, SqliteInbox


async def main(path: str, hangs_in: str) -> None:
    inventory = Participant(SERVICE)

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        if hangs_in == "action":
            await hang()
        return Reserved(reservation="r1")

    @inventory.compensation
    async def release(undo: Release) -> None:
        await hang()

    time = Timeline(SystemClock().now())
    desk = await Desk(inventory, SqliteInbox.open(path, clock=time), time, sleep=time.sleep).open()
    await desk.handle(desk.command(Reserve(sku="lamp")))
    await desk.handle(desk.undo(Release(), Reserve(sku="lamp")))


async def hang() -> None:
    print("begun", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
