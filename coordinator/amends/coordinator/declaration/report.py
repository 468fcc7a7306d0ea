"""Collecting what is wrong with one class."""

from __future__ import annotations

import sys
from typing import Any

from amends.coordinator.declaration.errors import Problem, SagaDefinitionError
from amends.coordinator.declaration.signatures import bare, line_of


class Report:
    """The problems of one class, by step."""

    def __init__(self, class_name: str, module: str) -> None:
        self.class_name = class_name
        self.path = getattr(sys.modules.get(module), "__file__", None) or ""
        self.problems: list[Problem] = []

    def add(self, step: str | None, problem: str, remedy: str, at: Any = None) -> None:
        """`at` is the function that the problem is in."""
        self.problems.append(Problem(step, problem, remedy, self._line(at)))

    def _line(self, fn: Any) -> int | None:
        function = bare(fn)
        return line_of(function) if function is not None and function.__code__.co_filename == self.path else None

    def raise_any(self, order: list[str]) -> None:
        """Raise what was found: that of the class first, then step by step. `order` are the names of the steps."""
        if self.problems:
            place: dict[str | None, int] = {name: index for index, name in enumerate(order)}
            place[None] = -1
            problems = sorted(self.problems, key=lambda problem: place.get(problem.step, len(place)))
            raise SagaDefinitionError(self.class_name, problems, self.path.replace("\\", "/").rpartition("/")[2])
