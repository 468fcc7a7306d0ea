"""What participants raise: mistakes in their declaration, and promises that a handler did not keep."""

from __future__ import annotations

from amends.contracts import Rejection, UsageError


class ParticipantDefinitionError(UsageError, TypeError):
    """A handler that cannot be one.

    `handler` is `service.function`, `problem` what is wrong with it, `remedy` what to write instead.
    """

    def __init__(self, handler: str, problem: str, remedy: str) -> None:
        self.handler, self.problem, self.remedy = handler, problem, remedy
        super().__init__(f"{handler}: {problem}. {remedy}")


class BrokenPromise(UsageError):
    """A handler answered what its message's contract does not name. A bug: it counts as a failure, without retry."""


class Reject(Exception):
    """Raised by an action: a business "no". The action did nothing; it is never retried, and the saga compensates.

    The rejection's type must be the one that the command's contract names.
    """

    def __init__(self, rejection: Rejection) -> None:
        self.rejection = rejection
        super().__init__(rejection)
