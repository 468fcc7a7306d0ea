"""What a saga instance can be told."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from amends.contracts import ReplyOutcome
from amends.coordinator.core.snapshot import Recording


class Input(Struct, frozen=True, array_like=True, tag=True, kw_only=True, gc=False):
    """A message to one saga. `message_id` is what the journal names as the cause; `reply_to` who asked, if anyone."""

    message_id: str
    reply_to: str | None = None


class Answered(Input, frozen=True):
    """A participant's answer about the step run `run`: to its command, its undo or its settle.

    `attempt` is that of the message it answers, which no other message about this run has. `version` and `commit_id`
    name the commit that sent that message; 0 and "" when the participant does not say.
    """

    run: str
    incarnation: str
    outcome: ReplyOutcome
    recording: Recording
    revision: int = 0
    attempt: int = 0
    version: int = 0
    commit_id: str = ""


class TimersFired(Input, frozen=True):
    """Something is due. What, is read from the snapshot: a timer that was moved meanwhile simply is not due."""

    incarnation: str


class RolledBack(Input, frozen=True):
    """The store may have lost commits of this saga. `why` is what shows it.

    `epoch` is the present one of the store, `known` the version of the saga and `answered` the number of the message
    that the answer which showed it names.
    """

    why: str
    epoch: str
    known: int = 0
    answered: int = 0


class SignalReceived(Input, frozen=True):
    recording: Recording


class EventReceived(Input, frozen=True):
    recording: Recording


class Cancel(Input, frozen=True):
    reason: str
    by: str = ""


class Pause(Input, frozen=True):
    reason: str = ""
    by: str = ""


class Resume(Input, frozen=True):
    by: str = ""


class RetryStep(Input, frozen=True):
    """Try a stuck step, or its stuck undo, again. Without `step`: all that are stuck."""

    step: str | None = None
    by: str = ""
    expected_version: int | None = None


class SkipStep(Input, frozen=True):
    """Leave a stuck step undone, or a stuck undo not done, and go on: the operator answers for it."""

    step: str
    reason: str
    by: str = ""
    expected_version: int | None = None


class ResolveStep(Input, frozen=True):
    """Say what became of a stuck step.

    `forward`: it is done, and `reply` is its typed reply; `back`: it never happened, or it is undone.
    """

    step: str
    direction: Literal["forward", "back"]
    reason: str
    reply: Recording | None = None
    by: str = ""
    expected_version: int | None = None


class Watch(Input, frozen=True):
    """Tell `reply_to` when the saga has ended."""


AnyInput = (
    Answered
    | TimersFired
    | RolledBack
    | SignalReceived
    | EventReceived
    | Cancel
    | Pause
    | Resume
    | RetryStep
    | SkipStep
    | ResolveStep
    | Watch
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[AnyInput] = msgspec.msgpack.Decoder(AnyInput)


def encode_input(message: AnyInput) -> bytes:
    return _ENCODER.encode(message)


def decode_input(data: bytes) -> AnyInput:
    return _DECODER.decode(data)
