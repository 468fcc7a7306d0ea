"""The saga definitions that a coordinator has loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from amends.contracts import Event, TerminalError, UsageError
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.declaration.saga import Saga, definition_of


class UnknownSaga(TerminalError):
    """A saga, or a version of one, that is not loaded here."""

    def __init__(self, name: str, version: int | None, loaded: Iterable[str]) -> None:
        self.name, self.version = name, version
        what = name if version is None else f"{name} version {version}"
        super().__init__(f"saga {what} is not loaded here; loaded: {', '.join(sorted(loaded)) or 'none'}")


class Registry:
    """Definitions by name and version. Raises `UsageError` when two classes claim the same."""

    def __init__(self, sagas: Iterable[type[Saga]]) -> None:
        self._versions: dict[str, dict[int, Definition]] = {}
        for saga in sagas:
            definition = definition_of(saga)
            versions = self._versions.setdefault(definition.name, {})
            known = versions.setdefault(definition.version, definition)
            if known.saga is not saga:
                both = f"{_place(saga)} and {_place(known.saga)}"
                raise UsageError(
                    f"{both} are {definition.name} version {definition.version}. "
                    "Give one of them another name= or version="
                )

    def __iter__(self) -> Iterator[Definition]:
        for versions in self._versions.values():
            yield from versions.values()

    def knows(self, name: str) -> bool:
        """Whether some version of this saga is loaded."""
        return name in self._versions

    def get(self, name: str, version: int | None = None) -> Definition:
        """One version, or the newest. Raises `UnknownSaga`."""
        versions = self._versions.get(name, {})
        if version is None and versions:
            return versions[max(versions)]
        definition = versions.get(version or 0)
        if definition is None:
            raise UnknownSaga(name, version, (d.tag for d in self))
        return definition

    def event_types(self) -> dict[str, type[Event]]:
        """Every event that some loaded saga may wait for, by tag."""
        return {tag: type for definition in self for tag, type in definition.event_types().items()}


def _place(saga: type[Any]) -> str:
    return f"{saga.__module__}.{saga.__qualname__}"


def input_hash(saga: str, data: bytes | msgspec.Raw) -> str:
    """A hash of a saga's input as JSON, the same for any order of its fields."""
    value: Any = msgspec.json.decode(data)
    data = saga.encode() + b"\0" + msgspec.json.encode(value, order="sorted")
    return hashlib.blake2b(data, digest_size=16).hexdigest()
