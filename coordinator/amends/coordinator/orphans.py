"""Answers to a saga that the store does not know: what it did, nobody will undo by itself."""

from __future__ import annotations

from typing import Final

from amends.contracts import Envelope, ReplyOutcome

REASON: Final = "orphan"
"""Why such an answer is a dead letter."""

_LEFT_NOTHING: Final = (ReplyOutcome.REJECTED, ReplyOutcome.CLOSED, ReplyOutcome.UNDONE)


def left_something(envelope: Envelope) -> bool:
    """Whether an answer tells of an effect that is there, or may be."""
    return envelope.outcome not in _LEFT_NOTHING


def detail(envelope: Envelope) -> str:
    """What an operator should know of an answer that no saga waits for, and do about it."""
    service = envelope.source.rsplit("/", 1)[-1] or "its participant"
    remedy = (
        f"nothing else will undo it: see at {service} whether it shall stand"
        if left_something(envelope)
        else "nothing is left of it, and nothing is to be done"
    )
    outcome = "unknown" if envelope.outcome is None else envelope.outcome.value
    return (
        f"{envelope.effect_key} is {outcome}, and the store knows no such saga {envelope.subject!r}: "
        f"its start is lost, or was another's; {remedy}"
    )
