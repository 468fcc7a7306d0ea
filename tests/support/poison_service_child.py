"""A service in a process of its own that is killed by one command: `poison_service_child.py BROKER INBOX`.

With a SQLite inbox its handlers are transactional, and write into the table `reserved`.
"""

from __future__ import annotations

import asyncio
import os
import sys

from tests.support.rig import Release, Reserve, Reserved

from amends.participants import Context, Participant

POISON = "poison"
LEASE_S = 0.5


def plain() -> Participant:
    shop = Participant("shop", lease=LEASE_S)

    @shop.action
    async def reserve(command: Reserve) -> Reserved:
        await asyncio.sleep(0)
        if command.sku == POISON:
            os._exit(9)
        return Reserved(reservation=command.sku)

    @shop.compensation
    async def release(undo: Release) -> None:
        pass

    return shop


def transactional() -> Participant:
    shop = Participant("shop", lease=LEASE_S)

    @shop.action(Reserve, transactional=True)
    def reserve(command: Reserve, ctx: Context) -> Reserved:
        ctx.session.execute("INSERT INTO reserved VALUES (?, ?)", (ctx.saga_id, command.sku))
        if command.sku == POISON:
            os._exit(9)
        return Reserved(reservation=command.sku)

    @shop.compensation(Release, transactional=True)
    def release(undo: Release, ctx: Context[Reserve]) -> None:
        ctx.session.execute("DELETE FROM reserved WHERE saga = ?", (ctx.saga_id,))

    return shop


async def main(broker: str, inbox: str) -> None:
    shop = transactional() if inbox.startswith("sqlite:") else plain()
    async with shop.running(broker, inbox=inbox):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
