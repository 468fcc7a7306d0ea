"""What a transition wants done in the world, as data. Timers are no effects: they stand in the snapshot.

The `attempt` of a message about a run counts all that were sent about it, of whatever kind.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from amends.contracts.payloads import Notice
from amends.coordinator.core.snapshot import Phase, Recording


class SendCommand(Struct, frozen=True, tag=True, gc=False):
    """Ask a participant for an action.

    `issued_at` is the first send of this effect, `not_after` the last moment to begin.
    """

    run: str
    service: str
    command: Recording
    revision: int
    attempt: int
    issued_at: datetime
    not_after: datetime


class SendUndo(Struct, frozen=True, tag=True, gc=False):
    """Ask a participant to undo an action; `command` and `reply` are what was recorded of it."""

    run: str
    service: str
    undo: Recording
    command: Recording
    reply: Recording | None
    revision: int
    attempt: int
    issued_at: datetime


class SendSettle(Struct, frozen=True, tag=True):
    """Ask a participant what became of an action, for good."""

    run: str
    service: str
    command_type: str
    revision: int
    attempt: int
    issued_at: datetime


class PublishEvent(Struct, frozen=True, tag=True):
    """Publish a domain event; `sequence` counts those of this saga.

    `occasion` names what it is published for, once: so it has the same id when a commit that was lost is done again.
    """

    event: Recording
    sequence: int
    occasion: str


class Notify(Struct, frozen=True, tag=True):
    """Tell a client. `about` is the id of its message."""

    reply_to: str
    notice: Notice
    about: str


class End(Struct, frozen=True, tag=True, gc=False):
    """The saga has ended."""

    phase: Phase


Effect = SendCommand | SendUndo | SendSettle | PublishEvent | Notify | End
