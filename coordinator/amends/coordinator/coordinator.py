"""The coordinator: consumes the shards it is given, and drives the sagas in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import structlog
from msgspec import Struct
from msgspec.structs import replace

from amends.brokers import Broker, Consumer, ConsumerClosed, Delivery, Retention, ReturningBroker
from amends.brokers.connect import connect_broker
from amends.brokers.settings import find_settings
from amends.contracts import TransientError
from amends.coordinator.actors import Actors
from amends.coordinator.core import Policy
from amends.coordinator.declaration.saga import Saga
from amends.coordinator.lifetimes import check_lifetimes
from amends.coordinator.processor import Decided, Processor
from amends.coordinator.purger import Purger
from amends.coordinator.registry import Registry
from amends.coordinator.relay import GRACE_S, Relay
from amends.coordinator.router import SUBSCRIBER, Router
from amends.coordinator.store import Parked, SagaStore
from amends.coordinator.stores import connect_store
from amends.coordinator.suspicion import Batch, Suspicion
from amends.coordinator.sweeper import Sweeper
from amends.coordinator.trouble import Trouble

log = structlog.get_logger("amends.coordinator")

_FINISHING: Final = 4
"""How many batches may be on their way to the broker while the next is decided."""


Handle: TypeAlias = "Callable[[Consumer, Batch, Trouble], Awaitable[None]]"


class CoordinatorConfig(Struct, frozen=True, kw_only=True):
    """How a coordinator runs.

    `batch`: how many messages are taken to one commit at most. `hot`: how many sagas are kept in memory.
    `outbox_grace_s`: how old an unsent message is before the relay sends it. `flush_s`: how long sent messages may stay
    in the outbox when no commit clears them. `handling_limit`: after how many handlings in which the process died a
    message is a dead letter. `retention`: how long ended sagas are kept; without it, what the settings say.
    """

    batch: int = 256
    hot: int = 20_000
    outbox_grace_s: float = GRACE_S
    flush_s: float = 1.0
    handling_limit: int = 5
    retention: Retention | None = None


class Coordinator:
    """Runs sagas: give it the classes, a broker and a store (or their URLs), and keep `running()` open.

    What is not given comes from the settings: `AMENDS_BROKER` and `AMENDS_STORE`, a settings file, or the defaults.
    Any number of coordinators may share a broker and a store; the broker gives each a part of the shards. All of them
    should have the same sagas loaded.
    """

    def __init__(
        self,
        sagas: Iterable[type[Saga]],
        *,
        broker: Broker | str | None = None,
        store: SagaStore | str | None = None,
        policy: Policy | None = None,
        config: CoordinatorConfig | None = None,
    ) -> None:
        self.registry = Registry(sagas)
        self._broker, self._store = broker, store
        self._policy = policy or Policy()
        self._config = config or CoordinatorConfig()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """Consume until the block is left; then finish what is in hand, and let go of the rest."""
        broker = self._broker
        store = self._store
        config = self._config
        own_broker = own_store = None
        if broker is None or store is None or config.retention is None:
            settings = find_settings().settings
            broker = settings.broker if broker is None else broker
            store = settings.store if store is None else store
            config = replace(config, retention=config.retention or settings.kept)
        try:
            if isinstance(broker, str):
                broker = own_broker = await connect_broker(broker)
            if isinstance(store, str):
                store = own_store = await connect_store(store)
            engine = Engine(self.registry, broker, store, self._policy, config)
            await engine.start()
            try:
                yield engine
            finally:
                await engine.stop()
        finally:
            if own_store is not None:
                await own_store.close()
            if own_broker is not None:
                await own_broker.close()

    async def run(self) -> None:
        """Consume until cancelled."""
        async with self.running() as engine:
            await engine.stopped()


class Engine:
    """A coordinator at work on one broker and one store. Raises `UsageError` for times that do not go together.

    `start`/`stop` run it in the background. A test with a virtual clock calls `open` and then the parts' own methods
    (`processor.process`, `router.process`, `sweeper.sweep`, `relay.relay`, `purger.purge`) in its own time.
    """

    def __init__(
        self, registry: Registry, broker: Broker, store: SagaStore, policy: Policy, config: CoordinatorConfig
    ) -> None:
        retention = config.retention or Retention()
        check_lifetimes(registry, policy, retention, broker)
        self.broker, self.store = broker, store
        self._registry, self._config = registry, config
        self.sweeper = Sweeper(store, broker)
        self.relay = Relay(store, broker, config.outbox_grace_s)
        self.purger = Purger(store, retention)
        self.router = Router(store, broker)
        self.suspicion = Suspicion(store, config.handling_limit)
        self.processor = Processor(
            registry,
            store,
            broker,
            policy=policy,
            actors=Actors(config.hot),
            on_wake=self.sweeper.expect,
            ids_kept=retention.ids,
        )
        self.shards: frozenset[int] = frozenset()
        self._gained = asyncio.Event()
        self.consumer: Consumer | None = None
        self.events: Consumer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._working: set[asyncio.Task[None]] = set()
        self._finishing: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._problems: set[str] = set()

    async def open(self) -> None:
        """Take part: check the shard map, fetch parked messages, and ask the broker for shards and events.

        When that fails, what was opened is closed again: shards that nobody works on would be kept from the others.
        """
        await self.store.adopt(self.broker.shard_map)
        try:
            self.consumer = await self.broker.consume_shards(self._own)
            types = sorted(self._registry.event_types())
            if types:
                self.events = await self.broker.subscribe(SUBSCRIBER, types)
            await self.unpark()
        except BaseException:
            with suppress(TransientError):
                await self._close_consumers()
            raise

    def _own(self, shards: frozenset[int]) -> None:
        if shards != self.shards:
            log.info("shards", held=len(shards), of=self.broker.shard_map.shards)
        if shards - self.shards:
            self._gained.set()
        self.shards = shards
        slots = [self.broker.shard_map.slots_of(shard) for shard in sorted(shards)]
        self.processor.own(shards)
        self.sweeper.own(slots)
        self.relay.own(slots)
        self.purger.own(slots)

    async def unpark(self) -> int:
        """Send on the messages that waited for a saga version that is loaded here; give how many.

        Each once: one whose shard is still held by a coordinator without the version is parked again at once. It is
        fetched when that coordinator goes, by whoever gains the shard.
        """
        sent = 0
        for definition in self._registry:
            seen: set[tuple[str, str]] = set()
            while parked := await self.store.unpark(definition.name, definition.version, 256):
                fresh = [one for one in parked if _identity(one) not in seen]
                if not fresh:
                    break
                await self.broker.publish([one.message for one in fresh])
                await self.store.parked_sent(fresh)
                seen.update(map(_identity, fresh))
                sent += len(fresh)
        return sent

    async def _fetch_parked(self) -> None:
        """Whoever had the shards that are new here may have parked what it could not handle."""
        trouble = Trouble("fetching parked messages", self._problems)
        while True:
            await self._gained.wait()
            self._gained.clear()
            try:
                await self.unpark()
                trouble.over()
            except Exception as error:
                trouble.report(error)
                self._gained.set()
                await asyncio.sleep(trouble.next_wait())

    async def start(self) -> None:
        """Open, and work in the background."""
        await self.open()
        assert self.consumer is not None
        jobs = [
            self._fetch_parked(),
            self._consume(self.consumer, self._drive, Trouble("the coordinator", self._problems)),
            self.sweeper.run(Trouble("the timer sweep", self._problems)),
            self.relay.run(Trouble("the outbox relay", self._problems)),
            self.purger.run(Trouble("the purge of ended sagas", self._problems)),
            self._flush(),
        ]
        if self.events is not None:
            jobs.append(
                self._consume(self.events, self._route, Trouble("the event router", self._problems), events=True)
            )
        if isinstance(self.broker, ReturningBroker):
            jobs.append(self._judge_returned(self.broker))
        self._tasks = [asyncio.create_task(job) for job in jobs]
        for task in self._tasks:
            task.add_done_callback(_tell_end)

    async def stopped(self) -> None:
        """Wait until a part of the engine ends, which only a bug or a cancellation makes it do."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _consume(self, consumer: Consumer, handle: Handle, trouble: Trouble, *, events: bool = False) -> None:
        """Receive, and handle batch after batch; what may have killed a process before is looked at first."""
        while not self._stopping:
            deliveries: list[Delivery] = []
            try:
                deliveries = await self._receive(consumer)
                batches = await self.suspicion.sort(consumer, deliveries, events=events)
            except ConsumerClosed:
                return
            except Exception as error:
                await self._give_back(consumer, Batch(deliveries), error, trouble)
                continue
            for batch in batches:
                try:
                    await self.suspicion.begin(batch)
                    await handle(consumer, batch, trouble)
                except ConsumerClosed:
                    return
                except Exception as error:
                    await self._give_back(consumer, batch, error, trouble)

    async def _drive(self, consumer: Consumer, batch: Batch, trouble: Trouble) -> None:
        """Decide a batch, and finish it while the next one is decided. One that is alone has nobody beside it."""
        await self._until_finishing(fewer_than=1 if batch.alone else _FINISHING)
        decided = await self.processor.decide(batch.deliveries)
        # what only waits for the broker from here on kills nobody
        await self.suspicion.end(batch)
        await self._until_finishing(fewer_than=_FINISHING)
        task = asyncio.create_task(self._finish(consumer, decided, batch, trouble))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        if batch.alone:
            await self._until_finishing(fewer_than=1)

    async def _until_finishing(self, *, fewer_than: int) -> None:
        while len(self._finishing) >= fewer_than:
            await asyncio.wait(self._finishing, return_when=asyncio.FIRST_COMPLETED)

    async def _receive(self, consumer: Consumer) -> list[Delivery]:
        """Wait for a batch. In here, and only in here, a task may be cancelled without losing work."""
        task = asyncio.current_task()
        assert task is not None
        self._working.discard(task)
        deliveries = list(await consumer.receive(self._config.batch))
        self._working.add(task)
        return deliveries

    async def _finish(self, consumer: Consumer, decided: Decided, batch: Batch, trouble: Trouble) -> None:
        try:
            await self.processor.finish(consumer, decided)
            trouble.over()
        except ConsumerClosed:
            return
        except Exception as error:
            await self._give_back(consumer, batch, error, trouble)

    async def _give_back(self, consumer: Consumer, batch: Batch, error: Exception, trouble: Trouble) -> None:
        """Acknowledge nothing, hand the messages back once, and take none until the store can be written again.

        Taking them to find out would count as a delivery each time, and in a long outage turn good messages into dead
        letters.
        """
        trouble.report(error)
        if batch.deliveries:
            try:
                await consumer.release(batch.deliveries)
            except TransientError as also:
                trouble.report(also)
        while not self._stopping:
            await asyncio.sleep(trouble.next_wait())
            try:
                await self.store.ping()
                await self.suspicion.end(batch)
                return
            except TransientError as still:
                trouble.report(still)

    async def _route(self, events: Consumer, batch: Batch, trouble: Trouble) -> None:
        await self.router.process(events, batch.deliveries)
        await self.suspicion.end(batch)
        trouble.over()

    async def _judge_returned(self, broker: ReturningBroker) -> None:
        """What the broker alone has given up comes back, unless it is what kills us."""
        trouble = Trouble("looking through returned messages", self._problems)
        while True:
            try:
                await broker.judge_returned(self.suspicion.judge)
            except Exception as error:
                trouble.report(error)
                await asyncio.sleep(trouble.next_wait())

    async def _flush(self) -> None:
        trouble = Trouble("clearing the outbox", self._problems)
        while True:
            await asyncio.sleep(self._config.flush_s)
            try:
                await self.processor.flush()
                trouble.over()
            except Exception as error:
                trouble.report(error)

    async def stop(self) -> None:
        """Take nothing more, finish what is in hand, clear the outbox, and give the shards back."""
        self._stopping = True
        for task in self._tasks:
            # whoever is in the middle of a batch is left to finish it, and then sees that it is time to stop
            if task not in self._working:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._finishing:
            await asyncio.wait(self._finishing)
        try:
            await self.processor.flush()
            await self._close_consumers()
        except TransientError as error:
            log.warning("stopped while the store or the broker was away; the next run goes on", problem=str(error))

    async def _close_consumers(self) -> None:
        for consumer in (self.consumer, self.events):
            if consumer is not None:
                await consumer.close()

    async def kill(self) -> None:
        """Stop at once, wherever it stands: what a crash of the process would leave. For tests."""
        self._stopping = True
        tasks = [*self._tasks, *self._finishing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _identity(parked: Parked) -> tuple[str, str]:
    """What tells parked messages apart. One event goes to several sagas under one id."""
    return parked.message.envelope.id, parked.message.envelope.subject


def _tell_end(task: asyncio.Task[None]) -> None:
    """A part of the engine has ended: by itself it only does so when it cannot go on."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the coordinator cannot go on", problem=f"{type(error).__name__}: {error}")
