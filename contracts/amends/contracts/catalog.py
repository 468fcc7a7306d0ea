"""The catalog: which class stands behind a stable tag."""

from collections.abc import Iterable, Iterator
from typing import Any

from amends.contracts.codec import codec_for
from amends.contracts.envelope import Envelope
from amends.contracts.errors import ContractError, UnknownTypeError
from amends.contracts.messages import Message


class Catalog:
    """The message types that one part of a system understands, by tag.

    Two classes with one tag are refused with `ContractError`, since a message could not be told apart.
    """

    def __init__(self, types: Iterable[type[Message]] = ()) -> None:
        self._types: dict[str, type[Message]] = {}
        for message_type in types:
            self.add(message_type)

    def add(self, type: type[Message]) -> None:
        known = self._types.setdefault(type.__tag__, type)
        if known is not type:
            raise ContractError(
                type.__qualname__,
                f"has the tag {type.__tag__!r} of {known.__module__}.{known.__qualname__}",
                "Give one of them another name= or version=",
            )

    def __contains__(self, tag: object) -> bool:
        return tag in self._types

    def __iter__(self) -> Iterator[type[Message]]:
        return iter(self._types.values())

    def __len__(self) -> int:
        return len(self._types)

    def type(self, tag: str) -> type[Message]:
        """The class of a tag. Raises `UnknownTypeError`."""
        try:
            return self._types[tag]
        except KeyError:
            raise UnknownTypeError(tag, tuple(self._types)) from None

    def decode(self, envelope: Envelope) -> Any:
        """The message inside an envelope. Raises `UnknownTypeError`, or `DecodeError` naming the field."""
        return codec_for(envelope.content_type).decode(envelope.data, self.type(envelope.type))
