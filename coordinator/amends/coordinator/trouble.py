"""Says once, in plain words, what is wrong, and once that it is over."""

from __future__ import annotations

import structlog

from amends.contracts import TransientError

log = structlog.get_logger("amends.coordinator")


class Trouble:
    """What one part of a coordinator is suffering from."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._told: str | None = None

    def report(self, error: BaseException) -> None:
        """Tell of an error, unless it is the one that was told last. What is not passing is told with its trace."""
        problem = f"{type(error).__name__}: {error}"
        if problem == self._told:
            return
        self._told = problem
        if isinstance(error, TransientError | TimeoutError):
            log.warning(f"{self._part} waits; it goes on by itself", problem=str(error) or type(error).__name__)
        else:
            log.error(f"{self._part} failed; trying again", problem=problem, exc_info=error)

    def over(self) -> None:
        """Work goes on."""
        if self._told is not None:
            log.info(f"{self._part} goes on")
            self._told = None
