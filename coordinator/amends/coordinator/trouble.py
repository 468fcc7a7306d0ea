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

    Parts that share `known` suffer together: a problem that one of them has told, and that is not over for it, is not
    told by the others again.
    """

    def __init__(self, part: str, known: set[str] | None = None) -> None:
        self._part = part
        self._known = set() if known is None else known
        self._problem: str | None = None
        self._told = False
        self._wait = _SHORTEST_WAIT_S

    def next_wait(self) -> float:
        """How long to wait before the next try, in seconds: twice as long each time, until it is over."""
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT_S)
        return wait

    def report(self, error: BaseException) -> None:
        """Tell of an error, unless it is the one that was told last. What is not passing is told with its trace."""
        problem = f"{type(error).__name__}: {error}"
        if problem == self._problem:
            return
        if self._told:
            self._known.discard(self._problem or "")
        self._problem, self._told = problem, problem not in self._known
        if not self._told:
            return
        self._known.add(problem)
        if isinstance(error, TransientError | TimeoutError):
            log.warning(f"{self._part} waits; it goes on by itself", problem=str(error) or type(error).__name__)
        else:
            log.error(f"{self._part} failed; trying again", problem=problem, stack=stack_of(error))

    def over(self) -> None:
        """Work goes on."""
        self._wait = _SHORTEST_WAIT_S
        if self._told:
            log.info(f"{self._part} goes on")
            self._known.discard(self._problem or "")
        self._problem, self._told = None, False
