"""What became of a saga, as its caller sees it."""

from __future__ import annotations

from typing import Generic, Literal

from typing_extensions import TypeVar

from amends.contracts import AmendsError, Failure, TerminalError, TransientError
from amends.coordinator.core.snapshot import Phase, Snapshot, Waived
from amends.coordinator.declaration.saga import Saga

Status = Literal["running", "compensating", "completed", "compensated"]

S_co = TypeVar("S_co", bound=Saga, covariant=True, default=Saga)


class NotCompleted(AmendsError):
    """`unwrap` was called on a saga that did not complete. `status` and `failure` say what it did instead."""

    def __init__(self, saga_id: str, status: Status, failure: Failure | None) -> None:
        self.saga_id, self.status, self.failure = saga_id, status, failure
        why = f": {failure.error}: {failure.message}".rstrip(": ") if failure is not None else ""
        super().__init__(f"saga {saga_id!r} is {status}{why}")


class UnknownSagaId(TerminalError):
    """No saga has this id, or it ended so long ago that it was removed."""

    def __init__(self, saga_id: str) -> None:
        self.saga_id = saga_id
        super().__init__(f"there is no saga {saga_id!r}")


class StillGoing(TransientError, TimeoutError):
    """The saga had not ended within the time given. It goes on; ask again."""

    def __init__(self, saga_id: str, status: Status, timeout_s: float) -> None:
        self.saga_id, self.status = saga_id, status
        super().__init__(f"saga {saga_id!r} is still {status} after {timeout_s:g} s; it goes on, ask again later")


class Outcome(Generic[S_co]):
    """A saga as it stood when it was read.

    `status` is its phase. `stuck` and `paused` may stand beside a status that is not the end. `failure` is why it went
    back; `waived` what an operator left as it was, so that "compensated" is not the whole truth.
    """

    __slots__ = ("_state", "failure", "paused", "saga_id", "status", "stuck", "waived")

    def __init__(self, snapshot: Snapshot, state: S_co) -> None:
        self.saga_id = snapshot.id
        self.status: Status = snapshot.phase.value
        self.stuck: bool = snapshot.stuck
        self.paused: bool = snapshot.paused
        self.failure: Failure | None = snapshot.failure
        self.waived: tuple[Waived, ...] = snapshot.waived
        self._state = state

    @property
    def state(self) -> S_co:
        """The saga with the values its handlers gave it. Without its class at hand: a dictionary."""
        return self._state

    @property
    def ended(self) -> bool:
        return Phase(self.status).ended

    def unwrap(self) -> S_co:
        """The state of a completed saga. Raises `NotCompleted` for any other."""
        if self.status != "completed":
            raise NotCompleted(self.saga_id, self.status, self.failure)
        return self._state

    def __repr__(self) -> str:
        flags = "".join(f" {flag}" for flag in ("stuck", "paused") if getattr(self, flag))
        return f"<Outcome {self.saga_id!r} {self.status}{flags}>"
