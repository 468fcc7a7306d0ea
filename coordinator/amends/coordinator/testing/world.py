"""Sagas and their participants together in one process, on a virtual clock: days pass in milliseconds.

    async with World(PlaceOrder, inventory, payments) as world:
        outcome = await world.run(PlaceOrder(order_id="1", …), id="order-1")
        assert outcome.status == "completed"

The code that runs is that of production: coordinator, participant library, outbox, timers. Broker, store and inboxes
are the in-memory ones, which keep their promises but for surviving the process.
"""

from __future__ import annotations

import asyncio
import copy
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self, overload

from typing_extensions import TypeVar

from amends.brokers import ShardMap
from amends.brokers.memory import MemoryBroker
from amends.brokers.retention import FOREVER
from amends.contracts import Duration, UsageError, as_timedelta
from amends.contracts.names import SLOTS
from amends.coordinator.client import Handle, SagaClient
from amends.coordinator.coordinator import CoordinatorConfig, Engine
from amends.coordinator.core.policy import Policy
from amends.coordinator.core.snapshot import RunStatus
from amends.coordinator.declaration.saga import Saga
from amends.coordinator.outcome import Outcome, StillGoing
from amends.coordinator.registry import Registry
from amends.coordinator.stores.memory import MemoryStore
from amends.coordinator.testing.clock import VirtualClock
from amends.participants import Inbox, MemoryInbox, Participant, ParticipantRunner, SqliteInbox

SagaT = TypeVar("SagaT", bound=Saga)

_FOREVER: Final = timedelta(days=365 * 100)
_CALM: Final = 12
"""How many turns of the event loop without any message make the world calm."""


class World:
    """Give it saga classes and participants, in any order.

    A participant with `transactional` handlers has its inbox in a SQLite file of its own, which goes with the world;
    `database` says where, so that a test can make the tables and look into them.

    Time only passes in `advance` and `run`. Handlers that wait for something real, such as a network, are waited for;
    but then a retry of another handler may be late by the world's clock.
    """

    def __init__(
        self,
        *parts: type[Saga] | Participant,
        clock: VirtualClock | None = None,
        policy: Policy | None = None,
        shards: int = 8,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.store = MemoryStore(self.clock)
        self.medium = MemoryBroker(ShardMap(shards=shards), self.clock)
        self._sagas: list[type[Saga]] = []
        self._participants: list[Participant] = []
        for part in parts:
            if isinstance(part, Participant):
                self._participants.append(_patient(part))
            elif isinstance(part, type) and issubclass(part, Saga):
                self._sagas.append(part)
            else:
                raise UsageError(f"World takes saga classes and participants, not {part!r}")
        self._in_memory = {participant.service: MemoryInbox(self.clock) for participant in self._participants}
        self._folder = TemporaryDirectory(prefix="amends-world-")
        self._policy = policy or Policy()
        self.client = SagaClient(broker=self.medium.join(), store=self.store)

    async def __aenter__(self) -> Self:
        await self._go()
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)
        await self._die()
        await self.medium.close()
        self._folder.cleanup()

    async def _go(self) -> None:
        self._broker = self.medium.join()
        # years pass in here, and what ended long ago is still looked at
        config = CoordinatorConfig(retention=FOREVER)
        self.engine = Engine(Registry(self._sagas), self._broker, self.store, self._policy, config)
        await self.engine.start()
        self._running: list[asyncio.Task[None]] = []
        self._inboxes: list[Inbox] = []
        for participant in self._participants:
            self._inboxes.append(self._inbox(participant))
            runner = ParticipantRunner(
                participant,
                self._broker,
                self._inboxes[-1],
                clock=self.clock,
                sleep=self.clock.sleep,
                threads=False,
            )
            self._running.append(asyncio.create_task(runner.run()))
            await runner.tried()

    def _inbox(self, participant: Participant) -> Inbox:
        if any(handler.transactional for handler in participant.handlers.values()):
            return SqliteInbox.open(self.database(participant.service), clock=self.clock)
        return self._in_memory[participant.service]

    def database(self, service: str) -> Path:
        """The SQLite file of a participant with transactional handlers."""
        return Path(self._folder.name) / f"{service}.db"

    async def _die(self) -> None:
        """Drop everything that runs, wherever it is, as a crash would."""
        for task in self._running:
            task.cancel()
        await self.engine.kill()
        await asyncio.gather(*self._running, return_exceptions=True)
        for inbox in self._inboxes:
            await inbox.close()
        await self._broker.close()

    async def restart(self) -> None:
        """The coordinator and the participants die where they stand, and are started again on what they had stored."""
        await self._die()
        await self._go()

    # starting

    @overload
    async def start(self, saga: SagaT, /, *, id: str) -> Handle[SagaT]: ...
    @overload
    async def start(self, saga: str, input: dict[str, Any], /, *, id: str) -> Handle[Saga]: ...
    async def start(self, saga: Any, input: dict[str, Any] | None = None, /, *, id: str) -> Handle[Any]:
        """`SagaClient.start`."""
        return await self.client.start(saga, input or {}, id=id)

    async def run(self, saga: SagaT, /, *, id: str, within: Duration = timedelta(days=366)) -> Outcome[SagaT]:
        """Start a saga and let as much time pass as it needs: until it has ended, or only the outside can help it on.

        Raises `StillGoing` when that takes longer than `within`, and `UsageError` when it needs a participant that is
        not in this world.
        """
        handle = await self.start(saga, id=id)
        return await self.finish(handle, within=within)

    async def finish(self, handle: Handle[SagaT], *, within: Duration = timedelta(days=366)) -> Outcome[SagaT]:
        """Let as much time pass as a saga needs to end. See `run`."""
        limit = as_timedelta(within, "within")
        until = self.clock.now() + limit
        while True:
            await self.settle()
            outcome = await handle.outcome()
            due = await self._next()
            if outcome.ended or outcome.stuck or outcome.paused or due is None:
                return outcome
            await self._check_served(handle.id)
            if due > until:
                raise StillGoing(handle.id, outcome.status, limit.total_seconds())
            await self._pass_to(due)

    async def _check_served(self, saga_id: str) -> None:
        """Waiting for a participant that is not in this world would take for ever."""
        served = {participant.service for participant in self._participants}
        snapshot = (await self.store.load([saga_id]))[0].snapshot
        for run in snapshot.runs.values() if snapshot is not None else ():
            if run.status is RunStatus.ISSUED and run.service not in served:
                raise UsageError(
                    f"saga {saga_id!r} asks service {run.service!r} for {run.key}, and this World has no such "
                    f"participant. Give it one: World(…, {run.service})"
                )

    # time

    async def settle(self) -> None:
        """Let everybody work until nobody has anything to do at this moment."""
        calm = 0
        seen = -1
        while calm < _CALM:
            await asyncio.sleep(0)
            state = self.medium.published
            waiting_for_time = self._next_sleeper() is not None
            if state != seen or (self.medium.in_hand and not waiting_for_time):
                if state == seen:
                    # a handler waits for something that is not in this world
                    await asyncio.sleep(0.001)
                calm, seen = 0, state
            else:
                calm += 1

    async def advance(self, by: Duration) -> None:
        """Let time pass, stopping at every timer on the way."""
        end = self.clock.now() + as_timedelta(by)
        await self.settle()
        while (due := await self._next()) is not None and due <= end:
            await self._pass_to(due)
            await self.settle()
        self.clock.advance_to(end)
        await self.settle()

    async def _pass_to(self, moment: datetime) -> None:
        self.clock.advance_to(moment)
        await self.engine.sweeper.sweep()

    async def _next(self) -> datetime | None:
        timer = await self.store.next_due([range(SLOTS)])
        return min((due for due in (timer, self._next_sleeper()) if due is not None), default=None)

    def _next_sleeper(self) -> datetime | None:
        due = self.clock.next_sleeper()
        return None if due is None or due > self.clock.now() + _FOREVER / 10 else due


def _patient(participant: Participant) -> Participant:
    """The participant with claims that never run out, since nobody else is in this world to take them over, and with a
    memory that lasts."""
    patient = copy.copy(participant)
    patient.lease = _FOREVER
    patient.retention = FOREVER
    return patient
