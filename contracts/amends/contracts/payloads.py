"""The data of amends' own messages: what undo, settle, start, control and notice carry, and how a failure is told."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec
from msgspec import Struct


class Payload(Struct, frozen=True, gc=False):
    """Data of a message that amends itself defines. `__tag__` is its type on the wire."""

    __tag__: ClassVar[str]


class Failure(Payload, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """An unexpected error of a participant or of a saga's own code. `error` is the exception's type name.

    `final` asks the coordinator not to try again by itself, as if all its attempts were used up.
    """

    __tag__: ClassVar[str] = "amends.failure.v1"

    error: str
    message: str = ""
    final: bool = False


class Done(Payload, frozen=True):
    """The data of a reply that says nothing but its outcome."""

    __tag__: ClassVar[str] = "amends.done.v1"


class Recorded(Struct, frozen=True, gc=False):
    """A message as it was recorded: its type and its data, in the codec of what carries it."""

    type: str
    data: msgspec.Raw


class Undo(Payload, frozen=True):
    """What an undo carries: the compensation, and the command and reply it undoes as the coordinator recorded them.

    The envelope's type is the compensation's. `reply` is None when the outcome of the action is not known.
    """

    __tag__: ClassVar[str] = "amends.undo.v1"

    compensation: msgspec.Raw
    command: Recorded
    reply: Recorded | None = None


class Settle(Payload, frozen=True):
    """Asks what became of the effect in the envelope. `command` is the type of the command that was sent."""

    __tag__: ClassVar[str] = "amends.settle.v1"

    command: str


class Start(Payload, frozen=True):
    """Starts a saga: its name, and its input as the saga's JSON. Without `version` the newest one is started."""

    __tag__: ClassVar[str] = "amends.start.v1"

    saga: str
    input: msgspec.Raw
    version: int | None = None


class TimersDue(Payload, frozen=True):
    """Timers of a saga are due. `due` is the earliest moment that the sweep saw, in store time."""

    __tag__: ClassVar[str] = "amends.timers-due.v1"

    due: datetime


Action = Literal["cancel", "pause", "resume", "retry", "skip", "resolve", "watch"]


class Control(Payload, frozen=True, kw_only=True):
    """A word about a saga from its caller or an operator.

    `expected_version` is the version that an operator saw; the word is refused when the saga has moved on.
    `step` and `reply` say what `retry`, `skip` and `resolve` are about; `direction` tells `resolve` whether an
    unclear step counts as done (`forward`, with its typed reply) or as never happened (`back`).
    """

    __tag__: ClassVar[str] = "amends.control.v1"

    action: Action
    by: str = ""
    reason: str = ""
    step: str | None = None
    direction: Literal["forward", "back"] | None = None
    reply: Recorded | None = None
    expected_version: int | None = None


class Notice(Payload, frozen=True, kw_only=True):
    """The coordinator's answer to a client about one saga.

    `what` is `accepted` (with `existing` when the saga was there already), `refused` (with the problem), or
    `ended`: then `status` says how, `completed` or `compensated`, and `code` and `problem` why the saga turned back.
    """

    __tag__: ClassVar[str] = "amends.notice.v1"

    what: Literal["accepted", "refused", "ended"]
    problem: str = ""
    code: str = ""
    existing: bool = False
    version: int = 0
    status: str = ""
