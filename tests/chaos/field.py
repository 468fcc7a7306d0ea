"""Doing what was planned: killing, pausing and restarting processes and servers, and waiting for what follows."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from examples.orders.home import MESSAGES
from examples.orders.processes import Processes, Role
from tests.chaos.customers import Customers
from tests.chaos.ground import Ground
from tests.chaos.plan import Disturbance, Kind
from tests.support.servers import PrivateRabbitmq, Server

FAIL_OVER_S = 90.0
"""How long the shards of a process that is paused or gone may be without anybody."""

UNDER_OTHERS = 10
"""How many orders come to rest under the new owner before the old one wakes up."""

HANG_S = 6.0
"""How long a server does not answer: longer than a client waits."""

CLAIM_S = 3.0
"""The lease of the participants' claims, as the example has it."""

_SHARE = re.compile(r"\] shards +held=(\d+) of=(\d+)")


class NoFailover(Exception):
    """The shards did not come to where they should be."""


class Field:
    """The processes, customers and servers of one run."""

    def __init__(self, ground: Ground, home: Path, processes: Processes, customers: Customers) -> None:
        self._ground, self._home, self._processes, self._customers = ground, home, processes, customers
        self._roles: Mapping[str, Role] = {role.name: role for role in processes.roles}
        self._coordinators = [role for role in processes.roles if role.kind == "coordinator"]

    async def disturb(self, disturbance: Disturbance) -> None:
        """Do it, and set right again what does not come back by itself. Raises `NoFailover`."""
        who = [self._roles[name] for name in disturbance.who]
        match disturbance.kind:
            case Kind.KILL_COORDINATOR | Kind.KILL_PARTICIPANT | Kind.KILL_ALL:
                await self._renew(who, signal.SIGKILL)
            case Kind.RESTART_COORDINATOR | Kind.RESTART_PARTICIPANT:
                await self._renew(who, signal.SIGTERM)
            case Kind.PAUSE_COORDINATOR:
                await self._pause_coordinator(who[0])
            case Kind.PAUSE_PARTICIPANT:
                await self._pause_participant(who[0])
            case Kind.KILL_CUSTOMERS:
                await self._customers.kill()
                await self._customers.start()
            case Kind.KILL_BROKER:
                await self._without(self._ground.broker, Server.kill, who)
            case Kind.RESTART_BROKER:
                await self._without(self._ground.broker, Server.stop, who)
            case Kind.HANG_BROKER:
                await self._hang(self._ground.broker, who)
            case Kind.KILL_STORE:
                await self._without(self._ground.store, Server.kill, who)
            case Kind.RESTART_STORE:
                await self._without(self._ground.store, Server.stop, who)
            case Kind.HANG_STORE:
                await self._hang(self._ground.store, who)

    async def _renew(self, who: Sequence[Role], number: signal.Signals) -> None:
        await self._processes.end(who, number)
        await self._processes.start(who)

    async def _pause_coordinator(self, role: Role) -> None:
        """Past a fail-over: until somebody else has all its shards, and has worked on them. Then it wakes up."""
        await self._until_shared()
        (other,) = (one for one in self._coordinators if one != role)
        resting = len(self._customers.at_rest)
        self._pause_outside_of_transactions(role)
        try:
            await self._until(lambda: self._share(other)[0] == self._share(other)[1], f"{other.name} has all shards")
            await self._customers.allow(resting + 2 * UNDER_OTHERS)
            await self._customers.until(resting + UNDER_OTHERS)
        finally:
            self._processes.resume(role)

    def _pause_outside_of_transactions(self, role: Role) -> None:
        """Nobody can take over from a process that is paused with the lock of an embedded file in its hands."""
        self._processes.pause(role)
        while self._ground.broker is None and not _is_writable(self._home / MESSAGES):
            self._processes.resume(role)
            self._processes.pause(role)

    async def _pause_participant(self, role: Role) -> None:
        """Until its claims have run out, and the broker has given away what it had in hand."""
        self._processes.pause(role)
        try:
            await asyncio.sleep(self._ground.lease_s + CLAIM_S)
        finally:
            self._processes.resume(role)

    async def _without(self, server: Server | None, take: Callable[[Server], None], who: Sequence[Role]) -> None:
        """Take a server away and start it again; meanwhile these are killed."""
        assert server is not None
        if isinstance(server, PrivateRabbitmq):
            await asyncio.to_thread(server.until_saved)
        try:
            await asyncio.to_thread(take, server)
            await self._processes.end(who, signal.SIGKILL)
        finally:
            await asyncio.to_thread(server.start)
        await self._processes.start(who)

    async def _hang(self, server: Server | None, who: Sequence[Role]) -> None:
        """Let a server be there and not answer; meanwhile these are killed."""
        assert server is not None
        server.pause()
        try:
            await self._processes.end(who, signal.SIGKILL)
            await asyncio.sleep(HANG_S)
        finally:
            server.resume()
        await self._processes.start(who)

    async def until_served(self) -> None:
        """Wait until all processes are up and the shards are shared."""
        await self._until(
            lambda: all("Running." in self._processes.said(role) for role in self._processes.roles), "all processes run"
        )
        await self._until_shared()

    async def _until_shared(self) -> None:
        def shared() -> bool:
            shares = [self._share(role) for role in self._coordinators]
            return all(held for held, _ in shares) and sum(held for held, _ in shares) == shares[0][1]

        await self._until(shared, "the coordinators share the shards")

    def _share(self, role: Role) -> tuple[int, int]:
        """How many shards a coordinator said last that it holds, and how many there are."""
        told = _SHARE.findall(self._processes.said(role))
        return (int(told[-1][0]), int(told[-1][1])) if told else (0, -1)

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + FAIL_OVER_S
        while not holds():
            if loop.time() > until:
                raise NoFailover(f"not within {FAIL_OVER_S:.0f} s: {what}")
            await asyncio.sleep(0.1)


def _is_writable(path: Path) -> bool:
    """Whether nobody holds the lock of a file for a second."""
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True
