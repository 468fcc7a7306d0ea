"""The waits and limits that the core decides by, where a step does not say otherwise."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from amends.contracts import JSON, Codec, UsageError, as_timedelta
from amends.coordinator.retry import Retry


class Policy(Struct, frozen=True, kw_only=True):
    """Defaults of a coordinator.

    `command_ttl`: how long after it was sent an action may still be begun (its not-after).
    `resend`: the waits after which an unanswered command, undo or settle is sent again; it must stay below
    `command_ttl`.
    `retry`, `retriable`: how failed commands of a step are repeated, before the pivot and after it.
    `undo_retry`: how failed compensations are repeated before the saga is stuck.
    `settle_retry`: how often a participant that is in doubt is asked again before the saga is stuck.
    `buffer_limit`: how many signals and events that nobody awaits yet one saga keeps.
    """

    command_ttl: timedelta = timedelta(minutes=5)
    resend: Retry = Retry(attempts=None, delay=30, max_delay=150)
    retry: Retry = Retry(attempts=3)
    retriable: Retry = Retry(attempts=None)
    undo_retry: Retry = Retry(attempts=10)
    settle_retry: Retry = Retry(attempts=10)
    buffer_limit: int = 100
    codec: Codec = JSON

    def __post_init__(self) -> None:
        longest = max(as_timedelta(self.resend.max_delay), as_timedelta(self.resend.delay))
        if longest >= self.command_ttl:
            raise UsageError(
                f"Policy: a command is sent again after up to {longest}, but may only be begun for {self.command_ttl}, "
                "so it could expire unheard for ever. Make command_ttl longer than resend.max_delay"
            )
        if self.resend.attempts is not None:
            raise UsageError("Policy: resend must go on for ever; use Retry(attempts=None, …)")
