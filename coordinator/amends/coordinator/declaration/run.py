"""What a step may know of the run it is in: `self.run`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from amends.contracts import UsageError

_NAMESPACE: Final = UUID("6b2f1c4e-0d5a-5b7e-9c33-1f6a3d0e8b52")
"""What the ids of all runs are derived from. Fixed for ever, or a repeated transition would make other ids."""


class Run:
    """One call of one method of a saga. The same call, repeated after a crash, sees the same values.

    `id` is the saga's id, `now` the moment of the transition (aware, UTC).
    """

    __slots__ = ("_made", "_seed", "id", "now")

    def __init__(self, id: str, now: datetime, seed: str) -> None:
        self.id, self.now = id, now
        self._seed, self._made = seed, 0

    def uuid(self) -> UUID:
        """A fresh id: another one at each call, and the same ones when the method is run again."""
        self._made += 1
        return uuid5(_NAMESPACE, f"{self._seed}#{self._made}")


class RunSlot:
    """A place for the run that is no field of the state: never encoded, compared, copied or shown."""

    __slots__ = ("_run",)

    if TYPE_CHECKING:
        _run: Run

    @property
    def run(self) -> Run:
        """The run that this method is called in. Raises `UsageError` outside of one."""
        try:
            return self._run
        except AttributeError:
            saga = type(self).__name__
            raise UsageError(
                f"{saga}.run: this {saga} is not in a run; only a coordinator gives it one. Read self.run in steps and "
                "handlers, or start the saga"
            ) from None


def bind(saga: RunSlot, run: Run) -> None:
    """Put a saga into a run, for the calls that follow."""
    saga._run = run
