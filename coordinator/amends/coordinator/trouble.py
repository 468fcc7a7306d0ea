"""Says once, in plain words, what is wrong, and once that it is over."""

from __future__ import annotations

from typing import Final

import structlog

from amends.contracts import TransientError
from amends.contracts.errors import stack_of

log = structlog.get_logger("amends.coordinator")

_SHORTEST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0


class Trouble:
    """What one part of a coordinator is suffering from.

    Parts that share `known` suffer together: what one of them has told is not told again, by itself or another, until
    it is over for the one that told it.
    """

    def __init__(self, part: str, known: set[str] | None = None) -> None:
        self._part = part
        self._known = set() if known is None else known
        self._told: set[str] = set()
        self._wait = _SHORTEST_WAIT_S

    def next_wait(self) -> float:
        """How long to wait before the next try, in seconds: twice as long each time, until it is over."""
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT_S)
        return wait

    def report(self, error: BaseException) -> None:
        """Tell of an error, unless it is known. What is not passing is told with its trace."""
        problem = f"{type(error).__name__}: {error}"
        if problem in self._known:
            return
        self._known.add(problem)
        self._told.add(problem)
        if isinstance(error, TransientError | TimeoutError):
            log.warning(f"{self._part} waits; it goes on by itself", problem=str(error) or type(error).__name__)
        else:
            log.error(f"{self._part} failed; trying again", problem=problem, stack=stack_of(error))

    def over(self) -> None:
        """Work goes on."""
        self._wait = _SHORTEST_WAIT_S
        if self._told:
            log.info(f"{self._part} goes on")
            self._known -= self._told
            self._told.clear()
