"""What is wrong with a saga class, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from amends.contracts import UsageError


class Problem(Struct, frozen=True):
    """One thing that is wrong: at which step (None: the class itself), what, what to write instead, and in which line.

    `line` is None where the code in question stands in another file than the class.
    """

    step: str | None
    problem: str
    remedy: str
    line: int | None = None


class SagaDefinitionError(UsageError, TypeError):
    """A class that cannot be a saga.

    `saga` is its name, `problems` everything that is wrong with it, `file` where it stands (empty when unknown).
    """

    def __init__(self, saga: str, problems: Iterable[Problem], file: str = "") -> None:
        self.saga, self.problems, self.file = saga, tuple(problems), file
        count = len(self.problems)
        lines = [f"{saga} cannot be a saga ({count} problem{'s' if count != 1 else ''})"]
        for found in self.problems:
            place = f"  [{file}:{found.line}]" if file and found.line else ""
            subject = f"{saga}.{found.step}: " if found.step else ""
            lines += [f"  {subject}{found.problem}{place}", f"      -> {found.remedy}"]
        super().__init__("\n".join(lines))
