"""The actors of one coordinator: a process manager per saga that is being worked on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from amends.coordinator.core.snapshot import Snapshot
from amends.coordinator.store import LedgerEntry


class Mailbox(list[Any]):
    """What waits for an actor. Most mailboxes are empty, and an empty deque takes 600 bytes."""

    __slots__ = ()

    def popleft(self) -> Any:
        return self.pop(0)


class Actor:
    """The process manager of one saga instance: its mailbox, and its state while it is hot.

    `hydrated` says that `snapshot` and `start` are what the store had when they were read, or what we committed since;
    another coordinator may have moved on meanwhile, which only a commit or a fresh load can tell. `epoch` is that of
    the store when they were read.
    """

    __slots__ = ("epoch", "hydrated", "mailbox", "saga_id", "snapshot", "start")

    def __init__(self, saga_id: str) -> None:
        self.saga_id = saga_id
        self.mailbox = Mailbox()
        self.hydrated = False
        self.snapshot: Snapshot | None = None
        self.start: LedgerEntry | None = None
        self.epoch = ""

    def hydrate(self, snapshot: Snapshot | None, start: LedgerEntry | None) -> None:
        self.snapshot, self.start, self.hydrated = snapshot, start, True

    def forget(self) -> None:
        """Drop the state: the next message reads it from the store."""
        self.snapshot, self.start, self.hydrated = None, None, False


class Actors:
    """Actors by saga id; the ones not used for longest are evicted when there are more than `hot`."""

    def __init__(self, hot: int = 20_000) -> None:
        self._hot = hot
        self._actors: OrderedDict[str, Actor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._actors)

    def get(self, saga_id: str) -> Actor:
        """The actor of a saga; a cold one when it is not here."""
        actor = self._actors.get(saga_id)
        if actor is None:
            actor = self._actors[saga_id] = Actor(saga_id)
        else:
            self._actors.move_to_end(saga_id)
        return actor

    def evict(self, saga_id: str) -> None:
        self._actors.pop(saga_id, None)

    def forget_others(self, known: Collection[Actor]) -> None:
        """Drop the state of all but these."""
        for actor in self._actors.values():
            if actor not in known:
                actor.forget()

    def trim(self) -> None:
        """Evict what is idle, ended first, down to the limit."""
        while len(self._actors) > self._hot:
            saga_id, actor = next(iter(self._actors.items()))
            if actor.mailbox:
                break
            del self._actors[saga_id]

    def evict_where(self, gone: Callable[[str], bool]) -> None:
        """Evict the actors of sagas that are no longer ours."""
        for saga_id in [saga_id for saga_id in self._actors if gone(saga_id)]:
            del self._actors[saga_id]
